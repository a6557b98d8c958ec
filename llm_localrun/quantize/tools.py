"""Finds a quantizer on this machine, or installs one.

The first choice is llama-quantize, which knows every type. The next is the library of xllamacpp:
its Python interface cannot quantize, but the library exports ggml's functions on Linux and macOS.
On Windows it does not; there, a small package with ggml's libraries can be installed. Running the
quantizer is left to `run`; `worker` is the program that calls ggml.
"""

import mmap
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llm_localrun.errors import QuantizeFailed
from llm_localrun.quantize.recipes import MIXES
from llm_localrun.system.paths import home
from llm_localrun.system.progress import Progress, working

GGML_PACKAGE = "libggml-python==0.20.2.post1"
"""2.5 MB, MIT: ggml's libraries and no dependencies."""

_BOOTSTRAP = (
    "import sys; sys.path[:0] = [{!r}]; from llm_localrun.quantize.worker import main; main()"
)
_TYPE_LIST = re.compile("allowed quantization types", re.IGNORECASE)
_EXPORTED_NAME = b"ggml_quantize_chunk\0"
_LISTED_TYPE = re.compile(r"^ +(?:\d+ +or +)?([A-Z][A-Z0-9_]+) *:", re.MULTILINE)
_HELP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A program with llama-quantize's command line: [--imatrix FILE] SOURCE TARGET TYPE THREADS.

    `quantizations` are those that it can make. `follows_recipes` says whether `recipes` knows
    what it makes; llama-quantize knows more than that.
    """

    title: str
    command: tuple[str, ...]
    quantizations: tuple[str, ...]
    follows_recipes: bool


def find_quantizer() -> Quantizer | None:
    """The best quantizer on this machine, None if there is none. Raises `QuantizeFailed`."""
    if program := shutil.which("llama-quantize"):
        return _llama_quantize(program)
    return xllamacpp_quantizer() or _package_quantizer(_package_folder())


def xllamacpp_quantizer() -> Quantizer | None:
    """ggml in xllamacpp's library, if that exports its functions."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return None
    return _ggml_quantizer("xllamacpp", Path(spec.origin).parent.glob("xllamacpp*.so"))


def _package_quantizer(folder: Path) -> Quantizer | None:
    """The library of `GGML_PACKAGE` in `folder`: libggml-base.so, .dylib, or ggml-base.dll."""
    libraries = (
        path
        for path in sorted(folder.glob("libggml/*/*ggml-base.*"))
        if path.suffix in (".so", ".dylib", ".dll")
    )
    return _ggml_quantizer(GGML_PACKAGE, libraries)


def install_quantizer() -> Quantizer:
    """Installs `GGML_PACKAGE` from pip's package index. Raises `QuantizeFailed`.

    It is installed into a folder of its own, where Python does not look for packages.
    """
    folder = _package_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            installed = Path(temporary) / "installed"
            _pip_install(installed)
            if _package_quantizer(installed) is None:
                raise QuantizeFailed(
                    f"{GGML_PACKAGE} does not contain ggml's library",
                    "Install llama.cpp, which includes llama-quantize",
                )
            shutil.rmtree(folder, ignore_errors=True)
            installed.replace(folder)
    except OSError as error:
        raise QuantizeFailed.from_os_error("written", folder, error) from None
    quantizer = _package_quantizer(folder)
    assert quantizer is not None
    return quantizer


def _llama_quantize(program: str) -> Quantizer:
    """llama.cpp's program. It lists its types in its help."""
    try:
        done = subprocess.run(
            [program, "--help"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QuantizeFailed(
            f"{program} does not run: {error}", "Install it again, or remove it from the PATH"
        ) from None
    *_, listed = _TYPE_LIST.split(done.stdout)
    types = tuple(name for name in _LISTED_TYPE.findall(listed) if name != "COPY")
    if not types:
        raise QuantizeFailed(
            f"{program} does not list the types that it can make",
            "Remove it from the PATH, or install a newer llama.cpp",
        )
    # `plan.check` has refused a quantized source unless the user allows it.
    return Quantizer(program, (program, "--allow-requantize"), types, follows_recipes=False)


def _ggml_quantizer(package: str, libraries: Iterable[Path]) -> Quantizer | None:
    """A quantizer that uses the first of `libraries` that exports ggml's functions, if one does."""
    library = next(filter(_exports_ggml, libraries), None)
    if library is None:
        return None
    bootstrap = _BOOTSTRAP.format(str(Path(__file__).parents[2]))
    command = (sys.executable, "-I", "-S", "-c", bootstrap, str(library))
    return Quantizer(f"ggml from {package}", command, tuple(MIXES), follows_recipes=True)


def _exports_ggml(library: Path) -> bool:
    """Whether a library contains the name of ggml's function; the library is not loaded."""
    try:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            return mapped.find(_EXPORTED_NAME) >= 0
    except (OSError, ValueError):
        return False


def _package_folder() -> Path:
    return home() / "tools" / GGML_PACKAGE.replace("==", "-")


def _pip_install(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-compile", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(target), GGML_PACKAGE]
    with working(Progress(f"installing {GGML_PACKAGE}")):
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    if done.returncode != 0:
        last_line = done.stderr.strip().rpartition("\n")[2].removeprefix("ERROR: ")
        raise QuantizeFailed(
            f"pip could not install {GGML_PACKAGE}: {last_line or 'it gave no reason'}",
            "Check the network and pip's index settings (`pip config list`), or install llama.cpp,"
            " which includes llama-quantize",
        )
