"""Carries out a `QuantizePlan`: runs the quantizer, checks its file and moves it into place.

The source is only read. The unfinished file lies in the partial folder until it is complete. The
choice of the quantizer is left to `tools`.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from llm_localrun.errors import QuantizeFailed
from llm_localrun.names.quantizations import quantization_in, without_quantization
from llm_localrun.pull.download import sha256_steps
from llm_localrun.pull.records import QUANTIZED, PulledFile, PullRecord, save_record
from llm_localrun.quantize.plan import QuantizePlan, tensors_of
from llm_localrun.system import locks
from llm_localrun.system.atomic import check_folder
from llm_localrun.system.paths import partial_folder
from llm_localrun.system.progress import Progress

_SIGKILL = getattr(signal, "SIGKILL", 9)
"""What ends a process when memory runs out, among other things. Windows lacks it."""
_STEP = re.compile(r"\[ *(\d+)/ *\d+\] ")
_REASON = re.compile(r"(?:error|failed to quantize): (?P<text>.+)")


def run(plan: QuantizePlan) -> Generator[Progress, None, None]:
    """Makes the file of `plan`, and yields progress. Raises `QuantizeFailed`.

    Closing the generator stops the quantizer and deletes the unfinished file.
    """
    partial = partial_folder() / f"{plan.target.name}.part"
    try:
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_folder(partial.parent)
        with locks.exclusive(partial.with_suffix(".lock"), timeout=0):
            try:
                yield from _make(plan, partial)
                _check_result(partial, plan)
                yield Progress("Writing it to the disk")
                _flush_to_disk(partial)
                files = [plan.target, *_link_projector(plan)]
                partial.replace(plan.target)
            finally:
                partial.unlink(missing_ok=True)
        save_record((yield from _record_of(files)))
    except TimeoutError:
        problem = f"Another command is making {plan.target}"
        raise QuantizeFailed(problem, "Wait until it ends") from None
    except OSError as error:
        raise QuantizeFailed.from_os_error("written", plan.target, error) from None


def _make(plan: QuantizePlan, partial: Path) -> Iterator[Progress]:
    importance = ["--imatrix", str(plan.importance)] if plan.importance else []
    files = [str(plan.source.absolute()), str(partial)]
    with subprocess.Popen(
        [*plan.quantizer.command, *importance, *files, plan.quantization, str(plan.threads)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Without this, a failed assertion in ggml spends ten seconds in gdb (b11549).
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    ) as process:
        try:
            sizes = [tensor.size or 0 for tensor in tensors_of(plan.source)]
            done = [0, *accumulate(sizes)]
            for number in _steps(process, plan.source):
                yield Progress("Quantizing", done[min(number, len(sizes))], done[-1])
        finally:
            process.kill()


def _steps(process: "subprocess.Popen[str]", source: Path) -> Iterator[int]:
    """Reads the output of a quantizer to its end; yields the number of tensors that are done."""
    assert process.stdout is not None
    size = source.stat().st_size
    last_lines: deque[str] = deque(maxlen=20)
    for line in process.stdout:
        last_lines.append(line)
        if step := _STEP.match(line):
            yield int(step[1])
    if (status := process.wait()) != 0:
        reason = _failure_reason(last_lines, status)
        if not source.exists() or source.stat().st_size != size:
            reason += f"; meanwhile {source} has changed"
        raise QuantizeFailed(f"The model could not be quantized: {reason}", "Nothing was changed")


def _failure_reason(last_lines: Iterable[str], status: int) -> str:
    """Why a quantizer failed: its first error, later ones are consequences."""
    if status < 0:
        killed = f"the quantizer was killed by signal {-status} ({signal.strsignal(-status)})"
        return f"{killed}, perhaps for lack of memory" if status == -_SIGKILL else killed
    lines = [line.strip() for line in last_lines if line.strip()]
    reasons = [match["text"] for line in lines if (match := _REASON.search(line))]
    return (reasons or lines[-1:] or [f"the quantizer ended with status {status}"])[0]


# After the quantizer


def _check_result(partial: Path, plan: QuantizePlan) -> None:
    """Raises `QuantizeFailed` unless the file has all tensors: exit status 0 does not say that."""
    made, wanted = ({t.name for t in tensors_of(path)} for path in (partial, plan.source))
    if made != wanted:
        raise QuantizeFailed(
            f"The file that {plan.quantizer.title} made lacks tensors of the model", "Try again"
        )


def _flush_to_disk(partial: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())


def _link_projector(plan: QuantizePlan) -> list[Path]:
    """Links the projector into the folder of the target, where it is looked for. Returns its path.

    [] if there is none, or if it lies there already.
    """
    projector = Path(plan.projector)
    if not plan.projector or projector.parent == plan.target.parent:
        return []
    precision = quantization_in(projector.stem) or "F16"
    link = plan.target.with_name(
        f"mmproj-{without_quantization(plan.target.stem)}-{precision}.gguf"
    )
    if not link.exists():
        try:
            link.hardlink_to(projector.resolve())
        except OSError:
            # Another disk, or one without hard links.
            shutil.copyfile(projector, link)
    return [link]


def _record_of(paths: list[Path]) -> Generator[Progress, None, PullRecord]:
    """The record with which `rm` may delete the files, and `verify` can check them."""
    files = []
    for path in paths:
        digest = yield from sha256_steps(path)
        files.append(PulledFile(path=path.name, size=path.stat().st_size, sha256=digest))
    return PullRecord(ref=f"{QUANTIZED}:{paths[0].name}", source=QUANTIZED, files=tuple(files))
