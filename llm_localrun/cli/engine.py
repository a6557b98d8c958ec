"""List, choose and remove the builds of llama.cpp that run GGUF files.

Without a command, lists them and says which one is used, and why.

\b
Example:
  llm localrun engine
"""

import sys
from typing import Any

import click

from llm_localrun.cli.engine_install import install, update
from llm_localrun.cli.table import json_option, say, show, size_text
from llm_localrun.config import read_config, update_config
from llm_localrun.engine import builds, failed_builds
from llm_localrun.engine.build_probe import Build, choice_in, probe_all
from llm_localrun.engine.installed import list_installed, size_of
from llm_localrun.engine.remove import remove_build
from llm_localrun.engine.state import EngineState, list_running
from llm_localrun.errors import ConfigError
from llm_localrun.names.aliases import nearest
from llm_localrun.system.paths import engine_folder

_NONE = "There is no build of llama.cpp. Install one: llm localrun engine install"


@click.group(help=__doc__, invoke_without_command=True)
@json_option
@click.pass_context
def engine(context: click.Context, as_json: bool) -> None:
    if context.invoked_subcommand is None:
        context.invoke(list_, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"Give --json after {context.invoked_subcommand}.")


@engine.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the builds of llama.cpp: installed ones, xllamacpp, and llama-server on PATH.

    \b
    Example:
      llm localrun engine list
    """
    config = read_config()
    report = builds.report(engine_folder(), config.llama_server, ",".join(config.rpc))
    engines = list_running(engine_folder())
    facts = [_facts(build, report, engines) for build in report.builds]
    show(as_json, facts, map(_row, facts), optional=["size", "version"], if_empty=_NONE)
    if report.problem and not as_json:
        say(f"{report.problem}. {report.remedy}.", err=True)


def _facts(build: Build, report: builds.BuildReport, engines: list[EngineState]) -> dict[str, Any]:
    return {
        "name": build.name,
        "kind": build.kind,
        "path": build.path,
        "version": build.version,
        "installed": bool(build.installed),
        "devices": [device.title for device in build.devices],
        "size": _size_of(build),
        "used": build == report.chosen,
        "reason": report.reasons[build.path],
        "problem": build.problem,
        "gpu_problem": build.gpu_problem,
        "running": [each.spec.name for each in engines if each.build_path == build.path],
    }


def _size_of(build: Build) -> int | None:
    """The bytes of an installed build; None for those of others, which are not ours to count."""
    found = (each for each in list_installed() if each.name == build.installed)
    return next((size_of(each.folder) for each in found), None)


def _row(facts: dict[str, Any]) -> dict[str, str]:
    return {
        "name": facts["name"],
        "used": "yes" if facts["used"] else "",
        "why": facts["reason"],
        "runs": ", ".join(facts["running"]),
        "size": size_text(facts["size"]),
        "version": facts["version"],
    }


@engine.command()
@click.argument("name")
def use(name: str) -> None:
    """Run GGUF files with the build NAME from now on.

    NAME is that of an installed build, `xllamacpp`, or the path of a llama-server. `auto` leaves
    the choice to llm-localrun again.

    \b
    Example:
      llm localrun engine use xllamacpp
    """
    named = _setting_of(name, rpc=bool(read_config().rpc))
    config = update_config(lambda settings: _put(settings, named))
    report = builds.report(engine_folder(), config.llama_server, ",".join(config.rpc))
    if report.chosen is None:
        say(f"{report.problem}. {report.remedy}.", err=True)
        return
    say(f"{report.chosen.name} runs GGUF files: {report.reasons[report.chosen.path]}")


def _setting_of(name: str, *, rpc: bool) -> str | None:
    """The value of llama_server in config.json that stands for NAME. `rpc`: it has RPC servers.

    What the build has failed at is forgotten: whoever names it wants to try it again. Raises
    `ConfigError`, also for a build that cannot be used.
    """
    if name == "auto":
        failed_builds.forget_gpus()
        return None
    found = choice_in(name)
    if found is None or found.problem:
        raise _unknown("build of llama.cpp", name, ["xllamacpp", "auto"])
    (probed,) = probe_all([found], engine_folder())
    if probed.problem:
        raise ConfigError(f"{name} cannot be used: {probed.problem}", probed.remedy)
    if rpc and not probed.can_rpc:
        remedy = "Name a llama-server that was built with GGML_RPC, or remove rpc"
        raise ConfigError(f"{name} cannot use the RPC servers in config.json", remedy)
    failed_builds.forget(found.key)
    if found.kind == "xllamacpp":
        return ""
    return found.installed or found.path


def _put(settings: dict[str, Any], named: str | None) -> None:
    settings.pop("llama_server", None)
    settings |= {} if named is None else {"llama_server": named}


@engine.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask")
def remove(name: str, yes: bool) -> None:
    """Remove the installed build NAME. Engines that run it end first, when they are idle.

    \b
    Example:
      llm localrun engine remove b11391-vulkan
    """
    found = next((each for each in list_installed() if each.name == name), None)
    if found is None:
        raise _unknown("installed build", name, [])
    size = size_text(size_of(found.folder))
    if not yes and not sys.stdin.isatty():
        command = f"llm localrun engine remove {name} --yes"
        raise click.UsageError(f"Nothing was removed. To remove it: {command}")
    if not yes:
        click.confirm(f"Remove {name} ({size})?", abort=True, err=True)
    remove_build(found, _announce)
    if found.is_named_by(read_config().llama_server):
        update_config(lambda settings: _put(settings, None))
    say(f"Removed {name}: {size} freed")


engine.add_command(install)
engine.add_command(update)


def _unknown(what: str, name: str, others: list[str]) -> ConfigError:
    close = nearest(name, [*(each.name for each in list_installed()), *others])
    hint = f"Nearest: {', '.join(close)}" if close else "`llm localrun engine list` lists all"
    return ConfigError(f"There is no {what} {name}", hint)


def _announce(name: str, doing: str) -> None:
    say(f"{name} {doing}: waiting. `llm localrun unload --all --force` ends it now.", err=True)
