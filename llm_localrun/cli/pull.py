"""`pull`: gets a model."""

import os
from collections.abc import Iterable, Sequence

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.progress import shown
from llm_localrun.cli.table import show_json, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.memory import machine
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import name_models, short_name
from llm_localrun.pull.http_files import RESUME_ADVICE
from llm_localrun.pull.plan import PullPlan, find_same_content, plan_pull, plan_variant
from llm_localrun.pull.recommend import VariantFit, fitted_variants
from llm_localrun.pull.records import PullRecord
from llm_localrun.pull.refs import HubRef, parse_ref
from llm_localrun.pull.variants import Variant
from llm_localrun.resolve import order_of
from llm_localrun.system.paths import models_folder

_INTERRUPTED = {
    "huggingface": f"{RESUME_ADVICE}.",
    "url": f"{RESUME_ADVICE}.",
    "ollama": f"{RESUME_ADVICE}.",
    "lmstudio": "LM Studio goes on downloading it.",
    "starter": "Nothing of it was kept.",
}


@click.command(short_help="Get a model")
@click.argument("ref")
@click.option("-q", "--quantization", help="Get this variant of a repository: Q4_K_M, Q8_0")
@click.option("--quiet", is_flag=True, help="Show neither the choice nor how far it is")
@click.option("json_", "--json", is_flag=True, help="Output JSON when it is there")
def pull(ref: str, quantization: str | None, quiet: bool, json_: bool) -> None:
    """Get the model REF.

    \b
    starter                     a small one (98 MB) to begin with
    OWNER/REPO[:QUANT]          from the Hugging Face hub, in the variant that fits
    hf:OWNER/REPO/FILE.gguf     one file from there
    https://HOST/FILE.gguf      from anywhere; #sha256=... says what it has to be
    ollama:NAME[:TAG]           by Ollama, which has to be running
    lmstudio:OWNER/NAME         by LM Studio, out of its catalogue
    lmstudio:hf:OWNER/REPO[:QUANT]   by LM Studio, from the Hugging Face hub
    """
    plan = _plan(ref, quantization, quiet=quiet)
    there = find_same_content(plan, get_catalogue().models)
    if there is not None:
        _tell(there, there.path or "", plan.record, json_)
        return
    try:
        record = shown(plan.fetch(), plan.title, quiet=quiet)
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED[plan.record.source], err=True)
        raise
    model = model_of(record, get_catalogue(CachePolicy.REFRESH).models)
    path = str(models_folder() / record.files[0].path) if record.files else ""
    _tell(model, path, record, json_)


def _plan(ref: str, quantization: str | None, *, quiet: bool) -> PullPlan:
    """What to do for `ref`; says which variant that takes if it had to be chosen."""
    meant = parse_ref(ref, quantization)
    if not isinstance(meant, HubRef):
        return plan_pull(meant)
    fitted = fitted_variants(meant, machine.physical_memory())
    variant = fitted.choose(read_config().quantization)
    if not quiet and fitted.variants:
        show_table(fit_rows(fitted.variants, variant), err=True)
    return plan_variant(meant, fitted.repository, variant)


def fit_rows(found: Iterable[VariantFit], chosen: Variant | None = None) -> list[dict[str, str]]:
    """Rows of a table: the variants of a repository, and how each fits this machine."""
    return [
        {
            "quantization": each.variant.quantization or each.variant.path,
            "size": size_text(each.variant.size),
            "fits": "yes" if each.fit.fits else "no",
            "up to": f"{each.fit.context_size:,}" if each.fit.context_size else "",
            "": "this one" if each.variant == chosen else "",
        }
        for each in sorted(found, key=lambda each: each.variant.size)
    ]


def model_of(record: PullRecord, models: Sequence[LocalModel]) -> LocalModel | None:
    """The model that `record` has brought; None if it is not listed, as projectors are not."""
    if record.files:
        path = os.path.realpath(models_folder() / record.files[0].path)
        return next((m for m in models if m.path and os.path.realpath(m.path) == path), None)
    kind, _, name = record.ref.partition(":")
    names = (name, f"{name}:latest")
    served = (m for m in models if m.endpoint is not None and m.endpoint.kind == kind)
    return next((model for model in served if model.name in names), None)


def _tell(model: LocalModel | None, path: str, record: PullRecord, json_: bool) -> None:
    """What has come, and how to try it."""
    name = _name_of(model) if model else ""
    if json_:
        facts = record.model_dump(exclude={"pulled_at"})
        show_json({"id": model and model.id, "name": name, "path": path, **facts})
        return
    click.echo(f"Ready: {path or (model and model.id) or record.ref}")
    if model is not None and model.purpose == "embedding":
        click.echo(f"Try it: llm embed -m {name} -c 'Primary colours'")
    elif model is not None:
        click.echo(f"Try it: llm -m {name} 'Name the primary colours'")


def _name_of(model: LocalModel) -> str:
    """What to type for `model`."""
    order = order_of(read_config())
    return short_name(model, name_models(get_catalogue().models, order, model.purpose))
