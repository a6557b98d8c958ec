"""What our registration hook costs a fresh `llm` process while the catalogue is fresh.

    python benchmarks/hook.py [RUNS]

Prints the milliseconds that the hook takes, imports included, over RUNS processes (default: 15):
for one of this plugin's names, for another plugin's, and for comparison what importing llm's own
command line takes. The user directory (LLM_USER_PATH) must have a model: `llm localrun pull
starter`.
"""

import statistics
import subprocess
import sys

_PROBE = """
import sys, time
begun = time.perf_counter()
import click, llm.cli
imported = time.perf_counter()
from llm_localrun import plugin

command = click.Command("prompt")
with click.Context(command, info_name="prompt") as context:
    context.params["model_id"] = sys.argv[1]
    registered = []
    hooked = time.perf_counter()
    plugin.register_models(lambda *each, **more: registered.append(each), [])
    done = time.perf_counter()
print(imported - begun, done - hooked, len(registered))
"""


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    subprocess.run([sys.executable, "-m", "llm", "localrun", "models"], check=True)
    for name in ("local", "gpt-4o"):
        rows = [_run(name) for _ in range(runs)]
        imports, hooks, counts = zip(*rows, strict=True)
        print(
            f"-m {name}: hook {_spread(hooks)} ms for {counts[-1]:.0f} models;"
            f" importing llm {_spread(imports)} ms"
        )


def _run(name: str) -> tuple[float, ...]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, name], capture_output=True, text=True, check=True
    )
    return tuple(float(word) for word in done.stdout.split())


def _spread(seconds: tuple[float, ...]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{1000 * middle:.1f} ({1000 * low:.1f}-{1000 * high:.1f})"


if __name__ == "__main__":
    main()
