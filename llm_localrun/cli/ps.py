"""List the models that the engine holds in memory.

\b
Example:
  llm localrun ps
"""

import time
from pathlib import Path
from typing import Any

import click

from llm_localrun.cli.table import json_option, pick, seconds_text, show, size_text, tokens_text
from llm_localrun.engine.evict import resident
from llm_localrun.engine.failed_builds import gpu_problem
from llm_localrun.engine.state import EnginePaths, EngineState, list_running, read_lease
from llm_localrun.system.paths import builds_folder, engine_folder

_SETTINGS = (
    "context_size threads gpu_layers kv_cache_type flash_attention embedding projector lora"
    " draft_model rpc"
)
"""The settings of an engine that `--json` shows."""
_NONE = "No model is in the engine's memory."


@click.command(help=__doc__)
@json_option
def ps(as_json: bool) -> None:
    engines = [_facts(engine) for engine in list_running(engine_folder())]
    show(
        as_json, engines, map(_row, engines), optional=["build", "GPU", "pid", "up"], if_empty=_NONE
    )


def _facts(engine: EngineState) -> dict[str, Any]:
    until = read_lease(EnginePaths(engine_folder(), engine.id))
    left = None if until is None else max(0.0, until - time.time())
    return {
        "name": engine.spec.name,
        "path": engine.spec.path,
        "pid": engine.pid,
        "memory": resident(engine.server_pid),
        **pick(engine.spec.settings, _SETTINGS),
        "build": engine.build,
        "build_path": engine.build_path,
        "layers": engine.layers or None,
        "layers_on_gpu": engine.offloaded if engine.layers else None,
        "gpu_problem": gpu_problem(engine),
        "started_at": engine.started_at,
        "seconds_left": None if left == float("inf") else left,
    }


def _row(facts: dict[str, Any]) -> dict[str, str]:
    left = facts["seconds_left"]
    return {
        "name": facts["name"],
        "memory": size_text(facts["memory"]),
        "context": tokens_text(facts["context_size"]),
        "unloads in": "never" if left is None else seconds_text(left),
        "up": seconds_text(time.time() - facts["started_at"]),
        "pid": str(facts["pid"]),
        "build": _short(facts["build"], Path(facts["build_path"] or "")),
        "GPU": _gpu_text(facts),
    }


def _gpu_text(facts: dict[str, Any]) -> str:
    if facts["layers"] is None:
        return str(facts["gpu_problem"])
    return f"{facts['layers_on_gpu']} of {facts['layers']} layers"


def _short(title: str, path: Path) -> str:
    """The name of an installed build, which is the folder that it is in; else its title."""
    folder = builds_folder()
    return path.relative_to(folder).parts[0] if path.is_relative_to(folder) else title
