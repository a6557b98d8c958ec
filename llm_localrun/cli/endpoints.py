"""List, add and remove model servers.

\b
Example:
  llm localrun endpoints add box http://192.168.1.5:8000
"""

from typing import Any

import click
from pydantic import ValidationError
from typing_extensions import assert_never

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.facts import endpoint_facts
from llm_localrun.cli.table import count_of, first_few, json_option, say, show
from llm_localrun.config import ConfiguredEndpoint, problem_of, read_config, update_config
from llm_localrun.errors import ConfigError
from llm_localrun.models import EndpointReport, ServerStatus
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import nearest
from llm_localrun.privacy import is_loopback
from llm_localrun.servers.base import refused_login, server_class, server_kinds

STATUS: dict[ServerStatus, str] = {
    ServerStatus.ANSWERS: "answers",
    ServerStatus.LOADING: "is loading its model",
    ServerStatus.OFFLINE: "offline",
    ServerStatus.TIMEOUT: "cannot be reached",
    ServerStatus.BUSY: "has not answered yet",
    ServerStatus.NEEDS_KEY: "needs a key",
    ServerStatus.UNRECOGNIZED: "is not a model server",
}
"""What to say of a server, after its name."""


@click.group(help=__doc__, invoke_without_command=True)
@json_option
@click.pass_context
def endpoints(context: click.Context, as_json: bool) -> None:
    if context.invoked_subcommand is None:
        context.invoke(list_, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"Give --json after {context.invoked_subcommand}.")


@endpoints.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the servers that are asked for models: yours, and those on default ports.

    \b
    Example:
      llm localrun endpoints list --json
    """
    added = {endpoint.name for endpoint in read_config().endpoints}
    reports = get_catalogue(CachePolicy.FRESH).endpoints
    show(
        as_json,
        (report_facts(report, report.endpoint.name in added) for report in reports),
        (_row(report, report.endpoint.name in added) for report in reports),
        if_empty="There are no servers. Add one: llm localrun endpoints add NAME URL",
    )


@endpoints.command()
@click.argument("name")
@click.argument("url")
@click.option("--key", help="Name of its key in `llm keys`; localrun-NAME by default")
@click.option(
    "--dialect",
    type=click.Choice([kind for kind, cls in server_kinds().items() if not cls.is_private]),
    metavar="KIND",
    help="Kind of server, such as vllm or openai, if it is not recognized",
)
def add(name: str, url: str, key: str | None, dialect: str | None) -> None:
    """Add the server at URL. The ids of its models begin with local/NAME/.

    \b
    Example:
      llm localrun endpoints add box http://192.168.1.5:8000
    """
    try:
        added = ConfiguredEndpoint(name=name, url=url, key=key, dialect=dialect)
    except ValidationError as error:
        raise ConfigError(
            f"This endpoint cannot be added: {problem_of(error)}",
            "Example: `llm localrun endpoints add box http://192.168.1.5:8000`",
        ) from None
    update_config(lambda settings: _append(settings, added))
    say(f"Added {name}: {added.address}")
    report = next(
        r for r in get_catalogue(CachePolicy.REFRESH).endpoints if r.endpoint.url == added.url
    )
    say(_describe(report))
    if not is_loopback(added.url):
        say("Prompts to its models leave this machine.")


@endpoints.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the server NAME from the configuration.

    \b
    Example:
      llm localrun endpoints remove box
    """
    update_config(lambda settings: _remove(settings, name))
    say(f"Removed {name}")


def _append(settings: dict[str, Any], added: ConfiguredEndpoint) -> None:
    configured = settings.setdefault("endpoints", [])
    for other in (ConfiguredEndpoint.model_validate(each) for each in configured):
        if added.name == other.name or added.url == other.url:
            raise ConfigError(
                f"There is already an endpoint {other.name} at {other.address}",
                f"Remove it first: `llm localrun endpoints remove {other.name}`",
            )
    configured.append(added.model_dump(exclude_none=True))


def _remove(settings: dict[str, Any], name: str) -> None:
    configured = settings.get("endpoints", [])
    kept = [endpoint for endpoint in configured if endpoint["name"] != name]
    if len(kept) == len(configured):
        close = nearest(name, [endpoint["name"] for endpoint in configured])
        raise ConfigError(
            f"There is no endpoint {name} in the configuration",
            f"Nearest: {', '.join(close)}" if close else "`llm localrun endpoints` lists all",
        )
    settings["endpoints"] = kept


def _describe(report: EndpointReport) -> str:
    """What a new server answered, and what to do about it."""
    match report.status:
        case ServerStatus.ANSWERS:
            count = count_of(len(report.models), "model")
            names = first_few([model.id for model in report.models])
            hint = server_class(report.endpoint.kind).empty_hint
            more = f": {names}" if names else hint and f". {hint}"
            return f"{server_title(report)}, {count}{more}"
        case ServerStatus.LOADING:
            return "It is loading its model, which will be listed when it is ready."
        case ServerStatus.NEEDS_KEY:
            source = refused_login(report)
            wants = f"It needs a key: llm keys set {report.endpoint.key_name}"
            return f"It refuses the user and password in {source}." if source else wants
        case ServerStatus.UNRECOGNIZED:
            return "It is not a model server. Check the URL, or give --dialect."
        case ServerStatus.BUSY:
            return (
                f"It accepts connections but did not answer within {report.waited_s:g} s."
                " Its models will be listed when it does."
            )
        case ServerStatus.OFFLINE | ServerStatus.TIMEOUT:
            return "Nothing accepts connections there now. Its models will be listed when it runs."
        case unknown:
            assert_never(unknown)


def server_title(report: EndpointReport) -> str:
    """The kind of a server and, if known, its version: Ollama 0.32.0."""
    if report.is_unheard and not report.is_kind_known:
        return "unknown server"
    return f"{server_class(report.endpoint.kind).title} {report.version}".strip()


def report_facts(report: EndpointReport, is_added: bool) -> dict[str, Any]:
    """What `--json` shows of a server."""
    return {
        **endpoint_facts(report.endpoint),
        "key": report.endpoint.key_name,
        "added": is_added,
        "status": report.status,
        "version": report.version,
        "models": [model.id for model in report.models],
    }


def _row(report: EndpointReport, is_added: bool) -> dict[str, str]:
    return {
        "name": report.endpoint.name,
        "url": report.endpoint.address,
        "status": STATUS[report.status],
        "models": str(len(report.models)) if report.models else "",
        "kind": server_title(report),
        "added": "yes" if is_added else "",
    }
