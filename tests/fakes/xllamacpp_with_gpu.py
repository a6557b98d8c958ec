"""The module `xllamacpp` of a machine with a GPU: the real one, and a GPU that it does not have.

A folder with a package `xllamacpp` in which this file is `xllamacpp.py` stands in for
site-packages. As long as a model may use the GPU, loading it does what the file `load` beside this
one says: "offloads" logs what llama.cpp logs, "metal error" and "no memory" fail as ggml-metal does
(b11549, by its source).
"""

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_ADDED = {"name": "MTL0", "description": "Apple M3", "memory_total": 8 * 2**30}
_FREE = 7 * 2**30


def _real() -> Any:
    (file,) = Path(os.environ["REAL_XLLAMACPP"]).glob("xllamacpp.*.so")
    loader = importlib.machinery.ExtensionFileLoader("xllamacpp.xllamacpp", str(file))
    spec = importlib.util.spec_from_file_location("xllamacpp.xllamacpp", file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


_module = _real()
globals().update({name: getattr(_module, name) for name in dir(_module) if name[:2] != "__"})


def get_device_info() -> list[dict[str, Any]]:
    kind = _module.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
    return [*_module.get_device_info(), {**_ADDED, "memory_free": _FREE, "type": kind}]


def Server(parameters: Any) -> Any:  # noqa: N802
    load = Path(__file__).with_name("load").read_text() if parameters.n_gpu_layers else ""
    if load == "offloads":
        sys.stderr.write("0.00.1 I load_tensors: offloaded 31/31 layers to GPU\n")
    elif load == "metal error":
        _fail("ggml_metal_graph_compute: command buffer 0 failed with status 5: metal error")
    elif load == "no memory":
        _fail("ggml_metal_buffer_init: error: failed to allocate buffer, size = 9 MiB")
    sys.stderr.flush()
    return _module.Server(parameters)


def _fail(line: str) -> None:
    os.write(2, f"0.00.1 E {line}\n".encode())
    os.abort()
