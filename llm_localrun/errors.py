"""Everything that can go wrong, as one tree.

    LocalRunError
    ├── ConfigError          config.json, or an option's value, is not usable
    ├── UnknownModel         no model of that name on this machine
    ├── NotAllowed           the model runs elsewhere and the user has not said that it may
    ├── UnsupportedOption    the chosen backend cannot honour an option
    ├── BadAttachment        an attachment cannot be read, or the model cannot take it
    ├── PromptTooLong        the prompt does not fit the context
    ├── AnswerCutOff         what was to be JSON ended before it was complete
    ├── ServerUnreachable    nothing answers, or not in time
    ├── ServerRefused        the server answered with an error of its own
    ├── BadReply             what the server sent is not what its protocol says
    ├── BadModelFile         the file is missing, damaged or no GGUF model
    ├── NotEnoughMemory      loading the model would take more memory than is free
    ├── EngineFailed         llama.cpp did not start or did not survive
    ├── PullFailed           a model could not be fetched
    ├── NotRemoved           a model could not be deleted, or is not ours to delete
    └── QuantizeFailed       a model could not be quantized

Each is an `llm.ModelError`, which `llm prompt` and the Python API know, and a
`click.ClickException`, which also keeps `llm chat` and `llm embed` from ending in a traceback.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import llm


class LocalRunError(llm.ModelError, click.ClickException):
    """Root of the tree: one sentence that says what is wrong, one that says what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        click.ClickException.__init__(self, f"{_sentence(problem)} {_sentence(remedy)}")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    first_word = text.partition(" ")[0]
    # Ids, addresses and names with a spelling of their own stay as they are.
    if first_word.islower() and not set("/:") & set(first_word):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


class ConfigError(LocalRunError):
    """config.json, or an option's value, is not usable."""


class UnknownModel(LocalRunError):
    """No model of that name on this machine."""


class NotAllowed(LocalRunError):
    """The model runs elsewhere and the user has not said that it may."""


class UnsupportedOption(LocalRunError):
    """The chosen backend cannot honour an option."""


class BadAttachment(LocalRunError):
    """An attachment cannot be read, or the model cannot take it."""


class PromptTooLong(LocalRunError):
    """The prompt does not fit the context."""


class AnswerCutOff(LocalRunError):
    """What was to be JSON ended before it was complete."""


class ServerUnreachable(LocalRunError):
    """Nothing answers, or not in time."""


class ServerRefused(LocalRunError):
    """The server answered with an error of its own."""


class BadReply(LocalRunError):
    """What the server sent is not what its protocol says."""


class BadModelFile(LocalRunError):
    """The file is missing, damaged or no GGUF model."""


class NotEnoughMemory(LocalRunError):
    """Loading the model would take more memory than is free."""


class EngineFailed(LocalRunError):
    """llama.cpp did not start or did not survive."""


class PullFailed(LocalRunError):
    """A model could not be fetched."""


class NotRemoved(LocalRunError):
    """A model could not be deleted, or is not ours to delete."""


class QuantizeFailed(LocalRunError):
    """A model could not be quantized."""


@contextmanager
def translate_os_errors(
    error_type: type[LocalRunError], path: Path, action: str, hint: str = ""
) -> Iterator[None]:
    """Turns an OSError into an `error_type` that says that a file cannot be used.

    `action` completes "PATH cannot be ...": written, deleted. `path` stands in for the file if the
    OSError names none. `hint` follows the advice for a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = f"Free space on its disk. {hint}"
        elif isinstance(error, PermissionError):
            remedy = "Fix its permissions, and try again"
        else:
            remedy = "Check the folder and its disk, and try again"
        raise error_type(
            f"{error.filename or path} cannot be {action}: {error.strerror}", remedy
        ) from None
