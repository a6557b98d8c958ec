"""A fake of llama-quantize, which no package contains.

It prints what the real one printed (`transcripts/llama-quantize-0c1e570/`), fails where that
failed, and makes its file with the engine's ggml, whose bytes are the same (see `test_quantize`).
"""

import subprocess
import sys
from pathlib import Path

from llm_localrun.quantize import tools

SAID = Path(__file__).parents[1] / "transcripts" / "llama-quantize-0c1e570"

_NEEDS_IMPORTANCE = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")


def put_on_path(folder: Path) -> str:
    """Writes the program into the new `folder`. Returns a PATH that begins with it."""
    folder.mkdir()
    program = folder / "llama-quantize"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = [{str(Path(__file__).parents[2])!r}]\n"
        "from tests.fakes.llama_quantize import main\nmain(sys.argv[1:])\n"
    )
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def main(arguments: list[str]) -> None:
    """The part of the real command line that the plugin uses."""
    if arguments == ["--help"]:
        sys.stdout.write((SAID / "usage.txt").read_text())
        sys.exit(1)
    *options, source, target, quantization, threads = arguments
    if quantization in _NEEDS_IMPORTANCE and "--imatrix" not in options:
        _fail("needs_imatrix.txt")
    if "--allow-requantize" not in options:
        _fail("refused.txt")
    options.remove("--allow-requantize")
    quantizer = tools.xllamacpp_quantizer()
    assert quantizer is not None
    command = [*quantizer.command, *options, source, target, quantization, threads]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    sys.stderr.write((SAID / "made.txt").read_text())


def _fail(said: str) -> None:
    sys.stderr.write((SAID / said).read_text())
    sys.exit(1)
