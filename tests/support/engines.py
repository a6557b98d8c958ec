"""Helpers for tests that run engines: models in files, hostile files, host processes."""

import contextlib
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from llm_localrun.chat.models import LocalChat
from llm_localrun.engine.build_probe import Build
from llm_localrun.engine.installed import RECORD, Backend, InstalledBuild
from llm_localrun.models import LocalModel
from tests.support.drive import ask
from tests.support.models import local_model

STORY = "A fox went out on a chilly night and prayed to the moon to give it light. " * 8
"""About 150 tokens."""
SHORT_ANSWER: dict[str, Any] = {"temperature": 0, "max_tokens": 4}

STAND_IN = Path(__file__).parents[1] / "fakes" / "llama_server_program.py"

Conversation: TypeAlias = tuple[int, int, str]
"""Tokens of the first prompt, tokens reused by the second one, and the second answer."""


def in_file(path: Path, context_max: int | None = None) -> LocalModel:
    """The model in a file, as the scan would find it."""
    name = path.stem
    return local_model(id=f"local/gguf/{name}", name=name, path=str(path), context_max=context_max)


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def answer(model: Path, prompt: str) -> str:
    return ask(in_file(model), prompt, temperature=0, max_tokens=5).text


def converse(model: Path, between: Callable[[], None], later: dict[str, Any]) -> Conversation:
    """Prompts twice in one conversation, and calls `between` in between.

    `later` are more options of the second prompt.
    """
    conversation = LocalChat(in_file(model, context_max=8192)).conversation()
    first = conversation.prompt(STORY, **SHORT_ANSWER)
    first.text()
    between()
    second = conversation.prompt("And then?", **{**SHORT_ANSWER, **later})
    text = second.text()
    facts = second.response_json
    assert facts is not None
    return first.usage().input or 0, facts["cached_tokens"], text


def patched(source: Path, target: Path, key: str, value: bytes) -> Path:
    """A copy of `source` in which the header's value for `key` begins with `value`."""
    data = bytearray(source.read_bytes())
    at = data.index(key.encode()) + len(key) + 4
    data[at : at + len(value)] = value
    # It may be a link to the model that all tests share.
    target.unlink(missing_ok=True)
    target.write_bytes(data)
    return target


def number_value(value: int) -> bytes:
    """A number as it is written in a GGUF header."""
    return struct.pack("<I", value)


def text_value(value: bytes) -> bytes:
    """A text as it is written in a GGUF header."""
    return struct.pack("<Q", len(value)) + value


TEMPLATE_SIZE = 368
"""Bytes of the starter model's own chat template, which the endless one replaces."""
ENDLESS_TEMPLATE = text_value(
    b"{% for i in range(10000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".ljust(
        TEMPLATE_SIZE
    )
)
"""The header's value of a chat template that keeps llama.cpp busy for hours while it loads."""


def beginning_answers_with(source: Path, target: Path, begun: str) -> Path:
    """A copy of the starter model whose template begins the answer with `begun`."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'"
        " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        f"{begun}' }}}}{{% endif %}}"
    )
    padded = f"{{#{' ' * (TEMPLATE_SIZE - 4 - len(template))}#}}{template}"
    return patched(source, target, "tokenizer.chat_template", text_value(padded.encode()))


def hosts(user: Path) -> list[int]:
    """The host processes of the engines in a user directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_host = any("engine.host" in word for word in process.cmdline())
            if is_host and process.environ().get("LLM_USER_PATH") == str(user):
                found.append(process.pid)
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def executable(path: Path, code: str) -> Path:
    """A program in Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{code}\n")
    path.chmod(0o755)
    return path


GPU = "  CUDA0: NVIDIA RTX A2000 (12032 MiB, 11800 MiB free)"
"""What the fake llama-server of a machine with a GPU lists."""


def with_gpu(path: Path, load: str = "at once") -> Path:
    """The fake llama-server with a GPU. As long as it may use that, it loads as `load` says."""
    code = f"os.environ['STAND_IN_DEVICES'] = {GPU!r}"
    return stand_in(
        path, f"{code}; os.environ['STAND_IN_LOAD'] = 'at once' if 'none' in sys.argv else {load!r}"
    )


def plant_build(name: str, program: Callable[[Path], Path]) -> InstalledBuild:
    """An installed build called `name`, such as b11391-cpu, whose llama-server `program` makes."""
    tag, _, backend = name.partition("-")
    build = InstalledBuild(tag=tag, backend=Backend(backend), program="bin/llama-server")
    program(build.server)
    (build.folder / RECORD).write_text(build.model_dump_json())
    return build


def xllamacpp_with_gpu(folder: Path, load: str, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Lets xllamacpp have a GPU, and be the only build. With it, models load as `load` says."""
    package = folder / "xllamacpp"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "load").write_text(load)
    shutil.copy(STAND_IN.with_name("xllamacpp_with_gpu.py"), package / "xllamacpp.py")
    real = find_spec("xllamacpp")
    assert real is not None
    assert real.origin is not None
    monkeypatch.setenv("REAL_XLLAMACPP", str(Path(real.origin).parent))
    monkeypatch.setenv("PATH", "")
    build = Build(kind="xllamacpp", path=str(folder), version="2026.10", key="with a GPU")
    monkeypatch.setattr("llm_localrun.engine.build_probe._xllamacpp", lambda: build)
    return build


def stand_in(path: Path, before: str = "") -> Path:
    """The fake llama-server, which runs the code `before` first."""
    code = (
        f"import os, runpy, sys; {before}\nrunpy.run_path({str(STAND_IN)!r}, run_name='__main__')"
    )
    return executable(path, code)
