"""Show everything that is known about a model.

\b
Example:
  llm localrun show local
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.chat.modelfile import request_defaults
from llm_localrun.chat.sampling import Origin, Setting, valid_options
from llm_localrun.cli.endpoints import STATUS, server_title
from llm_localrun.cli.facts import abilities, model_facts, names_of
from llm_localrun.cli.table import (
    count_text,
    json_option,
    say,
    show_card,
    show_json,
    size_text,
    tokens_text,
)
from llm_localrun.config import Config, read_config
from llm_localrun.engine.failed_builds import gpu_problem
from llm_localrun.engine.state import list_running
from llm_localrun.errors import BadModelFile
from llm_localrun.files.failed_loads import FailedLoads
from llm_localrun.files.modelfile import template_of
from llm_localrun.gguf.files import opened
from llm_localrun.gguf.header import read_summary
from llm_localrun.memory import machine
from llm_localrun.memory.fit import default_setting, fit_of_model, footprint_of
from llm_localrun.models import SAMPLING, LocalModel, OnDisk, RunsOn, Snapshot
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import parameters_of, siblings
from llm_localrun.privacy import WHERE, requires_consent
from llm_localrun.resolve import NO_COMMAND, WHAT_IT_IS, candidates, order_of
from llm_localrun.system.paths import engine_folder

_CONTEXTS = (4096, 32768)
"""Tokens of context for which the card shows the memory needed, besides the maximum."""

_ORIGINS = {
    Origin.OPTIONS: "llm models options",
    Origin.MANIFEST: "Ollama's manifest",
    Origin.FILE: "the file",
    Origin.LISTED: "the recommended list",
    Origin.ENGINE: "llama.cpp's defaults",
    Origin.SERVER: "its server",
}


@click.command(help=__doc__)
@click.argument("name")
@click.option("--template", is_flag=True, help="Output its chat template")
@json_option
def show(name: str, template: bool, as_json: bool) -> None:
    config = read_config()
    snapshot = get_catalogue(CachePolicy.FRESH)
    order = order_of(config, snapshot)
    model = candidates(name, snapshot.models, order)[0]
    if template:
        _output(_known_template(model))
        return
    names = names_of(snapshot.models, order)
    known = model_facts(model, names, order)
    others = siblings(model, snapshot.models)
    if as_json:
        shown_others = [model_facts(other, names, order) for other in others]
        show_json({**known, **_more_facts(model), "others": shown_others})
    else:
        routes = _routes(model, snapshot, config)
        show_card(_lines(model, known, routes, others))


def _output(template: str) -> None:
    """Prints the template: to a file as it is, to a terminal with escapes."""
    if sys.stdout.isatty():
        say(*template.split("\n"))
    else:
        click.echo(template)


def _template_of(model: LocalModel) -> str | None:
    """The chat template; "" if the model has none, None if there is no file that can be read."""
    try:
        return template_of(model.on_disk) if model.on_disk else None
    except BadModelFile:
        return None


def _known_template(model: LocalModel) -> str:
    """The chat template of the model. Raises `BadModelFile` if it is not known."""
    if template := _template_of(model):
        return template
    raise BadModelFile(
        f"The chat template of {model.id} is not known",
        "Its file has none" if model.on_disk else "Its server does not say",
    )


def _memory_by_context(model: LocalModel) -> dict[int, int]:
    """Bytes of memory needed, by tokens of context; empty if the geometry is unknown."""
    footprint, largest = footprint_of(model), model.context_max
    if footprint is None or footprint.geometry is None:
        return {}
    sizes = {min(size, largest) if largest else size for size in (*_CONTEXTS, largest) if size}
    setting = default_setting(model.context_max, model.purpose)
    return {
        size: footprint.need(replace(setting, context_size=size)).total for size in sorted(sizes)
    }


def _more_facts(model: LocalModel) -> dict[str, Any]:
    """What `--json` shows of a model besides `model_facts`. Sizes are bytes, contexts tokens."""
    memory = machine.physical_memory()
    return {
        "template": _template_of(model),
        "memory_by_context": _memory_by_context(model),
        "memory": memory,
        "largest_context": fit_of_model(model, memory).context_size,
        "sampling": {
            name: {"value": each.value, "origin": each.origin}
            for name, each in _sampling(model).items()
        },
    }


def _lines(
    model: LocalModel, known: Mapping[str, Any], routes: list[str], others: Sequence[LocalModel]
) -> list[tuple[str, list[str]]]:
    """The labels of the card, and the lines next to each. `known` are the facts of `model`."""
    file, template = model.on_disk, _template_of(model)
    return [
        ("name", [known["short_name"]]),
        ("id", [model.id]),
        ("also called", [alias for alias in known["aliases"] if alias != known["short_name"]]),
        ("model", _one_line(_makeup(model))),
        ("size", _one_line([size_text(model.size), model.quantization])),
        ("can", _one_line(abilities(model))),
        ("note", _remarks(model)),
        ("-o think", _one_line(model.think_levels or ())),
        ("context", _one_line(_context(model))),
        ("sampling", _sampling_lines(model)),
        ("runs", routes),
        ("file", [file.path] if file else []),
        ("projector", [file.projector] if file else []),
        ("template", [f"{len(template):,} characters; --template outputs it"] if template else []),
        ("memory", _memory(model)),
        ("GPU", _split(model)),
        ("also here", [_other(each) for each in others]),
    ]


def _remarks(model: LocalModel) -> list[str]:
    variant = f"another variant of {model.variant_of}, which its server lists under the same name"
    no_command = f"{WHAT_IT_IS[model.purpose]}: {NO_COMMAND}"
    return [*([variant] if model.variant_of else []), *([] if model.has_command else [no_command])]


def _one_line(parts: Sequence[str]) -> list[str]:
    return [", ".join(part for part in parts if part)]


def _makeup(model: LocalModel) -> list[str]:
    """The architecture, the number of weights, and what the header of the file says."""
    weights = count_text(parameters_of(model))
    parts = [model.architecture, weights and f"{weights} parameters"]
    return [*parts, *(_header_parts(model.on_disk) if model.on_disk else ())]


def _header_parts(on_disk: OnDisk) -> list[str]:
    """The numbers of layers and of experts; [] if the file cannot be read."""
    try:
        with opened(Path(on_disk.path)) as file:
            header = read_summary(file)
    except BadModelFile:
        return []
    kinds = (("block_count", "layers"), ("expert_count", "experts"))
    numbers = ((header.of_architecture(key), what) for key, what in kinds)
    return [f"{number} {what}" for number, what in numbers if number]


def _context(model: LocalModel) -> list[str]:
    loaded, trained = model.context_loaded, model.context_max
    default = None if loaded else model.context_default
    return [
        f"{loaded:,} tokens loaded" if loaded else "",
        f"{default:,} tokens by default" if default else "",
        f"trained for {trained:,} tokens" if trained else "",
    ]


def _sampling(model: LocalModel) -> dict[str, Setting]:
    """How the model samples without -o, as far as that is known, by option."""
    if model.purpose != "chat" or model.problem:
        return {}
    from llm.cli import get_model_options

    chosen = valid_options(get_model_options(model.id))
    found = {name: Setting(value, Origin.SERVER) for name, value in model.sampling}
    if model.on_disk and not model.served:
        found = request_defaults(model, model.on_disk).sampling.in_force(chosen)
    options = (name for name in (*SAMPLING, "seed") if name in chosen)
    return found | {name: Setting(chosen[name], Origin.OPTIONS) for name in options}


def _sampling_lines(model: LocalModel) -> list[str]:
    """A line for each origin, the one that wins first."""
    found = _sampling(model)
    by_origin: dict[Origin, list[str]] = {}
    for name, each in found.items():
        value = f"{each.value:g}" if isinstance(each.value, float) else each.value
        by_origin.setdefault(each.origin, []).append(f"{name} {value}")
    lines = [
        f"{', '.join(by_origin[origin])} ({who})"
        for origin, who in _ORIGINS.items()
        if origin in by_origin
    ]
    is_left_open = model.served and model.purpose == "chat" and not found.keys() >= {*SAMPLING}
    return [*lines, *(["its server decides" + " the rest" * bool(lines)] if is_left_open else [])]


def _routes(model: LocalModel, snapshot: Snapshot, config: Config) -> list[str]:
    """The routes of the model in words, the preferred one first."""
    lines = []
    if model.served is not None:
        endpoint = model.served.endpoint
        report = next(r for r in snapshot.endpoints if r.endpoint == endpoint)
        loaded = ", loaded" if model.loaded else ""
        title = server_title(report)
        lines.append(f"on {title} at {endpoint.address} ({STATUS[report.status]}{loaded})")
        lines += _remote(model, config)
    if model.on_disk is not None:
        lines.append("from its file" + (", if the server does not answer" if model.served else ""))
        lines += filter(None, [FailedLoads().problem_of(model.on_disk)])
    return lines


def _remote(model: LocalModel, config: Config) -> list[str]:
    """Where the server runs the model, if that is not this machine."""
    if model.runs_on == RunsOn.THIS_MACHINE:
        return []
    where = WHERE[model.runs_on]
    line = f"{where}: {model.remote_host}" if model.remote_host else where
    if not requires_consent(model):
        return [line]
    if model.id in config.allow:
        return [line, "you have allowed it"]
    return [line, f"refused until you `llm localrun allow {shlex.quote(model.id)}`"]


def _memory(model: LocalModel) -> list[str]:
    """The memory needed at some sizes of context, and whether this machine has it."""
    memory = machine.physical_memory()
    if memory is None or footprint_of(model) is None:
        return []
    fit = fit_of_model(model, memory)
    lines = [
        f"{size_text(need)} with {tokens_text(size)} of context"
        + ("" if fit.fits_with(size) else ": does not fit")
        for size, need in _memory_by_context(model).items()
    ]
    verdict = f"{'fits into' if fit.fits else 'is too large for'} the {size_text(memory)} of"
    limit = f" with up to {fit.context_size:,} tokens of context" if fit.context_size else ""
    return [*lines, f"{verdict} this machine{limit}"]


def _split(model: LocalModel) -> list[str]:
    """How llama.cpp has split the model between GPU and CPU, if it runs and may use a GPU, or why
    it must not.

    llama.cpp decides that when it loads the model, by the memory that is free then.
    """
    path = model.on_disk.path if model.on_disk else ""
    engines = [each for each in list_running(engine_folder()) if each.spec.path == path]
    problems = (f"not used now: {problem}" for problem in map(gpu_problem, engines) if problem)
    return [
        *(
            f"holds {each.offloaded} of {each.layers} layers now"
            + ("" if each.offloaded == each.layers else "; the CPU computes the others")
            for each in engines
            if each.layers
        ),
        *problems,
    ]


def _other(model: LocalModel) -> str:
    return "  ".join([model.id, *_one_line([model.quantization, size_text(model.size)])])
