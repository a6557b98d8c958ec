"""llm's models on top of a `LocalModel`: `LocalChat` and its async twin.

The twins differ in one loop; what an event leaves in llm's response is `_Recorder`'s business.
"""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from dataclasses import asdict
from typing import Any

import llm
from llm.models import AsyncConversation, Conversation
from llm.parts import StreamEvent
from typing_extensions import assert_never

from llm_localrun.catalogue import LocalModel
from llm_localrun.events import Event, Finished, ReasoningDelta, TextDelta
from llm_localrun.options import Options


class _Local:
    """What the twins share."""

    can_stream = True

    def __init__(self, local: LocalModel) -> None:
        self.local = local
        self.model_id = local.id

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """The key for this model's server, and none for any other; keys are optional."""
        endpoint = self.local.endpoint
        alias = endpoint.key_alias if endpoint else None
        if endpoint is None or (explicit_key is None and alias is None):
            return None
        key: str | None = llm.get_key(input=explicit_key, alias=alias)
        return key


class LocalChat(_Local, llm.KeyModel):
    """A chat model that runs here, for llm's synchronous API."""

    Options = Options  # type: ignore[assignment]  # llm types it by the nested default

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: Conversation | None,
        key: str | None = None,
    ) -> Iterator[StreamEvent]:
        from llm_localrun import backends
        from llm_localrun.request import chat_request

        recorder = _Recorder(self.local, response)
        request = chat_request(prompt, stream=stream)
        with closing(backends.stream(self.local, request, key)) as events:
            for event in events:
                yield from recorder.record(event)


class AsyncLocalChat(_Local, llm.AsyncKeyModel):
    """`LocalChat` for llm's asynchronous API."""

    Options = Options  # type: ignore[assignment]  # llm types it by the nested default

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: AsyncConversation | None,
        key: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        from llm_localrun import backends
        from llm_localrun.request import chat_request

        recorder = _Recorder(self.local, response)
        request = chat_request(prompt, stream=stream)
        async with aclosing(backends.astream(self.local, request, key)) as events:
            async for event in events:
                for item in recorder.record(event):
                    yield item


class _Recorder:
    """Writes a reply's events into llm's response."""

    def __init__(self, local: LocalModel, response: llm.Response | llm.AsyncResponse) -> None:
        self._local = local
        self._response = response
        self._begun = time.monotonic()
        self._time_to_first_token: float | None = None

    def record(self, event: Event) -> Iterator[StreamEvent]:
        """What llm is to be handed for `event`."""
        if self._time_to_first_token is None:
            self._time_to_first_token = time.monotonic() - self._begun
        if isinstance(event, TextDelta):
            yield StreamEvent(type="text", chunk=event.text)
        elif isinstance(event, ReasoningDelta):
            yield StreamEvent(type="reasoning", chunk=event.text)
        elif isinstance(event, Finished):
            self._finish(event)
        else:
            assert_never(event)

    def _finish(self, finished: Finished) -> None:
        details = {
            name: count
            for name in ("cached_tokens", "reasoning_tokens")
            if (count := getattr(finished, name))
        }
        self._response.set_usage(
            input=finished.prompt_tokens, output=finished.completion_tokens, details=details or None
        )
        if finished.model:
            self._response.set_resolved_model(finished.model)
        self._response.response_json = self._facts(finished)

    def _facts(self, finished: Finished) -> dict[str, Any]:
        endpoint = self._local.endpoint
        facts = {
            **asdict(finished),
            "time_to_first_token": self._time_to_first_token,
            "quantization": self._local.quantization or None,
            "endpoint": endpoint.name if endpoint else "gguf",
        }
        for counted in ("model", "prompt_tokens", "completion_tokens", "reasoning_tokens"):
            # llm keeps these in columns of its own.
            del facts[counted]
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in facts.items()
            if value is not None
        }
