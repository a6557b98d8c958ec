"""Why llama.cpp failed, from its log: the reason, what to do, and whether the model, the GPU or the
processor is to blame.

What follows from that is left to `launch` and `failed_builds`.
"""

import re
import signal

from llm_localrun.engine.libraries import NO_INSTRUCTION, lack_in
from llm_localrun.engine.state import BUILD_LINE, ENDED
from llm_localrun.errors import Fault
from llm_localrun.wire.sse import excerpt

_MAX_REASON_LENGTH = 200
"""Characters."""
_GPU = r"cuda|vulkan|\bvk::|rocm|\bhip|metal|sycl|device ?lost|OutOfDeviceMemory"
_MEMORY = r"memory|alloc"
_ENDED = re.compile(rf"^{ENDED.strip()} (?P<text>.*)$", re.MULTILINE)
_CRASH = re.compile(r"^Fatal Python error: (?P<text>(?!Aborted).*)$", re.MULTILINE)
"""As `faulthandler` writes it when a signal ends the host. What aborts gives its own reason."""
_ASSERTION = re.compile(r"(?P<text>GGML_ASSERT\(.*|GGML_ABORT.*|Remote RPC server crashed.*)")
_LOGGED_ERROR = re.compile(r"^[\d.]+ E (?:\S+\s+)?(?:[\w\s]+?: )?(?P<text>.*)$", re.MULTILINE)
_LOGGED_LINE = re.compile(r"[\d.]+ [A-Z] ")
_ERROR_LINE = re.compile(r"(?:\w*Error|error|  what\(\)): ")
_LOADING = "load_model: loading model '"
_OTHER_CAUSE = re.compile(
    rf"{_MEMORY}|{_GPU}|\bmmap|failed to open|lora adapter|draft model|multimodal|CLIP model",
    re.IGNORECASE,
)
"""In errors that are not about the model's file (b11549)."""
_LOAD_REMEDIES = [
    (re.compile(cause, re.IGNORECASE), remedy)
    for cause, remedy in (
        ("lora adapter", "Choose another adapter"),
        ("draft model", "Choose another with -o draft_model"),
        ("multimodal|CLIP model", "Download its projector again"),
        (_MEMORY, "Free memory, or choose a smaller model: `llm localrun recommend`"),
        (_GPU, "Update the driver, or run it without the GPU: -o gpu_layers 0"),
        ("", "Choose another model, or another build: `llm localrun engine install --tag latest`"),
    )
]
_GPU_ERROR = re.compile(_GPU, re.IGNORECASE)
_ILLEGAL = signal.strsignal(signal.SIGILL) or "Illegal instruction"
CRASHES = {
    number
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT")
    if (number := getattr(signal, name, None))
}
"""Signals that come from what a process does with a file, or from a driver."""
_CRASH_TEXTS = {text for number in CRASHES if (text := signal.strsignal(number))}
_MISSING_LIBRARY = re.compile(
    r"^(?:ImportError|.*error while loading shared libraries): (?P<text>.*)$", re.MULTILINE
)


def reason_in(log: str) -> str:
    """Why llama.cpp failed, from its log; "" if the log gives no reason.

    Of several errors the first is the cause, and the others follow from it.
    """
    patterns = (_MISSING_LIBRARY, _ENDED, _ASSERTION, _CRASH, _LOGGED_ERROR)
    found = next(filter(None, (pattern.search(log) for pattern in patterns)), None)
    if found is not None and found.re is _MISSING_LIBRARY and (lack := lack_in(found[0])):
        return f"{lack.problem}. {lack.remedy}"
    reason = found["text"] if found else next(reversed(_unlogged(log)), "")
    return excerpt(reason.encode(), _MAX_REASON_LENGTH)


def remedy_for(reason: str) -> str:
    """What to do if llama.cpp cannot load a model for a `reason` that is not in its file."""
    return next(remedy for cause, remedy in _LOAD_REMEDIES if cause.search(reason))


def blames_model(log: str) -> bool:
    """Whether llama.cpp failed while it loaded the model, and names no other cause."""
    return _LOADING in log and not any(_OTHER_CAUSE.search(line) for line, _ in _errors(log))


def fault_in(log: str, number: int = 0) -> tuple[Fault, str] | None:
    """Which part of the build failed, in an engine that may use a GPU, and why; None if neither.

    `number` is the signal that ended it, 0 for none or an unknown one.
    """
    reason = reason_in(log)
    if number == signal.SIGILL or _ILLEGAL in reason:
        return Fault.CPU, NO_INSTRUCTION
    found = next((text for line, text in _errors(log) if _GPU_ERROR.search(line)), None)
    if found is not None:
        is_full = any(re.search(_MEMORY, line, re.IGNORECASE) for line, _ in _errors(log))
        said = excerpt(found.encode(), _MAX_REASON_LENGTH)
        return (Fault.GPU_MEMORY if is_full else Fault.GPU), said
    # The driver runs in the same process.
    if number in CRASHES:
        return Fault.GPU, reason or signal.strsignal(number) or "it crashed"
    return (Fault.GPU, reason) if any(text in reason for text in _CRASH_TEXTS) else None


def _errors(log: str) -> list[tuple[str, str]]:
    """The lines of a log that are errors, and what they say."""
    logged = ((match[0], match["text"]) for match in _LOGGED_ERROR.finditer(log))
    asserted = ((match[0], match["text"]) for match in _ASSERTION.finditer(log))
    return [*logged, *((line, line.strip()) for line in _unlogged(log)), *asserted]


def _unlogged(log: str) -> list[str]:
    """The lines that do not come from llama.cpp's logger.

    Texts that it logs may have several lines. So after it has begun to log, only lines that say
    that they are errors count.
    """
    written = (line for line in log.splitlines() if line.strip())
    lines = [line for line in written if not line.startswith(BUILD_LINE)]
    others = [line for line in lines if not _LOGGED_LINE.match(line)]
    return others if others == lines else [line for line in others if _ERROR_LINE.match(line)]
