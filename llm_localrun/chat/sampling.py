"""How a model that is run from its file samples where the user does not say, and who says so.

In this order: Ollama's manifest, the file's keys `general.sampling.*`, the makers' settings in the
recommended list, llama.cpp's defaults. A value that is not valid costs itself only. How a server
samples is left to the server.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import ValidationError

from llm_localrun import engine_defaults
from llm_localrun.chat.options import Options
from llm_localrun.files.modelfile import sampling_of
from llm_localrun.models import SAMPLING, LocalModel, OnDisk

_OPTIONS = {
    "temp": "temperature",
    **{name: name for name in ("top_p", "top_k", "min_p")},
    "penalty_repeat": "repeat_penalty",
}
"""The keys of a file that are options here."""
_SEQUENCE = "sequence"
_MIROSTATS = ("mirostat", "mirostat_tau", "mirostat_eta")
_NUMBERS = ("xtc_probability", "xtc_threshold")
"""The other numbers. llama.cpp takes all but `mirostat` from the file by itself (b11549)."""
_PENALTY_LAST_N = "penalty_last_n"
LAST_N = "repeat_last_n"
"""The name of `_PENALTY_LAST_N` in requests and in Ollama's manifests."""
_SENT = {_MIROSTATS[0]: _MIROSTATS[0], _PENALTY_LAST_N: LAST_N}
"""What requests carry of what is no option, by the names in a file."""
_MOST_TOKENS = 2**20
_SOUND = {"top_k": (0, 2**31 - 1), "repeat_penalty": (1e-3, 1e3)}
"""llama.cpp makes another number of larger `top_k`, and refuses requests with such penalties."""
_PENALTIES = "penalties"
_SAMPLERS = {
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), _PENALTIES),
    _PENALTY_LAST_N: _PENALTIES,
    **{name: name for name in ("top_k", "top_p", "min_p", "temperature")},
    "typical_p": "typ_p",
}
"""The sampler of llama.cpp that a setting is for."""
_ALL_SAMPLERS = [
    *("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"),
]
"""llama.cpp's default sequence (b11549)."""
_ALIASES = {
    **{name.replace("_", ""): name for name in _ALL_SAMPLERS},
    **{"temp": "temperature", "nucleus": "top_p", "typ": "typ_p"},
}
"""Other names of samplers in a file; besides, "-" may stand for "_". llama.cpp drops names that it
does not know, such as `typical` (b10434, b11549)."""


class Origin(str, Enum):
    """Who says how a model samples."""

    OPTIONS = "options"
    MANIFEST = "manifest"
    FILE = "file"
    LISTED = "list"
    ENGINE = "engine"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that is in force, and where it comes from."""

    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class FileSampling:
    """How a model that is run from its file samples."""

    options: Mapping[str, Setting] = field(default_factory=dict)
    """By the names of -o."""
    others: Mapping[str, Setting] = field(default_factory=dict)
    """What is set that is no option of -o, by the names after `general.sampling.`."""

    def options_beside(self, chosen: Mapping[str, Any]) -> dict[str, Setting]:
        """The options that hold beside those that the user has `chosen`.

        At the temperature 0 the most likely token counts, and the makers' penalties are for others.
        """
        is_greedy = chosen.get("temperature") == 0
        return {
            name: each
            for name, each in self.options.items()
            if name not in chosen
            and not (
                is_greedy and each.origin is Origin.LISTED and _SAMPLERS.get(name) == _PENALTIES
            )
        }

    def sent(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a request carries besides: not those with which the engine starts."""
        settings = self.options_beside(chosen).items()
        return {name: each.value for name, each in settings if each.origin is not Origin.ENGINE}

    def others_beside(self, chosen: Collection[str]) -> dict[str, Setting]:
        """`others` without what would take the effect from the options `chosen` by the user.

        Mirostat takes the place of all samplers but the temperature, and a sequence may lack one.
        """
        wanted = {_SAMPLERS[name] for name in chosen if name in _SAMPLERS}
        displaced = (
            *(() if wanted <= {"temperature"} else _MIROSTATS),
            *(() if wanted <= _samplers_in(self.others) else (_SEQUENCE,)),
        )
        return {name: value for name, value in self.others.items() if name not in displaced}

    def in_force(self, chosen: Mapping[str, Any]) -> dict[str, Setting]:
        """What has an effect where the user has set the options `chosen`, those left out."""
        others = self.others_beside(chosen)
        samplers = {"temperature"} if _MIROSTATS[0] in others else _samplers_in(others)
        found = {**self.options_beside(chosen), **others}
        samplers_of = {name: {_SAMPLERS[name]} for name in found if name in _SAMPLERS}
        return {name: found[name] for name in found if samplers_of.get(name, set()) <= samplers}

    def extra_body(self, chosen: Collection[str]) -> dict[str, Any]:
        """What requests carry besides the options, where the user has set the options `chosen`."""
        others = self.others_beside(chosen)
        extra = {_SENT[name]: each.value for name, each in others.items() if name in _SENT}
        is_displaced = _SEQUENCE in self.others and _SEQUENCE not in others
        return extra | ({"samplers": _ALL_SAMPLERS} if is_displaced else {})


def file_sampling(model: LocalModel, route: OnDisk, manifest: Mapping[str, Any]) -> FileSampling:
    """How the file at `route` samples.

    `manifest` has the options that Ollama's manifest sets, and its `LAST_N` as it is.
    """
    if model.purpose != "chat":
        return FileSampling()
    # Imported here because prompts to servers do without the list.
    from llm_localrun.recommended.recognize import recognize

    stated, names = sampling_of(route), (*SAMPLING, "seed")
    in_list = recognize(model, route)
    by_origin = {
        Origin.ENGINE: _options_of(engine_defaults.SAMPLING),
        Origin.LISTED: sound_options(in_list.sampling) if in_list else {},
        Origin.FILE: _options_of(stated),
        Origin.MANIFEST: {name: manifest[name] for name in names if name in manifest},
    }
    found = {
        name: Setting(value, origin)
        for origin, options in by_origin.items()
        for name, value in options.items()
    }
    others = {name: Setting(value, Origin.FILE) for name, value in _others(stated).items()}
    most = min(model.context_max or _MOST_TOKENS, _MOST_TOKENS)
    for origin, last_n in (
        (Origin.FILE, stated.get(_PENALTY_LAST_N)),
        (Origin.MANIFEST, manifest.get(LAST_N)),
    ):
        if isinstance(last_n, int) and not isinstance(last_n, bool) and -1 <= last_n <= most:
            others[_PENALTY_LAST_N] = Setting(last_n, origin)
    return FileSampling({name: found[name] for name in names if name in found}, others)


def _samplers_in(others: Mapping[str, Setting]) -> set[str]:
    """The samplers of the sequence, by their usual names."""
    if _SEQUENCE not in others:
        return {*_ALL_SAMPLERS}
    names = others[_SEQUENCE].value.lower().replace("-", "_").split(";")
    return {_ALIASES.get(name, name) for name in names}


def valid_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of -o among `given` that have valid values."""
    options: dict[str, Any] = {}
    for name, value in given.items():
        try:
            options |= Options.model_validate({name: value}).model_dump(exclude_none=True)
        except ValidationError:
            continue
    return options


def sound_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`valid_options`, without those that llama.cpp cannot follow."""
    options = valid_options(given)
    limits = {name: _SOUND[name] for name in options if name in _SOUND}
    unsound = {name for name, (low, high) in limits.items() if not low <= options[name] <= high}
    return {name: value for name, value in options.items() if name not in unsound}


def _options_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The options among the keys of a file."""
    named = {
        _OPTIONS[key]: _plain(value)
        for key, value in stated.items()
        if key in _OPTIONS and not isinstance(value, bool)
    }
    if isinstance(top_k := named.get("top_k"), int) and top_k < 0:
        # To llama.cpp as to vLLM, -1 is off.
        named["top_k"] = 0
    return sound_options(named)


def _plain(value: Any) -> Any:
    """0.7 for 0.699999988, which is how a 32-bit number holds it."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _others(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What is no option here, and has an effect."""
    sequence = stated.get(_SEQUENCE)
    others: dict[str, Any] = {_SEQUENCE: sequence} if sequence and isinstance(sequence, str) else {}
    version = stated.get(_MIROSTATS[0])
    # llama.cpp aborts on other versions.
    has_mirostat = version in (1, 2) and not isinstance(version, bool)
    for name in (*_NUMBERS, *(_MIROSTATS if has_mirostat else ())):
        value = stated.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            others[name] = _plain(value)
    return others
