"""How fast this machine reads the weights of a model while it computes with them.

`measuring` measures it, in a process of its own, in less than half a second; this module keeps the
result in llm's user directory until the processor or the library changes. What it means for a model
is left to `speed`.
"""

import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_localrun.engine_defaults import CALM_LOAD
from llm_localrun.recommended.measuring import usable_cores
from llm_localrun.system.atomic import read_own, write_atomically
from llm_localrun.system.json_files import read_text
from llm_localrun.system.paths import home
from llm_localrun.system.progress import Progress, working

_BOOTSTRAP = (
    "import sys; sys.path[:0] = [{!r}]; from llm_localrun.recommended.measuring import main; main()"
)
_SECONDS = 0.33
"""Of measuring; starting the process takes 0.05 s more, and the last figure up to 0.05 s."""
_TIMEOUT_S = 2.0
"""Only bounds: on a busy machine ggml's threads wait long for each other."""
_CALM_SPINS, _BUSY_SPINS = "100000", "1000"
_CALM_SHARE = 0.9
"""Of the time, for which the threads work on a machine that does nothing else."""
_FORMAT = 2


class Rates(BaseModel):
    """`reads` has the bytes a second of each type of tensor, by its name: `Q4_K`. `step` is the
    seconds of a small operation, which its threads begin and end together."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    # Other figures are those of a clock that was wrong, or of a damaged file.
    reads: Mapping[str, Annotated[float, Field(gt=1e8, lt=1e13)]] = Field(min_length=1)
    step: Annotated[float, Field(gt=1e-8, lt=1e-2)]

    def of(self, kind: str) -> float:
        """The bytes a second of a type. One that was not measured counts as a slow one."""
        return self.reads.get(kind) or min(self.reads.values())


class Measured(Rates):
    """What was measured. `worked` is the share of the time for which the threads worked."""

    worked: Annotated[float, Field(ge=0)]

    def is_lasting(self, library: str) -> bool:
        """Whether a later measurement with `library` would hardly be better."""
        is_whole = not library or "" not in self.reads
        return is_whole and self.worked >= _CALM_SHARE


class _Kept(BaseModel):
    key: list[str]
    rates: Rates


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures depend on. `library` is ggml's, "" if there is none to measure with."""

    processor: str
    cores: int
    library: str
    version: str

    @property
    def key(self) -> list[str]:
        return [str(_FORMAT), self.processor, str(self.cores), self.version]


def this_machine() -> Machine:
    found = re.search(r"^model name\s*: (.*)$", read_text(Path("/proc/cpuinfo")), re.MULTILINE)
    processor = found[1] if found else platform.processor() or platform.machine()
    spec, library = find_spec("xllamacpp"), ""
    if spec and spec.origin:
        # Its Python module is the library. That of Windows exports none of ggml's functions.
        library = next(map(str, Path(spec.origin).parent.glob("xllamacpp*.so")), "")
    return Machine(processor, usable_cores(), library, _version() if library else "")


def _version() -> str:
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return "unknown"


def rates_of(machine: Machine) -> Rates | None:
    """How fast this machine reads weights; None if that cannot be measured.

    Figures of a machine that is busy, or was for a moment, are less exact: they are not kept beyond
    this process.
    """
    return rates_in(home() / "speed.json", machine)


# A busy machine is not measured again for each model.
@functools.lru_cache(maxsize=4)
def rates_in(path: Path, machine: Machine) -> Rates | None:
    """What the file at `path` has, or else is written to it."""
    with contextlib.suppress(OSError, ValidationError):
        kept = _Kept.model_validate_json(read_own(path))
        if kept.key == machine.key:
            return kept.rates
    is_busy = _is_busy()
    with working(Progress("measuring how fast this machine is")):
        measured = measure(machine.library, is_busy=is_busy)
    if not measured:
        return None
    rates = Rates(reads=measured.reads, step=measured.step)
    if not is_busy and measured.is_lasting(machine.library):
        with contextlib.suppress(OSError):
            kept = _Kept(key=machine.key, rates=rates)
            write_atomically(path, kept.model_dump_json().encode())
    return rates


def _is_busy() -> bool:
    """Whether the processors have much else to do, as far as the system says it."""
    try:
        return os.getloadavg()[0] > CALM_LOAD * usable_cores()
    except (AttributeError, OSError):
        return False


def measure(library: str, *, is_busy: bool) -> Measured | None:
    """Measures this machine, with ggml in `library`, or without. None if that fails: without a
    library, a busy machine cannot be measured."""
    bootstrap = _BOOTSTRAP.format(str(Path(__file__).parents[2]))
    # As those of the engine. On a busy machine, waiting must not count as working for long.
    environment = {**os.environ, "GOMP_SPINCOUNT": _BUSY_SPINS if is_busy else _CALM_SPINS}
    # If the library crashes, memory alone is measured.
    for each in dict.fromkeys((library, "")):
        command = [sys.executable, "-I", "-S", "-c", bootstrap, each, str(_SECONDS)]
        command += ["busy"] if is_busy else []
        with contextlib.suppress(OSError, subprocess.TimeoutExpired, ValidationError):
            done = subprocess.run(
                command, capture_output=True, env=environment, timeout=_TIMEOUT_S, check=False
            )
            return Measured.model_validate_json(done.stdout)
    return None
