"""`quantize`: makes a smaller file of a model, and says what that has cost."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.progress import shown
from llm_localrun.cli.table import Row, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.errors import NotEnoughMemory, QuantizeFailed, UnknownModel
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.parse import parse_name
from llm_localrun.names.quantizations import quality as precision
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.quantize import quality, tools
from llm_localrun.quantize.plan import Plan, check, target_for, tensors_of
from llm_localrun.quantize.recipes import bits_per_weight, share_too_narrow, shares
from llm_localrun.quantize.run import run
from llm_localrun.quantize.tools import GGML_PACKAGE, Quantizer
from llm_localrun.resolve import candidates, order_of
from llm_localrun.servers import ollama_admin
from llm_localrun.servers.admin import server_at
from llm_localrun.servers.kinds import kind_of
from llm_localrun.wire.http import is_listening


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The options of the command."""

    imatrix: Path | None
    requantize: bool
    replace: bool
    no_measure: bool
    yes: bool


@click.command(short_help="Make a smaller file of a model")
@click.argument("name")
@click.argument("type_", metavar="TYPE")
@click.option(
    "--imatrix",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Importance matrix of the model, made by llama-imatrix: says which weights matter",
)
@click.option("--requantize", is_flag=True, help="Take a source that is quantized already")
@click.option("--replace", is_flag=True, help="Make it anew if it is there already")
@click.option("--no-measure", is_flag=True, help="Do not measure what it has cost in quality")
@click.option("-y", "--yes", is_flag=True, help="Install what quantizes, if need be, unasked")
def quantize(name: str, type_: str, **wishes: Any) -> None:
    """Make a file of the model NAME in the quantization TYPE: Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, …

    It is made of the most precise file of the model there is, which stays as it is.
    """
    model = _source(candidates(name, get_catalogue().models, order_of(read_config())))
    quantization = quantization_in(type_) or type_.upper()
    wish = _Wishes(**wishes)
    if _is_for_ollama(model, quantization, wish):
        made = _made_by_ollama(model, quantization, wish)
    else:
        made = _made_here(model, quantization, wish)
    if made is not None:
        _report(model, made, quantization, measures=not wish.no_measure)


def _source(claimants: Sequence[LocalModel]) -> LocalModel:
    """The most precise file of the model that is meant: a name may fit several of its variants."""
    words = parse_name(claimants[0].name).words
    variants = [m for m in claimants if m.path and parse_name(m.name).words == words]
    return max(variants, key=lambda m: precision(m.quantization), default=claimants[0])


def _is_for_ollama(model: LocalModel, quantization: str, wish: _Wishes) -> bool:
    """Whether Ollama is to do it: a model of its own then keeps the template that it has there."""
    if model.endpoint is None or model.endpoint.kind != "ollama" or wish.imatrix is not None:
        return False
    can = quantization in ollama_admin.MAKES and model.quantization in ollama_admin.TAKES
    return model.path is None or (can and is_listening(model.endpoint.url))


def _made_here(model: LocalModel, quantization: str, wish: _Wishes) -> LocalModel | None:
    """The file that comes of it; None if there is one already. Raises a `LocalRunError`."""
    if model.path is None:
        raise _no_file(model)
    plan = Plan(
        source=Path(model.path),
        target=target_for(model, quantization),
        projector=model.projector,
        quantization=quantization,
        quantizer=tools.find() or _installed(wish.yes),
        importance=wish.imatrix,
        threads=read_config().threads or os.cpu_count() or 1,
    )
    check(plan, requantize=wish.requantize)
    if plan.target.exists() and not wish.replace:
        _say_that_it_is_there(str(plan.target))
        return None
    shown(run(plan), plan.target.stem)
    click.echo(f"Put into {plan.target}, by {plan.quantizer.title}")
    if model.manifest:
        click.echo("The template and the parameters that Ollama has for it stay there.")
    return _found(
        get_catalogue(CachePolicy.REFRESH).models, lambda m: m.path == str(plan.target), plan.target
    )


def _no_file(model: LocalModel) -> QuantizeFailed:
    assert model.endpoint is not None
    title = kind_of(model.endpoint.kind).title
    return QuantizeFailed(
        f"{model.id} is served by {title}, and its file is not known",
        "Give the path of its GGUF file instead",
    )


def _made_by_ollama(model: LocalModel, quantization: str, wish: _Wishes) -> LocalModel | None:
    """The tag that comes of it; None if there is one already. Raises a `LocalRunError`."""
    assert model.endpoint is not None
    name = ollama_admin.tag_for(model.name, quantization)
    served = [m.name for m in get_catalogue().models if m.endpoint == model.endpoint]
    if name in served and not wish.replace:
        _say_that_it_is_there(name)
        return None
    shown(ollama_admin.quantize(name, model.name, quantization, server_at(model.endpoint)), name)
    click.echo(f"Put into Ollama as {name}")
    return _found(
        get_catalogue(CachePolicy.REFRESH).models,
        lambda m: (m.endpoint, m.name) == (model.endpoint, name),
        name,
    )


def _found(
    models: Iterable[LocalModel], is_it: Callable[[LocalModel], bool], what: object
) -> LocalModel:
    for model in filter(is_it, models):
        return model
    raise UnknownModel(f"{what} was made, and is not found", "Try `llm localrun refresh`")


def _installed(yes: bool) -> Quantizer:
    """Gets something that quantizes, if the user likes. Raises `QuantizeFailed`."""
    problem = "Nothing here can quantize"
    if not yes and not sys.stdin.isatty():
        raise QuantizeFailed(problem, f"Let {GGML_PACKAGE} (2.5 MB) be installed with --yes")
    if not yes and not click.confirm(f"Nothing here can quantize. Install {GGML_PACKAGE} (2.5 MB)"):
        raise QuantizeFailed(problem, "Install llama.cpp, which brings llama-quantize")
    return tools.install()


def _say_that_it_is_there(what: str) -> None:
    click.echo(f"It is there already: {what}\nMake it anew with --replace.")


# What has come of it.


def _report(model: LocalModel, made: LocalModel, quantization: str, *, measures: bool) -> None:
    """Says what was saved and, as far as the files can be read, what it has cost."""
    rows = [_row("size", size_text(model.size), size_text(made.size))]
    if model.path is None or made.path is None:
        show_table(rows)
        return
    before, after = tensors_of(Path(model.path)), tensors_of(Path(made.path))
    rows += [
        _row("bits per weight", *(f"{bits_per_weight(each):.2f}" for each in (before, after))),
        _row("stored as", *(_stored(shares(each)) for each in (before, after))),
    ]
    problem = ""
    try:
        rows += _loss_rows(model, made) if measures else []
    except NotEnoughMemory as error:
        problem = f"The loss of quality was not measured: {error}"
    show_table(rows)
    if problem:
        click.echo(problem, err=True)
    if narrow := share_too_narrow(quantization, before):
        click.echo(
            f"{narrow:.0%} of its weights stand in rows whose length the blocks of"
            f" {quantization} do not divide: they have larger types, as llama.cpp does it."
        )


def _loss_rows(model: LocalModel, made: LocalModel) -> list[Row]:
    """What it has cost, measured on the files themselves. Raises a `LocalRunError`."""
    before, after = (each.model_copy(update={"routes": (each.on_disk,)}) for each in (model, made))
    if model.purpose == "embedding":
        vectors = quality.vector_loss(before, after)
        return [_row("cosine of vectors", "", f"{vectors.mean:.4f}, at least {vectors.least:.4f}")]
    loss = shown(quality.text_loss(before, after), made.name)
    return [
        _row("perplexity", f"{loss.before:.2f}", f"{loss.after:.2f}"),
        _row("same likeliest token", "", f"{loss.agreement:.1%} of {loss.tokens}"),
    ]


def _row(name: str, before: str, after: str) -> Row:
    return {"": name, "before": before, "after": after}


def _stored(by_type: dict[str, float]) -> str:
    """The types that matter: F32 of the norms is a thousandth of most models."""
    return ", ".join(f"{name} {share:.0%}" for name, share in by_type.items() if share >= 0.01)
