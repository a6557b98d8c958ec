"""`quantize`: makes a smaller file of a model, and says what that has cost."""

import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeVar

import click

from llm_localrun.catalogue import LocalModel
from llm_localrun.commands.tables import show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.discovery import catalogue
from llm_localrun.errors import QuantizeFailed, UnknownModel
from llm_localrun.gguf.names import quality as quality_of
from llm_localrun.gguf.names import quantization_in
from llm_localrun.gguf.recipes import bits_per_weight, share_too_narrow, shares
from llm_localrun.hub import quality, quantizers
from llm_localrun.hub.quality import TextLoss, VectorLoss
from llm_localrun.hub.quantize import Plan, check, run, target_for, tensors_of
from llm_localrun.hub.quantizers import GGML_PACKAGE, Quantizer
from llm_localrun.kinds import kind_of
from llm_localrun.model_names import parse_name
from llm_localrun.resolve import candidates, order_of

_Result = TypeVar("_Result")


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
def quantize(  # noqa: PLR0913, PLR0917  # one for each of click's
    name: str,
    type_: str,
    imatrix: Path | None,
    requantize: bool,
    replace: bool,
    no_measure: bool,
    yes: bool,
) -> None:
    """Make a file of the model NAME in the quantization TYPE: Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, …

    It is made of the most precise file of the model there is, which stays as it is.
    """
    config = read_config()
    model = _source(candidates(name, catalogue().models, order_of(config)))
    if model.path is None:
        raise _no_file(model)
    quantization = quantization_in(type_) or type_.upper()
    plan = Plan(
        source=Path(model.path),
        target=target_for(model, quantization),
        projector=model.projector,
        quantization=quantization,
        quantizer=quantizers.find() or _installed(yes),
        importance=imatrix,
        threads=config.threads or os.cpu_count() or 1,
    )
    check(plan, requantize=requantize)
    if plan.target.exists() and not replace:
        click.echo(f"It is there already: {plan.target}\nMake it anew with --replace.")
        return
    _follow(f"Quantizing ({plan.quantizer.title})", run(plan))
    made = _in_catalogue(plan.target)
    click.echo(f"Put into {plan.target}")
    loss = None if no_measure else _measured(model, made)
    _report(plan, model, made, loss)


def _source(claimants: Sequence[LocalModel]) -> LocalModel:
    """The most precise file of the model that is meant: a name may fit several of its variants."""
    words = parse_name(claimants[0].name).words
    variants = [m for m in claimants if m.path and parse_name(m.name).words == words]
    return max(variants, key=lambda m: quality_of(m.quantization), default=claimants[0])


def _no_file(model: LocalModel) -> QuantizeFailed:
    assert model.endpoint is not None
    return QuantizeFailed(
        f"{model.id} is served by {kind_of(model.endpoint.kind).title}, and its file is not known",
        "Give the path of its GGUF file instead",
    )


def _installed(yes: bool) -> Quantizer:
    """Gets something that quantizes, if the user likes. Raises `QuantizeFailed`."""
    question = f"Nothing here can quantize. Install {GGML_PACKAGE} (2.5 MB) for it"
    if not yes and not sys.stdin.isatty():
        raise QuantizeFailed(question.partition(".")[0], "Let it be installed with --yes")
    if not yes and not click.confirm(f"{question}?"):
        raise QuantizeFailed(
            question.partition(".")[0], "Install llama.cpp, which brings llama-quantize"
        )
    return quantizers.install()


def _follow(label: str, steps: Generator[tuple[int, int], None, _Result]) -> _Result:
    """Shows how far `steps` are; what they come to."""
    with click.progressbar(length=1, label=label, show_pos=False) as bar:
        while True:
            try:
                done, bar.length = next(steps)
            except StopIteration as end:
                bar.update((bar.length or 0) - bar.pos)
                result: _Result = end.value
                return result
            bar.update(done - bar.pos)


def _in_catalogue(path: Path) -> LocalModel:
    for model in catalogue("now").models:
        if model.path == str(path):
            return model
    raise UnknownModel(f"{path} was made, and is not found", "Try `llm localrun refresh`")


def _measured(model: LocalModel, made: LocalModel) -> TextLoss | VectorLoss:
    before, after = (each.model_copy(update={"endpoint": None}) for each in (model, made))
    if model.purpose == "embedding":
        return quality.vector_loss(before, after)
    return _follow("Measuring", quality.text_loss(before, after))


def _report(
    plan: Plan, model: LocalModel, made: LocalModel, loss: TextLoss | VectorLoss | None
) -> None:
    before, after = tensors_of(plan.source), tensors_of(plan.target)
    rows = [
        _row("size", size_text(model.size), size_text(made.size)),
        _row("bits per weight", *(f"{bits_per_weight(each):.2f}" for each in (before, after))),
        _row("stored as", *(_stored(shares(each)) for each in (before, after))),
    ]
    if isinstance(loss, TextLoss):
        rows += [
            _row("perplexity", f"{loss.before:.2f}", f"{loss.after:.2f}"),
            _row("same likeliest token", "", f"{loss.agreement:.1%} of {loss.tokens}"),
        ]
    if isinstance(loss, VectorLoss):
        rows += [_row("cosine of vectors", "", f"{loss.mean:.4f}, at least {loss.least:.4f}")]
    show_table(rows)
    if narrow := share_too_narrow(plan.quantization, before):
        click.echo(
            f"{narrow:.0%} of its weights stand in rows whose length the blocks of"
            f" {plan.quantization} do not divide: they have larger types, as llama.cpp does it."
        )


def _row(name: str, before: str, after: str) -> dict[str, str]:
    return {"": name, "before": before, "after": after}


def _stored(by_type: dict[str, float]) -> str:
    """The types that matter: F32 of the norms is a thousandth of most models."""
    return ", ".join(f"{name} {share:.0%}" for name, share in by_type.items() if share >= 0.01)
