"""The layout: imports go one way, nothing heavy comes with the plugin, waiting has its places."""

import ast
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import llm_localrun
from llm_localrun.name_cache import CachedName, settings_stamp, write_names

PACKAGE = Path(llm_localrun.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}

SERVERS = sorted(
    name
    for name in MODULES
    if name.startswith("discovery.servers.") and not name.endswith((".reading", ".listing"))
)

# Each layer may import itself and what stands before it, nothing behind it.
LAYERS = (
    ("gguf.tensor_types",),
    ("__init__", "framing", "gguf", "gguf.header", "gguf.names", "gguf.geometry", "kinds"),
    ("machine", "thinking", "tokens"),
    ("gguf.layout", "gguf.recipes"),
    ("hub.quantize_worker",),
    ("gotemplate.syntax", "gotemplate.jinja", "gotemplate"),
    ("places", "media_types", "foreign"),
    (
        *("engine", "engine.locks", "engine.state", "engine.parameters", "engine.seats"),
        *("engine.prompts", "engine.reasons", "engine.inside", "engine.child", "engine.host"),
    ),
    ("memory", "footprint"),
    (
        "errors",
        "events",
        "model_names",
        "catalogue",
        "config",
        "locality",
        "options",
        "attachments",
    ),
    ("calibration", "context"),
    ("naming", "registry", "quantizations", "request", "wire_options"),
    ("dialects.think", "dialects.wire", "dialects.openai", "dialects.ollama", "dialects"),
    ("dialects.scoring",),
    ("reply",),
    ("model_file", "ollama_store"),
    ("counting", "loading", "discovery.servers.reading", "transport"),
    ("engine.stop", "engine.room", "engine.builds", "engine.launch"),
    ("discovery.lmstudio_home", "discovery.servers.listing"),
    ("discovery.stores.found", "discovery.stores.folders"),
    (
        *("discovery.stores.huggingface", "discovery.stores.lmstudio", "discovery.stores.ollama"),
        *("discovery.stores.docker", "discovery.stores.jan", "discovery.stores.ramalama"),
        *("discovery.stores.llm_gguf", "discovery.stores.contents"),
    ),
    ("discovery.stores.locations", "discovery.stores.named"),
    ("discovery.stores.scan", "discovery.stores"),
    ("discovery.addresses", *SERVERS),
    ("discovery.servers",),
    ("discovery.identify", "discovery.lm_link"),
    ("discovery.endpoints", "discovery", "modelfile"),
    ("resolve",),
    ("serving.common", "serving.admission"),
    ("serving.by_fixed", "serving.by_ollama", "serving.afterwards"),
    ("serving.by_engine", "serving.by_lmstudio"),
    ("serving",),
    ("backends",),
    ("hub", "hub.progress", "hub.safety", "hub.variants", "hub.folder", "hub.records"),
    ("hub.checksum",),
    ("hub.refs", "hub.recommend", "hub.transfer", "hub.servers"),
    ("hub.download", "hub.huggingface", "hub.ollama", "hub.lmstudio", "hub.starter"),
    ("hub.choice", "hub.remove", "hub.verify"),
    ("hub.pull",),
    ("hub.quality", "hub.quantizers"),
    ("hub.quantize_plan",),
    ("hub.quantize",),
    ("interrupts", "recorder"),
    ("models",),
    ("offers",),
    ("registration", "commands.tables", "commands.progress"),
    ("commands.endpoints", "commands.engines", "commands.fetch", "commands.listing"),
    ("commands.policy", "commands.which", "commands.card", "commands.findings"),
    ("commands.doctor", "commands.status", "commands.keeping"),
    ("commands.updates",),
    ("commands.quantize",),
    ("commands",),
    ("plugin",),
)
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}

PURE = (
    *("events", "framing", "request", "reply", "wire_options", "naming", "model_names", "locality"),
    *("gguf.header", "gguf.names", "discovery.identify", "discovery.servers", *SERVERS),
    *("discovery.servers.reading", "discovery.servers.listing"),
    *("gguf.tensor_types", "gguf.layout", "gguf.recipes", "dialects.scoring"),
    *("dialects", "dialects.think", "dialects.wire", "dialects.openai", "dialects.ollama"),
    *("memory", "gguf.geometry", "tokens", "context", "counting", "loading", "quantizations"),
    *("hub.progress", "hub.safety", "hub.variants", "hub.refs", "hub.recommend"),
    *("thinking", "gotemplate", "gotemplate.syntax", "gotemplate.jinja"),
)
IO_MODULES = {"httpx", "socket", "subprocess", "threading", "asyncio", "os", "pathlib", "time"}

HEAVY = {
    *("httpx", "numpy", "psutil", "xllamacpp", "huggingface_hub"),
    *("llm_localrun.wire.http", "llm_localrun.chat.run"),
}


def imports_of(module: str) -> Iterator[str]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> Iterator[str]:
    for name in imports_of(module):
        inner = name.removeprefix("llm_localrun").removeprefix(".")
        if name.startswith("llm_localrun") and inner in MODULES:
            yield inner


def test_every_module_has_its_layer() -> None:
    assert set(LAYER_OF) == set(MODULES)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_imports_go_one_way(module: str) -> None:
    behind = {name for name in own_imports(module) if LAYER_OF[name] > LAYER_OF[module]}
    assert behind == set()


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_do_no_io(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports_of(module)}
    assert roots & IO_MODULES == set()
    calls = [
        node.func.id
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert "open" not in calls


def test_async_stands_where_it_may() -> None:
    asynchronous = {
        module
        for module, tree in TREES.items()
        if any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree))
    }
    assert asynchronous == {"transport", "backends", "models"}


def importers_of(name: str) -> set[str]:
    return {module for module in MODULES if name in {n.split(".")[0] for n in imports_of(module)}}


def test_http_has_its_places() -> None:
    """`transport` speaks to model servers and follows no redirect, `hub.transfer` gets files from
    anywhere and looks at each redirect; huggingface_hub has an HTTP library of its own."""
    assert importers_of("httpx") == {"transport", "hub.transfer"}
    assert importers_of("huggingface_hub") == {"hub.huggingface"}


def test_no_dependency_brings_numpy() -> None:
    """sqlite-utils imports it into every `llm` command if it is there."""
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


def test_plugin_brings_nothing_heavy() -> None:
    loaded = loaded_by("import llm.cli, llm.plugins\nllm.plugins.load_plugins()")
    assert "llm_localrun.plugin" in loaded
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("llm_localrun.")} == {"llm_localrun.plugin"}


def test_registration_of_another_model_brings_nothing_heavy() -> None:
    loaded = loaded_by(
        "from click.testing import CliRunner; import llm.cli\n"
        "CliRunner().invoke(llm.cli.cli, ['-m', 'gpt-4o', '--options'])"
    )
    assert "llm_localrun.registration" in loaded
    assert loaded & HEAVY == set()


def test_warm_registration_loads_what_llm_asks_for_and_no_more(user_path: Path) -> None:
    names = [CachedName("local/a/m", "chat", ["local"], None)]
    write_names(time.time(), settings_stamp(["OLLAMA_HOST"]), names)
    loaded = loaded_by(
        "from click.testing import CliRunner; import llm.cli\n"
        "result = CliRunner().invoke(llm.cli.cli, ['models', 'options', 'show', 'local'])\n"
        "assert 'local/a/m' in result.output, result.output"
    )
    assert {name.removeprefix("llm_localrun.") for name in loaded if "llm_localrun." in name} == {
        *("plugin", "registration", "name_cache", "chat", "chat.models", "wire", "wire.media"),
        *("system", "system.paths", "system.atomic"),
    }


@pytest.mark.parametrize("module", ["engine.host", "hub.quantize_worker"])
def test_processes_of_our_own_start_without_llm(module: str) -> None:
    loaded = loaded_by(f"import llm_localrun.{module}")
    assert loaded & {"llm", "click", "pydantic", "httpx", "sqlite_utils"} == set()


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
