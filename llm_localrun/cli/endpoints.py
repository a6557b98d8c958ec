"""`endpoints`: the servers that are asked for models, and the user's own among them."""

from typing import Any

import click
from pydantic import ValidationError

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.table import count_of, safe_text, show_json, show_table, some_of
from llm_localrun.config import ConfiguredEndpoint, problem_of, read_config, update_config
from llm_localrun.errors import ConfigError
from llm_localrun.models import EndpointReport, ServerStatus, default_key_alias
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import nearest
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.kinds import KINDS, kind_of

STATUS = {
    ServerStatus.ANSWERS: ServerStatus.ANSWERS,
    ServerStatus.LOADING: "is loading its model",
    ServerStatus.OFFLINE: "not running",
    ServerStatus.TIMEOUT: "does not answer in time",
    ServerStatus.NEEDS_KEY: ServerStatus.NEEDS_KEY,
    ServerStatus.UNRECOGNIZED: "is no model server",
}


@click.group(invoke_without_command=True)
@click.pass_context
def endpoints(context: click.Context) -> None:
    "List, add and remove model servers"
    if context.invoked_subcommand is None:
        context.invoke(list_)


@endpoints.command("list")
@click.option("json_", "--json", is_flag=True, help="Output JSON")
def list_(json_: bool) -> None:
    "List the servers that are asked for models: yours, and those on their usual ports"
    added = {endpoint.name for endpoint in read_config().endpoints}
    reports = get_catalogue().endpoints
    if json_:
        show_json([_facts(report, report.endpoint.name in added) for report in reports])
    elif reports:
        show_table([_row(report, report.endpoint.name in added) for report in reports])
    else:
        click.echo("No server is asked. Add one: llm localrun endpoints add NAME URL", err=True)


@endpoints.command()
@click.argument("name")
@click.argument("url")
@click.option("--key", help="Its key's name in `llm keys`, if that is not localrun-NAME")
@click.option(
    "--dialect",
    type=click.Choice([kind.name for kind in KINDS if kind.name != "engine"]),
    help="The kind of server that it is, if its answers do not tell",
)
def add(name: str, url: str, key: str | None, dialect: str | None) -> None:
    "Add the server at URL, whose models are called local/NAME/…"
    try:
        added = ConfiguredEndpoint(name=name, url=url, key=key, dialect=dialect)
    except ValidationError as error:
        raise ConfigError(
            f"This endpoint cannot be added: {problem_of(error)}",
            "An example: `llm localrun endpoints add box http://192.168.1.5:8000`",
        ) from None
    update_config(lambda settings: _append(settings, added))
    click.echo(f"Added {name}: {added.url}")
    report = next(
        r for r in get_catalogue(CachePolicy.REFRESH).endpoints if r.endpoint.url == added.url
    )
    click.echo(safe_text(_found(report)))
    if not is_loopback(added.url):
        click.echo("Prompts for its models leave this machine.")


@endpoints.command()
@click.argument("name")
def remove(name: str) -> None:
    "Forget the server NAME"
    update_config(lambda settings: _take_out(settings, name))
    click.echo(f"Removed {name}")


def _append(settings: dict[str, Any], added: ConfiguredEndpoint) -> None:
    configured = settings.setdefault("endpoints", [])
    for other in (ConfiguredEndpoint.model_validate(each) for each in configured):
        if added.name == other.name or added.url == other.url:
            raise ConfigError(
                f"There is an endpoint {other.name} at {other.url} already",
                f"Remove it first: `llm localrun endpoints remove {other.name}`",
            )
    configured.append(added.model_dump(exclude_none=True))


def _take_out(settings: dict[str, Any], name: str) -> None:
    configured = settings.get("endpoints", [])
    kept = [endpoint for endpoint in configured if endpoint["name"] != name]
    if len(kept) == len(configured):
        close = nearest(name, [endpoint["name"] for endpoint in configured])
        raise ConfigError(
            f"No endpoint {name} has been added",
            f"Nearest: {', '.join(close)}" if close else "`llm localrun endpoints list` lists all",
        )
    settings["endpoints"] = kept


def _found(report: EndpointReport) -> str:
    """What asking a new server came to, and what to do about it."""
    title = kind_of(report.endpoint.kind).title
    if report.status == ServerStatus.ANSWERS:
        title = f"{title} {report.version}".strip()
        found = count_of(len(report.models), "model")
        return f"{title}, {found}: {some_of([model.id for model in report.models])}"
    if report.status == ServerStatus.LOADING:
        return "It is loading its model, which is listed as soon as it is there."
    if report.status == ServerStatus.NEEDS_KEY:
        return f"It needs a key: llm keys set {key_alias(report)}"
    if report.status == ServerStatus.UNRECOGNIZED:
        return "What answers there is no model server. Check the address, or give --dialect."
    return "It does not answer now. Its models are listed as soon as it does."


def key_alias(report: EndpointReport) -> str:
    """The name in `llm keys` under which the key of a server is looked for."""
    return report.endpoint.key_alias or default_key_alias(report.endpoint.name)


def _facts(report: EndpointReport, is_added: bool) -> dict[str, Any]:
    return {
        **report.endpoint.model_dump(exclude={"key_alias"}),
        "key": key_alias(report),
        "added": is_added,
        "status": report.status,
        "asked_at": report.asked_at,
        "version": report.version,
        "models": [model.id for model in report.models],
    }


def _row(report: EndpointReport, is_added: bool) -> dict[str, str]:
    kind = kind_of(report.endpoint.kind)
    return {
        "name": report.endpoint.name,
        "url": report.endpoint.url,
        "status": STATUS[report.status],
        "models": str(len(report.models)) if report.models else "",
        "kind": f"{kind.title} {report.version}".strip(),
        "added": "yes" if is_added else "",
    }
