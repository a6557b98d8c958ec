"""Models that make llama.cpp take all memory that it gets, and how much their engines took."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.engines import TEMPLATE_SIZE, patched, text_value

_DOUBLED = "{%% set n = namespace(s='0123456789') %%}{%% for i in range(%s) %%}%s{%% endfor %%}"
_POLL_INTERVAL_S = 0.01

TEMPLATES = {
    "doubled text": _DOUBLED % (40, "{% set n.s = n.s + n.s %}"),
    "joined text": _DOUBLED % (40, "{% set n.s = n.s ~ n.s %}"),
    "multiplied text": "{% set s = 'x' * 10000000000 %}",
    "indented text": "{{ 'a\nb'|indent(10000000000) }}",
    "replaced text": "{% set n = namespace(s='00') %}{% for i in range(9) %}"
    "{% set n.s = n.s.replace('0', n.s) %}{% endfor %}",
    "joined numbers": _DOUBLED % (14, "{% set n.s = n.s + n.s %}")
    + "{{ range(1000000)|join(n.s) }}",
    "split text": _DOUBLED % (26, "{% set n.s = n.s + n.s %}") + "{{ n.s.split('0')|length }}",
    "doubled list": "{% set n = namespace(l=[1, 2]) %}{% for i in range(40) %}"
    "{% set n.l = n.l + n.l %}{% endfor %}",
    "nested list": "{% set n = namespace(l=[]) %}{% for i in range(100000000) %}"
    "{% set n.l = [n.l, n.l] %}{% endfor %}",
    "range": "{% for i in range(10000000000) %}{% endfor %}",
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}0123456789{% endfor %}"
    "{% endfor %}",
    "block": "{% set x %}{% for i in range(1000000000) %}0123456789{% endfor %}{% endset %}",
    "macro": "{% macro f(s) %}{{ f(s + s) }}{% endmacro %}{{ f('0123456789') }}",
}
"""Chat templates, each some hundred bytes, that never end or need terabytes (b11549)."""
TRIGGER = "Go!"
"""The prompt that sets off a template which is harmless until then."""


def with_template(source: Path, target: Path, name: str, *, in_request: bool) -> Path:
    """A copy of the starter model with one of the `TEMPLATES`.

    It strikes when the model is loaded, or `in_request`: only if the prompt is `TRIGGER`.
    """
    template = TEMPLATES[name]
    if in_request:
        template = f"{{% if messages[0].content == '{TRIGGER}' %}}{template}{{% endif %}}"
    template += "{% for m in messages %}{{ m.content }}{% endfor %}"
    padded = f"{template}{{#{' ' * (TEMPLATE_SIZE - len(template) - 4)}#}}"
    return patched(source, target, "tokenizer.chat_template", text_value(padded.encode()))


class Peak:
    """The most memory that any engine of this process has held, in bytes."""

    size = 0


@contextmanager
def measured() -> Iterator[Peak]:
    """Measures the processes that this one starts in the block, and what those start."""
    peak, is_over = Peak(), threading.Event()
    thread = threading.Thread(target=_measure, args=[peak, is_over], daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def _measure(peak: Peak, is_over: threading.Event) -> None:
    here = psutil.Process()
    while not is_over.is_set():
        for child in here.children(recursive=True):
            with contextlib.suppress(OSError):
                peak.size = max(peak.size, high_water_mark(child.pid))
        time.sleep(_POLL_INTERVAL_S)


def high_water_mark(pid: int) -> int:
    """The most memory that a process has held since it began, in bytes."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def kept_from_dumping() -> None:
    """Makes the processes that this one starts leave no core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def oom_score(pid: int) -> int:
    return int(Path("/proc", str(pid), "oom_score_adj").read_text())


def data_limit(pid: int) -> int:
    """The bytes of data that Linux allows a process; -1 for no limit."""
    import resource

    if pid == os.getpid():
        return resource.getrlimit(resource.RLIMIT_DATA)[0]
    return resource.prlimit(pid, resource.RLIMIT_DATA)[0]
