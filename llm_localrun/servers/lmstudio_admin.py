"""Models that LM Studio downloads, into its own folder.

https://lmstudio.ai/docs/developer/rest/download: a job is started, and asked how far it is. There
is no way to end one or to delete a model.
"""

import time
from collections.abc import Generator
from typing import Literal

from pydantic import BaseModel, Field

from llm_localrun.errors import PullFailed
from llm_localrun.servers.admin import Server
from llm_localrun.system.progress import Progress
from llm_localrun.wire import http
from llm_localrun.wire.response import decode_whole
from llm_localrun.wire.shapes import error_in
from llm_localrun.wire.sse import Payload

_EVERY = 0.5
"""Seconds between two questions."""
_PATH = "/api/v1/models/download"


class _Job(BaseModel):
    status: Literal["downloading", "paused", "completed", "failed", "already_downloaded"]
    job_id: str = Field(default="", pattern=r"^[\w-]*$")
    """Absent if there is nothing to do."""
    total_size_bytes: int = 0
    downloaded_bytes: int = 0


def pull(
    name: str, is_repository: bool, quantization: str, server: Server
) -> Generator[Progress, None, None]:
    """Makes LM Studio download a model. Raises a `LocalRunError`.

    `name` is in LM Studio's catalog, or that of a Hugging Face repository. `quantization` is "" for
    LM Studio's own choice.
    """
    body = {"model": f"https://huggingface.co/{name}" if is_repository else name}
    if quantization:
        body["quantization"] = quantization
    job = _ask(server, "POST", _PATH, body)
    path = f"{_PATH}/status/{job.job_id}"
    while job.status in ("downloading", "paused"):
        what = "Paused in LM Studio" if job.status == "paused" else "Downloading"
        yield Progress(what, job.downloaded_bytes, job.total_size_bytes or None)
        time.sleep(_EVERY)
        job = _ask(server, "GET", path)
    if job.status == "failed":
        raise PullFailed(
            f"{server.title} could not download {name}", "LM Studio's own window says why"
        )


def _ask(server: Server, method: str, path: str, body: dict[str, str] | None = None) -> _Job:
    received = http.stream(server.call(method, path, body))
    return decode_whole(server.title, received, _job, server.key or "")


def _job(payload: Payload) -> _Job:
    if error := error_in(payload):
        raise error
    return _Job.model_validate(payload)
