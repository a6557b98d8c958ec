"""Runs a Python script as `python SCRIPT` does, and keeps what models answered to it.

    python answers_of_script.py SCRIPT ANSWERS

llm logs what its command asks, not what scripts ask. ANSWERS becomes a JSON list of texts.
"""

import atexit
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from llm import models

_asked: list[Any] = []
_created = models._BaseResponse.__init__


def _keep(response: Any, *arguments: Any, **named: Any) -> None:
    _created(response, *arguments, **named)
    _asked.append(response)


def _write(path: Path) -> None:
    path.write_text(json.dumps(["".join(each._chunks) for each in _asked]), "utf-8")


if __name__ == "__main__":
    script, answers = sys.argv[1:]
    setattr(models._BaseResponse, "__init__", _keep)  # noqa: B010
    atexit.register(_write, Path(answers))
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
