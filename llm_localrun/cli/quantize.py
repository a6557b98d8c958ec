"""Make a smaller file of a model.

TYPE is a quantization: Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, … The new file is made from the most
precise file of the model NAME, which is kept.

\b
Example:
  llm localrun quantize local-qwen Q4_K_M
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.progress import show_progress
from llm_localrun.cli.table import Row, say, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.errors import NotEnoughMemory, QuantizeFailed, UnknownModel
from llm_localrun.models import LocalModel, Served
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quality as precision
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.quantize import quality, tools
from llm_localrun.quantize.plan import QuantizePlan, check, target_for, tensors_of
from llm_localrun.quantize.recipes import bits_per_weight, share_too_narrow, shares
from llm_localrun.quantize.run import run
from llm_localrun.quantize.tools import GGML_PACKAGE, Quantizer
from llm_localrun.resolve import candidates, order_of
from llm_localrun.servers.base import open_with_stored_key, server_class
from llm_localrun.system.progress import Progress, working
from llm_localrun.wire.http import is_listening


@dataclass(frozen=True, slots=True)
class _QuantizeOptions:
    """The options of the command."""

    imatrix: Path | None
    requantize: bool
    replace: bool
    no_measure: bool
    yes: bool


@click.command(help=__doc__)
@click.argument("name")
@click.argument("type_", metavar="TYPE")
@click.option(
    "--imatrix",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Importance matrix of the model, made by llama-imatrix",
)
@click.option("--requantize", is_flag=True, help="Accept a file that is already quantized")
@click.option("--replace", is_flag=True, help="Replace the new file if it exists")
@click.option("--no-measure", is_flag=True, help="Do not measure the loss of quality")
@click.option("-y", "--yes", is_flag=True, help="Install a quantizer without asking, if needed")
def quantize(name: str, type_: str, **options: Any) -> None:
    snapshot = get_catalogue(CachePolicy.FRESH)
    model = _source(candidates(name, snapshot.models, order_of(read_config(), snapshot)))
    quantization = quantization_in(type_) or type_.upper()
    given = _QuantizeOptions(**options)
    if served := _route_through_server(model, quantization, given):
        made = _quantize_by_server(model, served, quantization, given)
    else:
        made = _quantize_file(model, quantization, given)
    if made is not None:
        _report(model, made, quantization, measure=not given.no_measure)


def _source(claimants: Sequence[LocalModel]) -> LocalModel:
    """The most precise file of the model: a name can mean several variants."""
    words = parse_name(claimants[0].name).words
    variants = [m for m in claimants if m.on_disk and parse_name(m.name).words == words]
    return max(variants, key=lambda m: precision(m.quantization), default=claimants[0])


def _route_through_server(
    model: LocalModel, quantization: str, options: _QuantizeOptions
) -> Served | None:
    """The route through a server that is to quantize the model: it keeps the model's template."""
    served = model.served
    if served is None or options.imatrix is not None:
        return None
    cls = server_class(served.endpoint.kind)
    if not cls.quantizes_to:
        return None
    is_possible = quantization in cls.quantizes_to and model.quantization in cls.quantizes_from
    is_chosen = model.on_disk is None or (is_possible and is_listening(served.endpoint.url))
    return served if is_chosen else None


def _quantize_file(
    model: LocalModel, quantization: str, options: _QuantizeOptions
) -> LocalModel | None:
    """The model in the new file; None if the file exists already. Raises a `LocalRunError`."""
    if model.on_disk is None:
        raise QuantizeFailed(
            f"The file of {model.id} is not known: its server does not say where it is",
            "Give the path of its GGUF file instead",
        )
    plan = QuantizePlan(
        source=Path(model.on_disk.path),
        target=target_for(model, quantization),
        projector=model.on_disk.projector,
        quantization=quantization,
        quantizer=tools.find_quantizer() or _install_quantizer(options.yes),
        importance=options.imatrix,
        threads=read_config().threads or os.cpu_count() or 1,
    )
    check(plan, requantize=options.requantize)
    if plan.target.exists() and not options.replace:
        _say_that_it_exists(str(plan.target))
        return None
    show_progress(run(plan), plan.target.stem)
    say(f"Wrote {plan.target} with {plan.quantizer.title}")
    if model.on_disk.manifest:
        say("The new file does not have the template and parameters that Ollama keeps.")
    path = str(plan.target)
    return _find(lambda m: m.on_disk is not None and m.on_disk.path == path, path)


def _quantize_by_server(
    model: LocalModel, served: Served, quantization: str, options: _QuantizeOptions
) -> LocalModel | None:
    """The new model of the server; None if it exists already. Raises a `LocalRunError`."""
    endpoint = served.endpoint
    server = open_with_stored_key(endpoint)
    name = server.pull_name(model.name, quantization)

    def is_there(other: LocalModel) -> bool:
        return other.name == name and other.served is not None and other.served.endpoint == endpoint

    if any(map(is_there, get_catalogue().models)) and not options.replace:
        _say_that_it_exists(name)
        return None
    show_progress(server.quantize(name, model.name, quantization), name)
    say(f"Created {name} in {server.title}")
    return _find(is_there, name)


def _find(is_it: Callable[[LocalModel], bool], what: str) -> LocalModel:
    """The new model `what` in the catalogue, which `is_it` recognizes. Raises `UnknownModel`."""
    for model in filter(is_it, get_catalogue(CachePolicy.REFRESH).models):
        return model
    raise UnknownModel(f"{what} was made, but is not listed", "Try `llm localrun refresh`")


def _install_quantizer(yes: bool) -> Quantizer:
    """Installs a quantizer, after asking the user unless `yes`. Raises `QuantizeFailed`."""
    problem = "No quantizer is installed"
    if not yes and not sys.stdin.isatty():
        raise QuantizeFailed(problem, f"Give --yes to install {GGML_PACKAGE} (2.5 MB)")
    if not yes and not click.confirm(f"{problem}. Install {GGML_PACKAGE} (2.5 MB)?"):
        raise QuantizeFailed(problem, "Install llama.cpp, which includes llama-quantize")
    return tools.install_quantizer()


def _say_that_it_exists(what: str) -> None:
    say(f"It exists already: {what}", "Give --replace to make it again.")


def _report(model: LocalModel, made: LocalModel, quantization: str, *, measure: bool) -> None:
    """Compares the new model with its source, as far as their files can be read."""
    rows = [_row("size", size_text(model.size), size_text(made.size))]
    if model.on_disk is None or made.on_disk is None:
        show_table(rows)
        return
    before, after = (tensors_of(Path(each.path)) for each in (model.on_disk, made.on_disk))
    rows += [
        _row("bits per weight", *(f"{bits_per_weight(each):.2f}" for each in (before, after))),
        _row("stored as", *(_stored(shares(each)) for each in (before, after))),
    ]
    problem = ""
    try:
        rows += _loss_rows(model, made) if measure else []
    except NotEnoughMemory as error:
        problem = f"The loss of quality was not measured: {error}"
    show_table(rows)
    if problem:
        say(problem, err=True)
    if narrow := share_too_narrow(quantization, before):
        say(
            f"{narrow:.0%} of the weights are in rows whose length is not a multiple of the block"
            f" size of {quantization}. Like llama.cpp, this gives them larger types."
        )


def _loss_rows(model: LocalModel, made: LocalModel) -> list[Row]:
    """The loss of quality, measured with both files; none for what the engine does not run.

    Raises a `LocalRunError`.
    """
    if not model.has_command:
        return []
    if model.purpose == "embedding":
        with working(Progress(f"measuring {made.name}")):
            vectors = quality.vector_loss(model, made)
        return [_row("cosine similarity", "", f"{vectors.mean:.4f}, at least {vectors.least:.4f}")]
    loss = show_progress(quality.text_loss(model, made), made.name)
    return [
        _row("perplexity", f"{loss.before:.2f}", f"{loss.after:.2f}"),
        _row("same most likely token", "", f"{loss.agreement:.1%} of {loss.tokens}"),
    ]


def _row(name: str, before: str, after: str) -> Row:
    return {"": name, "before": before, "after": after}


def _stored(by_type: dict[str, float]) -> str:
    """The types with at least 1% of the weights: the F32 of the norms is about 0.1%."""
    return ", ".join(f"{name} {share:.0%}" for name, share in by_type.items() if share >= 0.01)
