"""Download a model.

Without REF, lists what is recommended for this machine; on a terminal, asks
for the number of one. Words that are no REF are searched for.

\b
REF is one of:
  NAME                            a model that `llm localrun recommend` lists
  starter                         a small model to begin with, the best that
                                  can be had (0.1 to 1.3 GB)
  OWNER/REPO[:QUANT]              a repository of the Hugging Face hub, in the
                                  quantization that fits this machine
  hf:OWNER/REPO/FILE.gguf         one file of a repository
  https://HOST/FILE.gguf          a file; #sha256=... is checked, if given
  ollama:NAME[:TAG]               a model that Ollama downloads
  lmstudio:OWNER/NAME             a model of LM Studio's catalog
  lmstudio:hf:OWNER/REPO[:QUANT]  a repository that LM Studio downloads

\b
Example:
  llm localrun pull starter
"""

from collections.abc import Iterable, Sequence
from typing import Any

import click

from llm_localrun.catalogue import get_catalogue
from llm_localrun.cli.choice import advise_starter, choose_match, choose_recommended
from llm_localrun.cli.progress import quiet_option, show_progress
from llm_localrun.cli.table import json_option, pick, say, show_json, show_table, size_text
from llm_localrun.config import read_config
from llm_localrun.engine.memory_check import memory_for_a_new_model
from llm_localrun.engine.readiness import find_obstacle
from llm_localrun.errors import PullFailed
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.names.aliases import name_models, short_name
from llm_localrun.pull.fitting import VariantFit, fitted_variants
from llm_localrun.pull.http_files import RESUME_ADVICE
from llm_localrun.pull.plan import (
    PullPlan,
    find_same_content,
    plan_pull,
    plan_variant,
    recommended_at,
)
from llm_localrun.pull.records import PullRecord
from llm_localrun.pull.refs import STARTER, HubRef, parse_quantization, parse_ref, search_words
from llm_localrun.pull.remove import records_of
from llm_localrun.pull.variants import Variant
from llm_localrun.pull.wheels import NotOnIndex
from llm_localrun.resolve import NO_COMMAND, WHAT_IT_IS, order_of
from llm_localrun.servers.base import server_class
from llm_localrun.system.program import quoted
from llm_localrun.system.progress import Progress, working

_INTERRUPTED = {
    "huggingface": f"{RESUME_ADVICE}.",
    "url": f"{RESUME_ADVICE}.",
    "starter": "Parts that are complete are kept: run the same command again.",
}
"""What happens to an unfinished download, by `PullRecord.source`; servers have their own text."""


@click.command(help=__doc__)
@click.argument("words", nargs=-1, metavar="[REF or WORDS]")
@click.option("--tiny", is_flag=True, help="With `starter`: the smallest one")
@click.option("--embed", is_flag=True, help="With `starter`: one that embeds texts")
@click.option("-q", "--quantization", help="Quantization to download: Q4_K_M, Q8_0")
@quiet_option("Show neither the available quantizations nor progress")
@json_option
def pull(
    words: tuple[str, ...],
    quantization: str | None,
    quiet: bool,
    as_json: bool,
    **kinds: bool,
) -> None:
    ref = _ref(words, [kind for kind, is_given in kinds.items() if is_given])
    wanted = parse_quantization(quantization) if quantization else ""
    given = f" -q {wanted}" if wanted else ""
    if not ref:
        ref = choose_recommended(given, as_json=as_json)
    elif query := search_words(ref):
        ref = choose_match(query, wanted, given, as_json=as_json)
    with working(Progress(f"looking for {ref}")):
        plan = _plan(ref, quantization, quiet=quiet)
    present = find_same_content(plan, get_catalogue().models)
    if present is not None:
        path = present.on_disk.path if present.on_disk else ""
        _report(present, path, plan.record, as_json)
        return
    record = _fetch(plan, quiet=quiet)
    models = get_catalogue(CachePolicy.REFRESH).models
    # A projector is not listed as a model.
    model = next((each for each in models if records_of(each, [record])), None)
    path = next(map(str, record.paths), "")
    _report(model, path, record, as_json)


def _fetch(plan: PullPlan, *, quiet: bool) -> PullRecord:
    """Carries out `plan`, or the one to fall back on. Shows their notes, unless `quiet`."""
    for note in () if quiet else plan.notes:
        say(f"{note}.", err=True)
    try:
        return show_progress(plan.fetch(), plan.title)
    except KeyboardInterrupt:
        source = plan.record.source
        say(_INTERRUPTED.get(source) or server_class(source).interrupted_pull, err=True)
        raise
    except NotOnIndex as error:
        if plan.fallback is None:
            raise
        say(f"{error.problem}. The next smaller starter model is taken instead.", err=True)
    return _fetch(plan.fallback(), quiet=quiet)


def _ref(words: tuple[str, ...], kinds: Sequence[str]) -> str:
    """The REF that the arguments mean: "starter:tiny" for `starter --tiny`."""
    text = " ".join(words).strip()
    if not kinds:
        return text
    kind, *others = kinds
    if text not in ("", STARTER):
        raise click.UsageError(f"--{kind} applies to `llm localrun pull {STARTER}` only.")
    if others:
        raise click.UsageError("--tiny and --embed exclude each other; give one.")
    return f"{STARTER}:{kind}"


def _plan(ref: str, quantization: str | None, *, quiet: bool) -> PullPlan:
    """The plan for `ref`. Shows the variants of a repository, unless `quiet`."""
    parsed = parse_ref(ref, quantization)
    if not isinstance(parsed, HubRef):
        return plan_pull(parsed)
    if recommended_at(parsed):
        return _plan_recommended(parsed)
    fitted = fitted_variants(parsed, memory_for_a_new_model())
    variant = fitted.choose(read_config().quantization)
    if not quiet and fitted.variants:
        show_table(_fit_rows(fitted.variants, variant), err=True)
    return plan_variant(parsed, fitted.repository, variant)


def _plan_recommended(ref: HubRef) -> PullPlan:
    try:
        return plan_pull(ref)
    except PullFailed as error:
        # Others name a command already, and concern the model rather than its hub.
        if "`" not in error.remedy:
            advise_starter(error)
        raise


def _fit_rows(found: Iterable[VariantFit], chosen: Variant | None) -> list[dict[str, str]]:
    """Rows of a table: the variants of a repository, and whether each fits this machine."""
    return [
        {
            "quantization": each.variant.quantization or each.variant.path,
            "size": size_text(each.variant.size),
            "fits": "yes" if each.fit.fits else "no",
            "max context": f"{each.fit.context_size:,}" if each.fit.context_size else "",
            "": "chosen" if each.variant == chosen else "",
        }
        for each in sorted(found, key=lambda each: each.variant.size)
    ]


def _report(model: LocalModel | None, path: str, record: PullRecord, as_json: bool) -> None:
    """Says where the model is, and how to try it or what it lacks."""
    name = _name_of(model) if model else ""
    obstacle = find_obstacle(model, get_catalogue().models) if model else None
    if as_json:
        facts = {"id": model and model.id, "name": name, "path": path, **_record_facts(record)}
        show_json({**facts, "problem": obstacle.problem if obstacle else ""})
        return
    is_ready = obstacle is None and model is not None
    place = path or (model and model.id) or record.shown_ref
    say(f"{'Ready' if is_ready else 'Downloaded'}: {place}")
    if obstacle is not None:
        say(f"{obstacle.problem}. {obstacle.remedy}.")
    elif model is not None and model.has_command:
        say(f"Try it: {_trial(model, name)}")
    elif model is not None:
        say(f"It is {WHAT_IT_IS[model.purpose]}: {NO_COMMAND}")


def _trial(model: LocalModel, name: str) -> str:
    if model.purpose == "embedding":
        return quoted("llm", "embed", "-m", name, "-c", "Primary colors")
    return quoted("llm", "-m", name, "Name the primary colors")


def _record_facts(record: PullRecord) -> dict[str, Any]:
    files = [pick(file, "path size sha256") for file in record.files]
    return {"ref": record.shown_ref, **pick(record, "source commit"), "files": files}


def _name_of(model: LocalModel) -> str:
    """The shortest name of `model`."""
    snapshot = get_catalogue()
    order = order_of(read_config(), snapshot)
    return short_name(model, name_models(snapshot.models, order, model.purpose))
