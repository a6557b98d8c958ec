"""Why llama.cpp gave up, from what it printed."""

import re

from llm_localrun.wire.sse import excerpt

_ASSERTION = re.compile(r"(GGML_ASSERT\(.*|GGML_ABORT.*)")
_LOGGED_ERROR = re.compile(r"^[\d.]+ E (?:\S+\s+)?(?:[\w\s]+?: )?(?P<text>.*)$", re.MULTILINE)
_NO_ERROR = re.compile(r"[\d.]+ [A-Z] ")
_MISSING_LIBRARY = re.compile(
    r"^(?:ImportError|.*error while loading shared libraries): (?P<text>.*)$", re.MULTILINE
)


def reason_in(log: str) -> str:
    """Why llama.cpp gave up, from what it logged: the first error is the true one; "" for none."""
    if missing := _MISSING_LIBRARY.search(log):
        return _missing_library(missing["text"])
    if assertion := _ASSERTION.search(log):
        return excerpt(assertion[1].encode(), 200)
    if error := _LOGGED_ERROR.search(log):
        return excerpt(error["text"].encode(), 200)
    unmarked = [line for line in log.splitlines() if line.strip() and not _NO_ERROR.match(line)]
    return excerpt(unmarked[-1].encode(), 200) if unmarked else ""


def _missing_library(text: str) -> str:
    if "libgomp" in text:
        return "libgomp.so.1 is missing (Debian, Ubuntu: `apt install libgomp1`; Fedora: libgomp)"
    return excerpt(text.encode(), 200)
