"""What can quantize on this machine, and getting it where nothing can.

llama-quantize, where it is installed, knows every type. Else the functions that quantize are taken
out of the engine: xllamacpp offers nothing of the kind to Python, but its library exports ggml's
whole interface on Linux and macOS. Where it does not, on Windows, a small package has ggml itself.
"""

import mmap
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llm_localrun.errors import QuantizeFailed
from llm_localrun.quantize.recipes import MIXES
from llm_localrun.system.paths import home

GGML_PACKAGE = "libggml-python==0.20.2.post1"
"""2.5 MB, MIT, nothing but ggml's libraries."""

_BOOTSTRAP = (
    "import sys; sys.path[:0] = [{!r}]; from llm_localrun.quantize.worker import main; main()"
)
_LIST = re.compile("allowed quantization types", re.IGNORECASE)
_EXPORT = b"ggml_quantize_chunk\0"
_LISTED_TYPE = re.compile(r"^ +(?:\d+ +or +)?([A-Z][A-Z0-9_]+) *:", re.MULTILINE)
_HELP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A program with llama-quantize's command line: [--imatrix FILE] SOURCE TARGET TYPE THREADS."""

    title: str
    command: tuple[str, ...]
    types: tuple[str, ...]
    follows_recipes: bool
    """Whether `gguf.recipes` says what it makes; llama-quantize knows more."""


def find() -> Quantizer | None:
    """The best one on this machine; None if there is none yet. Raises `QuantizeFailed`."""
    if program := shutil.which("llama-quantize"):
        return _llama_quantize(program)
    return on_engine() or _on_package()


def on_engine() -> Quantizer | None:
    """The engine's ggml, if its library lets go of it."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return None
    libraries = Path(spec.origin).parent.glob("xllamacpp*.so")
    return next((_on_ggml("xllamacpp", each) for each in libraries if _exports_ggml(each)), None)


def _on_package() -> Quantizer | None:
    library = _library_in(_package_folder())
    return None if library is None else _on_ggml(GGML_PACKAGE, library)


def install() -> Quantizer:
    """Gets ggml from the package index that pip is set to. Raises `QuantizeFailed`.

    It goes into a folder of its own, where no other program meets it.
    """
    folder = _package_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            _pip_install(made)
            if _library_in(made) is None:
                raise QuantizeFailed(
                    f"{GGML_PACKAGE} does not hold ggml's library",
                    "Install llama.cpp, which brings llama-quantize",
                )
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
    except OSError as error:
        raise QuantizeFailed(
            f"{GGML_PACKAGE} cannot be put into {folder.parent}: {error.strerror}",
            "Make room there, or mend its permissions",
        ) from None
    quantizer = _on_package()
    assert quantizer is not None
    return quantizer


def _llama_quantize(program: str) -> Quantizer:
    """llama.cpp's own; which types it knows stands in what it prints as its usage."""
    try:
        done = subprocess.run(
            [program, "--help"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QuantizeFailed(
            f"{program} does not run: {error}", "Mend it, or take it from the PATH"
        ) from None
    *_, listed = _LIST.split(done.stdout)
    types = tuple(name for name in _LISTED_TYPE.findall(listed) if name != "COPY")
    if not types:
        raise QuantizeFailed(
            f"{program} does not say what it can make", "Take it from the PATH, or get a newer one"
        )
    # That only what loses nothing is requantized is seen to before.
    return Quantizer(program, (program, "--allow-requantize"), types, follows_recipes=False)


def _on_ggml(package: str, library: Path) -> Quantizer:
    bootstrap = _BOOTSTRAP.format(str(Path(__file__).parents[2]))
    command = (sys.executable, "-I", "-S", "-c", bootstrap, str(library))
    return Quantizer(f"ggml, out of {package}", command, tuple(MIXES), follows_recipes=True)


def _library_in(folder: Path) -> Path | None:
    """ggml's library in the package: libggml-base.so, .dylib, or ggml-base.dll."""
    libraries = (
        path
        for path in sorted(folder.glob("libggml/*/*ggml-base.*"))
        if path.suffix in (".so", ".dylib", ".dll")
    )
    return next(filter(_exports_ggml, libraries), None)


def _exports_ggml(library: Path) -> bool:
    """Whether a library names the function that quantizes: it is told without loading it."""
    try:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            return mapped.find(_EXPORT) >= 0
    except (OSError, ValueError):
        return False


def _package_folder() -> Path:
    return home() / "tools" / GGML_PACKAGE.replace("==", "-")


def _pip_install(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-compile", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(target), GGML_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        last_line = done.stderr.strip().rpartition("\n")[2].removeprefix("ERROR: ")
        raise QuantizeFailed(
            f"pip could not install {GGML_PACKAGE}: {last_line or 'it gave no reason'}",
            "Check the network and pip's index settings (`pip config list`), or install llama.cpp,"
            " which brings llama-quantize",
        )
