"""Embeds texts: a batch is one request, and a text that is too long fails alone, by name.

A text is too long if the server or the engine counts more tokens than its context holds, or if the
server says so; then halves of the batch are sent, until the text is found. Counting, and fitting a
context to the texts, is left to `servers` and `engine.serve`.

llm stores the vectors of a batch when the model has returned all of them, and pairs them with the
texts in their order (`Collection.embed_multi`, llm 0.36). So an error loses the whole batch, but
vectors that end early are stored up to there. In `llm embed-multi`, a batch therefore ends before a
text that is too long, and the batches that follow are embedded. At its end the command runs once
more with batches of one text, for those that followed a long one; then it fails.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain

import click
from typing_extensions import assert_never

from llm_localrun import resolve
from llm_localrun.catalogue import get_catalogue
from llm_localrun.chat.expected import model_check
from llm_localrun.chat.modelfile import request_defaults
from llm_localrun.chat.notes import report_departure
from llm_localrun.chat.response import end_command
from llm_localrun.chat.run import check_allowed, in_use
from llm_localrun.config import read_config
from llm_localrun.engine import serve
from llm_localrun.engine.fallback import tell
from llm_localrun.errors import BadReply, BuildFailed, PromptTooLong
from llm_localrun.models import LocalModel, OnDisk, Route, RunsOn, Served
from llm_localrun.name_cache import CachePolicy
from llm_localrun.servers.base import PreparedRequest, open_server
from llm_localrun.system import progress
from llm_localrun.tokens.window import USE_LARGER_MODEL, TextTooLong, remedy_for_text
from llm_localrun.wire import http
from llm_localrun.wire.response import decode_whole
from llm_localrun.wire.shapes import Vector

_SHOWN_CHARACTERS = 40
_SHOWN_TEXTS = 10


def embed_batches(
    model: LocalModel, batches: Iterator[Sequence[str]], key: str | None
) -> Iterator[Vector]:
    """The vectors of the texts, of which one batch is read at a time.

    They end before a text that is too long: with `PromptTooLong`, which in `llm embed-multi` comes
    when the command ends. Raises a `LocalRunError`.
    """
    model, route = resolve.choose_route(model, {})
    run = _current_run()
    for texts in batches:
        count = 0
        try:
            for vector in embed(model, route, texts, key):
                yield vector
                count += 1
        except PromptTooLong as error:
            if run is None:
                raise _named(error, model, texts[count]) from None
            # After this, llm would pair every vector with the wrong text.
            left = [*texts[count:], *chain.from_iterable(batches)]
            number = run.number_of(left, run.given + count + 1)
            run.leave_out(_named(error, model, left[0], number), len(left) - 1)
        if run is not None:
            run.given += len(texts)


def embed(
    model: LocalModel, route: Route, texts: Sequence[str], key: str | None
) -> Iterator[Vector]:
    """The vectors of `texts` in their order, up to the first text that is too long.

    For that one it raises `PromptTooLong`. Raises a `LocalRunError`.
    """
    try:
        vectors = _request(model, route, texts, key)
    except BuildFailed as error:
        if not error.instead:
            raise
        tell(error)
        yield from embed(model, route, texts, key)
    except PromptTooLong as error:
        first = error.index if isinstance(error, TextTooLong) else len(texts) // 2
        if first == 0:
            raise
        yield from embed(model, route, texts[:first], key)
        yield from embed(model, route, texts[first:], key)
    else:
        yield from vectors


def _request(
    model: LocalModel, route: Route, texts: Sequence[str], key: str | None
) -> list[Vector]:
    """The vectors of `texts`, in one request. Raises a `LocalRunError`."""
    config = read_config()
    match route:
        case Served():
            # Replies with vectors need not say where they were made.
            check_allowed(model, config, key, reply_tells=False)
            prepared = open_server(route.endpoint, key).prepare_texts(model, route, texts)
        case OnDisk():
            options = request_defaults(model, route).options
            prepared = serve.prepare_texts(model, route, texts, options, config)
        case _:
            assert_never(route)
    server = prepared.server
    try:
        with in_use(model, prepared):
            received = list(http.stream(prepared.http_request(http.READ_TIMEOUT_S)))
            context = replace(
                server.response_context,
                model=prepared.model,
                is_other_model=model_check(model, prepared),
            )
            host, vectors = decode_whole(
                server.label,
                received,
                lambda payload: (server.remote_host_in(payload), server.decode_vectors(payload)),
                context,
            )
        report_departure(model, prepared, host)
    except PromptTooLong as error:
        remedy = _remedy(prepared, texts[0]) if len(texts) == 1 else error.remedy
        raise PromptTooLong(error.problem, remedy) from None
    if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1:
        raise BadReply(
            f"{server.label} sent {len(vectors)} vectors for {len(texts)} texts, or vectors of"
            " different lengths",
            "Try again; if it happens again, install a newer version of it",
        )
    return vectors


def _remedy(prepared: PreparedRequest, text: str) -> str:
    """What to do about a text that the server refused although it seemed to fit."""
    (tokens,) = prepared.server.count_texts(prepared.model, [text], 0)
    return remedy_for_text(tokens, prepared.limits) if tokens else USE_LARGER_MODEL


def _named(
    error: PromptTooLong, model: LocalModel, text: str, number: int | None = None
) -> PromptTooLong:
    """The error with a name for the text: its beginning, and its number if that is known."""
    words = " ".join(text[: 4 * _SHOWN_CHARACTERS].split())
    shown = words[:_SHOWN_CHARACTERS]
    quoted = f'"{shown}{"…" if len(shown) < len(text) else ""}"'
    name = f"The text {quoted}" if number is None else f"Text {number} of this run ({quoted})"
    more = _larger_model(model) if error.remedy == USE_LARGER_MODEL else ""
    return PromptTooLong(f"{name} is too long. {error.problem}", error.remedy + more)


def _larger_model(model: LocalModel) -> str:
    """The embedding model on this machine with the largest context, if it is larger."""
    models = get_catalogue(CachePolicy.CACHED).models
    here = [m for m in models if m.purpose == "embedding" and m.runs_on is RunsOn.THIS_MACHINE]
    largest = max(here, key=lambda each: each.context_max or 0, default=model)
    is_larger = (largest.context_max or 0) > (model.context_max or 0) > 0
    return f": {largest.id} holds {largest.context_max:,} tokens" if is_larger else ""


@dataclass
class _Run:
    """One run of `llm embed-multi`, which passes on only the texts that it has not stored yet."""

    given: int = 0
    """Texts of earlier batches."""
    errors: list[PromptTooLong] = field(default_factory=list)
    skipped: int = 0
    """Texts that fit, and that llm cannot store because they follow one that does not."""
    numbers: dict[str, int] = field(default_factory=dict)
    """The positions in the run of texts that were left out."""
    is_second: bool = False
    """Whether the texts that were left out come again, one by one."""

    def number_of(self, left: Sequence[str], first: int) -> int | None:
        """The position of the first of the texts that are left out; llm counts from `first`."""
        if not self.is_second:
            self.numbers |= {text: number for number, text in enumerate(left, first)}
        return self.numbers.get(left[0])

    def leave_out(self, error: PromptTooLong, skipped: int) -> None:
        if not self.errors and not self.is_second:
            click.get_current_context().with_resource(self._failing_at_end())
        self.errors.append(error)
        self.skipped += skipped

    @contextmanager
    def _failing_at_end(self) -> Generator[None, None, None]:
        """Makes the command fail when it ends; if it fails anyway, names the texts besides."""
        try:
            yield
        except BaseException:
            progress.tell(f"Error: {self._problems()}.")
            raise
        context = click.get_current_context()
        if self.skipped and context.params["input_path"] != "-":
            self.given, self.skipped, self.errors, self.is_second = 0, 0, [], True
            # llm passes on what it has not stored yet. Nothing follows a text in a batch of one.
            context.invoke(context.command, **{**context.params, "batch_size": 1})
        kept = "The other texts are stored"
        if self.skipped:
            kept += f", except {self.skipped} that follow such a text in a batch: store them with"
            kept += " --batch-size 1"
        end_command(PromptTooLong(self._problems(), f"{self.errors[-1].remedy}. {kept}"))

    def _problems(self) -> str:
        shown = [error.problem for error in self.errors[:_SHOWN_TEXTS]]
        more = len(self.errors) - len(shown)
        return ". ".join([*shown, *([f"{more} more texts are too long"] if more else [])])


def _current_run() -> _Run | None:
    """The run of `llm embed-multi` in which this is; None elsewhere."""
    context = click.get_current_context(silent=True)
    if context is None:
        return None
    from llm.cli import embed_multi

    if context.command is not embed_multi:
        return None
    run: _Run = context.meta.setdefault(__name__, _Run())
    return run
