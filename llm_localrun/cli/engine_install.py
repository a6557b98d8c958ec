"""`llm localrun engine install` and `engine update`: what is fetched, a question, and the result.

Downloading, unpacking and trying a build is left to `pull.install`.
"""

import shlex
import sys

import click

from llm_localrun.cli.progress import quiet_option, show_progress
from llm_localrun.cli.table import json_option, pick, say, show_json, size_text
from llm_localrun.config import read_config
from llm_localrun.engine import builds
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.installed import Backend, HashOrigin, InstalledBuild, list_installed
from llm_localrun.engine.remove import remove_if_unused
from llm_localrun.engine.state import list_running
from llm_localrun.errors import InstallFailed
from llm_localrun.pull import starter
from llm_localrun.pull.http_files import RESUME_ADVICE
from llm_localrun.pull.install import (
    InstallPlan,
    model_here,
    plan_install,
)
from llm_localrun.pull.install import (
    install as install_steps,
)
from llm_localrun.pull.releases import LATEST, PINNED_TAG, is_tag
from llm_localrun.system.paths import engine_folder
from llm_localrun.system.program import runnable

_AUTO = "auto"
_NVIDIA_LICENSE = "https://docs.nvidia.com/cuda/eula/"
_HASHES = {
    HashOrigin.PINNED: "the list in llm-localrun",
    HashOrigin.LISTING: "the release's own list",
}
"""Where the SHA-256 of the archives stands."""

_yes_option = click.option("-y", "--yes", is_flag=True, help="Install without asking")
_quiet_option = quiet_option("Do not show progress")


def _check_tag(_context: click.Context, _parameter: click.Parameter, tag: str) -> str:
    if tag != LATEST and not is_tag(tag):
        raise click.BadParameter(f"'{tag}' is neither a tag such as {PINNED_TAG} nor {LATEST}.")
    return tag


@click.command("install")
@click.argument(
    "backend",
    type=click.Choice([_AUTO, *(backend.value for backend in Backend)]),
    default=_AUTO,
)
@click.option(
    "--tag",
    default=PINNED_TAG,
    callback=_check_tag,
    help=f"Release of llama.cpp, or {LATEST}; {PINNED_TAG} by default",
)
@_yes_option
@_quiet_option
@json_option
def install(backend: str, tag: str, **options: bool) -> None:
    """Install a build of llama.cpp that fits this machine.

    Without BACKEND, the one that uses its GPU is chosen; without a GPU, the one for its CPU. Shows
    what will be downloaded, and asks.

    \b
    Example:
      llm localrun engine install
    """
    plan = plan_install(None if backend == _AUTO else Backend(backend), tag)
    present = plan.present
    build = present or _install(plan, **options)
    _report(build, is_new=present is None, as_json=options["as_json"])


@click.command("update")
@_yes_option
@_quiet_option
@json_option
def update(**options: bool) -> None:
    """Install the newest release of the installed build, and remove the old one.

    The old one stays if a model runs on it, or if config.json names it.

    \b
    Example:
      llm localrun engine update
    """
    old = _build_in_use()
    plan = plan_install(old.backend, LATEST)
    if plan.number <= old.number and old.is_whole:
        say(f"{old.name} is up to date", err=True)
        if options["as_json"]:
            _report(old, is_new=False, as_json=True)
        return
    if plan.number <= old.number:
        say(f"{old.name} is damaged", err=True)
        plan = plan_install(old.backend, old.tag)
    present = plan.present
    build = present or _install(plan, **options)
    _report(build, is_new=present is None, as_json=options["as_json"])
    if build.name != old.name:
        _retire(old)


def _build_in_use() -> InstalledBuild:
    """The installed build that runs models, or would if it were whole; if none, the newest."""
    installed = list_installed()
    if not installed:
        raise InstallFailed(
            "No build of llama.cpp was installed by llm-localrun",
            "Install one with `llm localrun engine install`",
        )
    used = _used()
    named = read_config().llama_server
    wanted = (used.path if used else "", named)
    found = (each for each in installed if str(each.server) in wanted or each.name == named)
    return next(found, installed[0])


def _used() -> Build | None:
    """The build that runs models."""
    config = read_config()
    return builds.report(engine_folder(), config.llama_server, ",".join(config.rpc)).chosen


def _install(plan: InstallPlan, *, yes: bool, quiet: bool, **_: bool) -> InstalledBuild:
    """Installs the build if the user agrees. Raises a `LocalRunError`."""
    if not (quiet and yes):
        say(*_describe(plan), err=True)
    if not yes:
        _ask(click.get_current_context())
    try:
        return show_progress(install_steps(plan), plan.name)
    except KeyboardInterrupt:
        say(f"Nothing was installed. {RESUME_ADVICE}.", err=True)
        raise


def _describe(plan: InstallPlan) -> list[str]:
    """What will be fetched, how large it is, from where, under which license and for what."""
    release = plan.release
    reason = f" ({plan.reason})" if plan.reason else ""
    license_text = "MIT"
    if release.has_cuda_runtime:
        license_text += f"; CUDA's libraries: NVIDIA's EULA, {_NVIDIA_LICENSE}"
    lines = [
        f"{release.title}{reason}",
        f"Download: {size_text(release.size)} from {release.folder_url}",
        f"License: {license_text}",
        f"SHA-256: checked against {_HASHES[release.hash_origin]}",
    ]
    if model_here() is None:
        lines.append(f"To try it: the starter model ({size_text(starter.SIZE)}, Apache-2.0)")
    return [*lines, *([f"Note: {plan.missing}"] if plan.missing else [])]


def _ask(context: click.Context) -> None:
    """Ends the command unless the user agrees."""
    if not sys.stdin.isatty():
        command = f"{context.command_path} {shlex.join(_given(context))} --yes"
        command = runnable(" ".join(command.split()))
        raise click.UsageError(f"Nothing was installed. To install it: {command}")
    if not click.confirm("Install it?", default=True, err=True):
        say("Nothing was downloaded.", err=True)
        context.exit(1)


def _given(context: click.Context) -> list[str]:
    """The arguments that the user has given."""
    given = []
    for name, value in context.params.items():
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        option = {"as_json": "--json", "quiet": "--quiet"}.get(name)
        given += [value] if name == "backend" else [option] if option else [f"--{name}", value]
    return given


def _report(build: InstalledBuild, *, is_new: bool, as_json: bool) -> None:
    """Says what is installed, what it found, and which build runs models now."""
    used = _used()
    is_used = used is not None and used.path == str(build.server)
    if as_json:
        facts = pick(build, "name tag version urls sha256 devices tokens_per_second size")
        facts |= {"backend": build.backend.value, "path": str(build.server)}
        facts |= {"hash_origin": build.hash_origin.value, "new": is_new, "used": is_used}
        show_json(facts)
        return
    found = [", ".join(build.devices)] if build.devices else []
    if build.tokens_per_second:
        digits = 0 if build.tokens_per_second >= 10 else 1
        found.append(f"{build.tokens_per_second:.{digits}f} tokens/s")
    else:
        found.append(": ".join(filter(None, ["not tried with a model", build.untried])))
    more = f" ({'; '.join(found)})" if found else ""
    what = "Installed" if is_new else "It is installed already"
    now = "GGUF files run on it" + " from now on" * is_new
    if not is_used:
        now = f"GGUF files run on {used.name if used else 'no build'}. To change that: "
        now += f"llm localrun engine use {build.name}"
    elif is_new and list_running(engine_folder()):
        now += "; those in memory stay on their build until `llm localrun unload --all`"
    say(f"{what}: {build.name}{more}. {now}")


def _retire(old: InstalledBuild) -> None:
    """Removes the build that another has replaced, if nothing needs it. Says what happened."""
    if old.is_named_by(read_config().llama_server):
        why = "config.json names it"
    elif remove_if_unused(old):
        say(f"Removed {old.name}", err=True)
        return
    else:
        why = "a model runs on it"
    say(f"{old.name} stays: {why}. To remove it: llm localrun engine remove {old.name}", err=True)
