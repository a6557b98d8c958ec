"""Every error that the user sees, as one tree.

    LocalRunError
    ├── ConfigError          config.json, or the value of an option, is not valid
    ├── UnknownModel         no model on this machine has that name
    ├── NotAllowed           the model runs outside this machine and is not allowed
    ├── UnsupportedOption    the chosen server does not support an option
    ├── BadAttachment        an attachment cannot be read, or the model does not accept it
    ├── PromptTooLong        the prompt does not fit in the context
    ├── AnswerNotJson        the answer is not the JSON that was asked for
    │   └── AnswerCutOff     the answer ended before its JSON was complete
    ├── RepeatedCall         the model makes the same tool call again and again
    ├── NoToolCall           the answer is not the tool call that was asked for
    ├── ServerUnreachable    the server does not answer, or not in time
    ├── ServerRefused        the server answered with an error
    │   └── WrongModel       the server answers with another model
    ├── BadReply             the reply violates the server's protocol
    ├── BadModelFile         the file is missing, damaged or not a GGUF model
    ├── NotEnoughMemory      the model needs more memory than is free
    ├── EngineFailed         llama.cpp did not start, or ended unexpectedly
    │   ├── LoadFailed       llama.cpp says that it cannot load the file
    │   └── BuildFailed      a build of llama.cpp lacks an instruction, or its GPU fails
    ├── PullFailed           a model, or a build of llama.cpp, could not be downloaded
    ├── NotRemoved           a model could not be deleted
    ├── InstallFailed        a build of llama.cpp could not be installed
    ├── QuantizeFailed       a model could not be quantized
    ├── NotPlotted           a chart cannot be written to a file
    ├── LogUnreadable        llm's log cannot be read
    └── BenchFailed          models could not be measured

Each is an `llm.ModelError`, which `llm prompt` and the Python API handle, and a
`click.ClickException`, so that `llm chat` and `llm embed` show the message without a traceback. The
messages are written where the errors are raised.
"""

import errno
from enum import Enum
from typing import TypeVar

import click
import llm

from llm_localrun.system.logins import hide_passwords
from llm_localrun.system.program import runnable
from llm_localrun.system.text import printable

_Error = TypeVar("_Error", bound="LocalRunError")

_OS_REMEDIES = {
    **dict.fromkeys((errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP), "Check the path"),
    errno.EISDIR: "Give the path of a file, not of a directory",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Fix its permissions"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free space on its disk"),
}


class LocalRunError(llm.ModelError, click.ClickException):
    """Root of the tree: a sentence with the problem, and one with the remedy.

    `problem` and `remedy` are shown as they are, made `printable` and without the passwords in
    addresses; a missing full stop is added. Commands in `remedy` become `runnable`. Write them
    with a capital letter, unless they begin with a name such as `llama.cpp` or a path.
    """

    load_problem = ""
    """Why the model's file will fail to load again unless it changes; "" if it may load."""

    def __init__(self, problem: str, remedy: str) -> None:
        problem, remedy = map(hide_passwords, (problem.strip(), remedy.strip()))
        self.problem, self.remedy = printable(problem), printable(runnable(remedy))
        click.ClickException.__init__(self, f"{_sentence(self.problem)} {_sentence(self.remedy)}")

    @classmethod
    def from_os_error(
        cls: type[_Error], action: str, path: object, error: OSError, remedy: str = ""
    ) -> _Error:
        """An error about a file: "PATH cannot be ACTION: …".

        `action` is a participle: "read", "written". Without `remedy`, the advice is that of
        `error`, or follows from it.
        """
        usual = _OS_REMEDIES.get(error.errno or 0, "Check its permissions and its disk")
        advice: str = getattr(error, "remedy", usual)
        return cls(f"{path} cannot be {action}: {error.strerror or error}", remedy or advice)

    def advise(self, remedy: str) -> None:
        """Replaces what to do."""
        LocalRunError.__init__(self, self.problem, remedy)

    def with_load_problem(self: _Error, load_problem: str) -> _Error:
        self.load_problem = load_problem
        return self


def _sentence(text: str) -> str:
    """`text` with a full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


class ConfigError(LocalRunError):
    """config.json, or the value of an option, is not valid."""


class UnknownModel(LocalRunError):
    """No model on this machine has that name."""


class NotAllowed(LocalRunError):
    """The model runs outside this machine and is not allowed."""


class UnsupportedOption(LocalRunError):
    """The chosen server does not support an option."""


class BadAttachment(LocalRunError, ValueError):
    """An attachment cannot be read, or the model does not accept it: llm raises `ValueError`."""


class PromptTooLong(LocalRunError):
    """The prompt does not fit in the context. Both sizes are tokens; 0 is unknown."""

    prompt_tokens = 0
    context_size = 0


class AnswerNotJson(LocalRunError):
    """The answer is not the JSON that was asked for; raised when all of it has been passed on."""


class AnswerCutOff(AnswerNotJson):
    """The answer ended before its JSON was complete."""


class RepeatedCall(LocalRunError):
    """A model makes the same tool call again and again, which always has the same result."""


class NoToolCall(LocalRunError):
    """The answer is not the tool call that was asked for; raised when it has been passed on."""


class ServerUnreachable(LocalRunError):
    """The server does not answer, or not in time."""


class ServerRefused(LocalRunError):
    """The server answered with an error. `status` is its HTTP status, None within an answer.

    `lacks` is the capability that the model lacks, such as "vision", "" if that is not why.
    """

    status: int | None = None
    lacks = ""


class WrongModel(ServerRefused):
    """The server answers with another model than it was asked for."""


class BadReply(LocalRunError):
    """The reply violates the server's protocol."""


class BadModelFile(LocalRunError):
    """The file is missing, damaged or not a GGUF model."""


class NotEnoughMemory(LocalRunError):
    """The model needs more memory than is free."""


class EngineFailed(LocalRunError):
    """llama.cpp did not start, or ended unexpectedly."""


class LoadFailed(EngineFailed):
    """llama.cpp says that it cannot load the file, or it exits while it loads the file."""


class Fault(Enum):
    """Which part of a build failed."""

    CPU = "cpu"
    GPU = "gpu"
    GPU_MEMORY = "gpu memory"


class BuildFailed(EngineFailed):
    """A build of llama.cpp uses an instruction that this CPU lacks, or its GPU fails.

    `build` is its key, `title` what it is called, and `reason` why that `fault` occurred: see
    `engine.failed_builds`.
    """

    build = ""
    title = ""
    fault = Fault.CPU
    reason = ""
    instead = ""
    """What runs the model instead, as a sentence; "" if nothing does."""


class PullFailed(LocalRunError):
    """A file could not be downloaded. `status` is the HTTP status of the refusal, if it is one."""

    status: int | None = None


class NotRemoved(LocalRunError):
    """A model could not be deleted."""


class InstallFailed(LocalRunError):
    """A build of llama.cpp could not be installed."""


class QuantizeFailed(LocalRunError):
    """A model could not be quantized."""


class NotPlotted(LocalRunError):
    """A chart cannot be written to a file."""


class LogUnreadable(LocalRunError):
    """llm's log cannot be read."""


class BenchFailed(LocalRunError):
    """Models could not be measured."""
