"""How well the speed of a model is predicted: python -m benchmarks.prediction MODEL… [OPTIONS]

MODEL is a GGUF file. For each, prints the bytes, those that a token reads, the tokens a second
predicted with an empty log, the median of those measured in five answers of 128 tokens, and the
ratio of the two. For a file of the list of recommended models, also what `recommend` predicts for
one that is not here, and its ratio. Ends with 1 if a ratio is not within 25%. `llm` must be
installed with this plugin, in the environment that runs this.

    --each     measures the machine anew before each model, not once
    --rates    prints what was measured of the machine, too
    --anyway   also on a busy machine, where the figures mean nothing

An idle machine of 2 cores takes about 15 s for each GB of a model.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from llm_localrun.engine_defaults import CALM_LOAD
from llm_localrun.recommended import bandwidth
from llm_localrun.recommended.bandwidth import Rates
from llm_localrun.recommended.choose import cost_of
from llm_localrun.recommended.log import logged_speeds
from llm_localrun.recommended.measuring import usable_cores
from llm_localrun.recommended.models import listed_models
from llm_localrun.recommended.speed import cost_of_file, speed_by

_WITHIN = 0.25
_ANSWERS = 5
_ROW = "{:44} {:>8} {:>8} {:>10} {:>9} {:>6} {:>8} {:>6}"
_COLUMNS = ("model", "MB", "MB read", "predicted", "measured", "ratio", "by list", "ratio")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    for flag in ("--each", "--rates", "--anyway"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    is_busy = load > CALM_LOAD * usable_cores()
    if is_busy and not options.anyway:
        sys.exit(
            f"This machine is busy (load {load:.1f}): try again when it is idle, or add --anyway"
        )
    machine = bandwidth.this_machine()
    rates = bandwidth.measure(machine.library, is_busy=is_busy)
    print(_ROW.format(*_COLUMNS))
    ratios: list[float] = []
    for model in options.models:
        if options.each:
            rates = bandwidth.measure(machine.library, is_busy=is_busy)
        if rates is None:
            sys.exit("This machine cannot be measured")
        if options.rates:
            reads = ", ".join(f"{name} {speed / 1e9:.1f}" for name, speed in rates.reads.items())
            print(f"GB/s: {reads}; step {rates.step * 1e6:.2f} µs")
        ratios += _compared(model, rates)
    sys.exit(int(any(abs(ratio - 1) > _WITHIN for ratio in ratios)))


def _compared(model: Path, rates: Rates) -> list[float]:
    """Prints the row of a model, and returns the ratios in it."""
    cost = cost_of_file(str(model))
    predicted = speed_by(rates, cost, ()) or 0.0
    by_list = _by_list(model, rates)
    measured = _measured(model)
    ratios = [each / measured for each in (predicted, by_list) if each is not None]
    sizes = (f"{size / 1e6:.0f}" for size in (model.stat().st_size, cost.active_bytes))
    speeds = [f"{predicted:.1f}", f"{measured:.1f}", f"{ratios[0]:.2f}"]
    speeds += ["", ""] if by_list is None else [f"{by_list:.1f}", f"{ratios[1]:.2f}"]
    print(_ROW.format(model.name, *sizes, *speeds), flush=True)
    return ratios


def _by_list(model: Path, rates: Rates) -> float | None:
    """What the entry of the file predicts; None if it is not in the list, by its name and size."""
    for each in listed_models():
        first = each.files[0]
        if (Path(first.path).name, first.size) == (model.name, model.stat().st_size):
            return speed_by(rates, cost_of(each), ())
    return None


def _measured(model: Path) -> float:
    """The median of the tokens a second that llm's log has of the answers."""
    llm = str(Path(sys.executable).with_name("llm"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLM_USER_PATH"] = folder
        options = ["-o", "temperature", "0", "-o", "max_tokens", "128"]
        # The first answer waits for the model to be read from the disk.
        for number in range(_ANSWERS + 1):
            prompt = f"Write a long story about the number {number}."
            command = [llm, "-m", str(model.absolute()), *options, prompt]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (speeds,) = logged_speeds().values()
        subprocess.run(
            [llm, "localrun", "unload", str(model.absolute())],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return statistics.median(speeds)


if __name__ == "__main__":
    main()
