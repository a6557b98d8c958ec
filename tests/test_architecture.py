"""The layout: imports go down, a kind of server is one file, starting costs little."""

import ast
import importlib
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import llm_localrun
import llm_localrun.servers
from llm_localrun.models import Endpoint, ServerStatus
from llm_localrun.name_cache import CachedName, NameCache, settings_stamp, write_names
from llm_localrun.servers import base
from llm_localrun.servers.base import ModelListing, server_kinds
from llm_localrun.servers.discover import usual_addresses
from llm_localrun.servers.recognize import recognize
from llm_localrun.wire.response import ProbeReply
from llm_localrun.wire.sse import Payload

PACKAGE = Path(llm_localrun.__file__).parent
FLOORS = (Path(__file__).parent / "floors.txt").read_text().split()
"""The packages and modules at the top, lowest first: each may import those before it."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
PACKAGES = sorted({module.partition(".")[0] for module in MODULES if "." in module})

# Packages that do no I/O, except for the modules that are named.
PURE_PACKAGES = {
    "charts": {"charts.save"},
    "wire": {"wire.http"},
    "names": set[str](),
    "tokens": {"tokens.learned"},
    "files.gotemplate": set[str](),
}
PURE_MODULES = (
    *("gguf.header", "gguf.tensor_types", "memory.geometry", "privacy"),
    *("quantize.layout", "quantize.recipes", "pull.refs", "pull.variants"),
)
IO_MODULES = {"httpx", "socket", "subprocess", "threading", "asyncio", "os", "pathlib", "time"}

HEAVY = {
    *("httpx", "numpy", "psutil", "xllamacpp", "huggingface_hub", "resvg_py"),
    *("llm_localrun.wire.http", "llm_localrun.chat.run"),
}


def imports_of(module: str) -> Iterator[str]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports, those inside its functions included."""
    names = (name.removeprefix("llm_localrun.") for name in imports_of(module))
    return {name for name in names if name in MODULES}


def floor_of(module: str) -> int:
    return FLOORS.index(module.partition(".")[0])


def test_every_package_and_module_at_the_top_has_its_floor() -> None:
    assert {module.partition(".")[0] for module in MODULES} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_imports_go_down(module: str) -> None:
    assert {name for name in own_imports(module) if floor_of(name) > floor_of(module)} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_no_cycles(package: str) -> None:
    inside = {name for name in MODULES if name.partition(".")[0] == package}
    waiting = {name: (own_imports(name) & inside) - {name, package} for name in inside}
    while free := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert waiting == {}


def is_pure(module: str) -> bool:
    if module in PURE_MODULES:
        return True
    return any(
        module.startswith(f"{package}.") and module not in others
        for package, others in PURE_PACKAGES.items()
    )


@pytest.mark.parametrize("module", [*filter(is_pure, sorted(MODULES))])
def test_pure_modules_do_no_io(module: str) -> None:
    names = {*imports_of(module)}
    if names & {"pathlib.PurePath", "pathlib.PurePosixPath"} and "pathlib.Path" not in names:
        names = {name for name in names if not name.startswith("pathlib")}
    assert {name.partition(".")[0] for name in names} & IO_MODULES == set()
    calls = [
        node.func.id
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert "open" not in calls


def test_async_functions_are_in_three_modules() -> None:
    asynchronous = {
        module
        for module, tree in TREES.items()
        if any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree))
    }
    assert asynchronous == {"wire.http", "chat.run", "chat.models"}


def importers_of(name: str) -> set[str]:
    return {module for module in MODULES if name in {n.split(".")[0] for n in imports_of(module)}}


def test_two_modules_use_http() -> None:
    """`wire.http` sends to model servers and follows no redirect, `pull.http_files` gets files from
    anywhere and checks each redirect; huggingface_hub has an HTTP library of its own."""
    assert importers_of("httpx") == {"wire.http", "pull.http_files"}
    assert importers_of("huggingface_hub") == {"pull.huggingface"}


# One file per kind of server


ALLOWED = {
    "servers.base: openai",  # the kind of a server that shows no sign of another
    "privacy: openai",  # a provider, in the `owned_by` of a model
    "names.parse: openai",  # a publisher, in the name of a model, as in the next one
    "recommended.recognize: openai",
    "pull.refreshed: unsloth",  # a publisher on the hub
    "names.parse: mlx",  # a file format, in the name of a model
    "files.ollama_manifest: mlx",  # what runs a model of Ollama's
    "files.ollama_manifest: llamacpp",
}


def strays(module: str) -> Iterator[str]:
    """The names of kinds that a module quotes and that are not its own.

    "engine" is left out: it is also the name of a folder, and of a part of the output.
    """
    kinds = {kind for kind, cls in server_kinds().items() if not cls.is_private}
    for node in ast.walk(TREES[module]):
        quoted = str(node.value) if isinstance(node, ast.Constant) else ""
        if quoted in kinds and module not in (f"servers.{quoted}", f"files.{quoted}"):
            yield f"{module}: {quoted}"


def test_a_kind_is_named_in_its_own_file_only() -> None:
    assert {stray for module in MODULES for stray in strays(module)} == ALLOWED


MADE_UP = '''
"""A made-up server."""

from llm_localrun.servers.base import Sign
from llm_localrun.servers.openai_compatible import OpenAICompatible


class MadeUp(OpenAICompatible):
    kind = "madeup"
    title = "Made-Up Server"
    usual_ports = (4711,)
    signs = (Sign("/about", "made_up"),)
    context_flag = "--context {}"
'''


def test_a_new_kind_of_server_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "madeup.py").write_text(MADE_UP)
    monkeypatch.setattr(
        llm_localrun.servers, "__path__", [*llm_localrun.servers.__path__, str(tmp_path)]
    )
    monkeypatch.setattr(base, "_KINDS", dict(base._KINDS))
    assert "madeup" in server_kinds()
    assert ("madeup", "http://127.0.0.1:4711") in usual_addresses()

    replies = {"/v1/models": {"data": [{"id": "m"}]}, "/about": {"made_up": 1}}

    def ask(path: str, json: Payload | None = None) -> ProbeReply:
        return ProbeReply(200 if path in replies else 404, replies.get(path), "")

    endpoint = Endpoint(name="box", kind="openai", url="http://127.0.0.1:4711")
    found = recognize(ask, endpoint, ModelListing())
    assert found is not None
    assert (found.kind, found.status) == ("madeup", ServerStatus.ANSWERS)
    assert [model.name for model in found.models] == ["m"]
    sys.modules.pop("llm_localrun.servers.madeup", None)


# What starting costs


def test_no_dependency_brings_numpy() -> None:
    """sqlite-utils imports it into every `llm` command if it is installed."""
    needed, waiting = set(), ["llm-localrun[gguf]"]
    while waiting:
        requirement = Requirement(waiting.pop())
        for extra in requirement.extras or {""}:
            if (requirement.name, extra) not in needed:
                needed.add((requirement.name, extra))
                waiting += _needs(requirement.name, extra)
    assert {"huggingface-hub", "xllamacpp"} <= {name for name, _ in needed}
    assert "numpy" not in {name for name, _ in needed}


def _needs(package: str, extra: str) -> list[str]:
    try:
        requirements = map(Requirement, importlib.metadata.requires(package) or ())
    except importlib.metadata.PackageNotFoundError:
        return []
    return [str(r) for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_plugin_brings_nothing_heavy(user_path: Path) -> None:
    loaded = loaded_by("import llm.cli, llm.plugins\nllm.plugins.load_plugins()")
    assert "llm_localrun.plugin" in loaded
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("llm_localrun.")} == {"llm_localrun.plugin"}


def test_registration_of_another_model_brings_nothing_heavy(user_path: Path) -> None:
    loaded = loaded_by(
        "from click.testing import CliRunner; import llm.cli\n"
        "CliRunner().invoke(llm.cli.cli, ['-m', 'gpt-4o', '--options'])"
    )
    assert "llm_localrun.registration" in loaded
    assert loaded & HEAVY == set()


def test_warm_registration_loads_what_llm_asks_for_and_no_more(user_path: Path) -> None:
    names = [CachedName("local/a/m", "chat", ["local"], None)]
    write_names(NameCache(time.time(), settings_stamp(["OLLAMA_HOST"]), False, True, names))
    loaded = loaded_by(
        "from click.testing import CliRunner; import llm.cli\n"
        "result = CliRunner().invoke(llm.cli.cli, ['models', 'options', 'show', 'local'])\n"
        "assert 'local/a/m' in result.output, result.output"
    )
    assert {name.removeprefix("llm_localrun.") for name in loaded if "llm_localrun." in name} == {
        *("plugin", "registration", "name_cache", "chat", "chat.models", "wire", "wire.request"),
        *("system", "system.paths", "system.atomic", "system.logins"),
    }


@pytest.mark.parametrize("module", ["engine.host", "quantize.worker"])
def test_processes_of_our_own_start_without_llm(module: str) -> None:
    loaded = loaded_by(f"import llm_localrun.{module}")
    assert loaded & {"llm", "click", "pydantic", "httpx", "sqlite_utils"} == set()


# What can be seen at a glance


def test_functions_can_be_seen_whole() -> None:
    long = {
        f"{module}.{node.name}": length
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 45
    }
    assert long == {}


def test_every_module_says_what_it_does() -> None:
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []
