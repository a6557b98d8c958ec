"""The settings of engines: from a model's file, the user's options and config.json.

The context size is chosen in `serve`. Passing the settings to llama.cpp is left to `llama_server`
and `xllamacpp`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm_localrun.config import Config
from llm_localrun.engine.state import AUTO, BUILT_IN_TEMPLATES, NGRAM, EngineSettings
from llm_localrun.errors import ConfigError
from llm_localrun.files.found import NOT_TEXT, is_text
from llm_localrun.files.modelfile import chat_template_of, read_modelfile
from llm_localrun.memory import machine
from llm_localrun.models import LocalModel, OnDisk
from llm_localrun.system.atomic import read_regular
from llm_localrun.system.paths import home

_MEMORY_SHARE = 0.75
_MAX_TEMPLATE_BYTES = 2**20
LAUNCH_OPTIONS = (
    "threads",
    "gpu_layers",
    "kv_cache_type",
    "flash_attention",
    "lora",
    "draft_model",
    "chat_template",
)
"""The options of `-o` with which an engine starts. A request does not send them again."""
_DRAFTS = {"none": "", NGRAM: NGRAM, AUTO: AUTO}
"""What `-o draft_model` may be besides a path."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits for all engines, from config.json. None leaves the choice to llm-localrun."""

    llama_server: str | None = None
    """The llama-server program to use; "" to use only xllamacpp."""
    memory: int | None = None
    """Bytes that all engines may take together."""
    prompt_bytes: int = 2 * 2**30
    """Bytes on disk for the saved prompts of conversations."""
    overcommit: bool = False
    """Whether an engine may take more memory than its model needs."""

    def within(self, memory: int) -> "EngineLimits":
        """These limits with at most `memory` bytes for all engines together."""
        return replace(self, memory=memory if self.memory is None else min(memory, self.memory))


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Which engine is needed: for which file, with which settings, and within which limits."""

    path: str
    name: str
    """What the engine calls the model in its replies."""
    settings: EngineSettings = field(default_factory=EngineSettings)
    limits: EngineLimits = field(default_factory=EngineLimits)

    def with_context(self, size: int | None) -> "EngineRequest":
        """The request with a context of `size` tokens; None leaves it to the engine."""
        return replace(self, settings=replace(self.settings, context_size=size))


def _read_limits(config: Config) -> EngineLimits:
    """The limits in `config`. By default, engines may take three quarters of the memory."""
    memory = config.engine_memory
    if memory is None and (physical := machine.physical_memory()) is not None:
        memory = int(physical * _MEMORY_SHARE)
    return EngineLimits(config.llama_server, memory, config.prompt_cache)


def engine_request(
    model: LocalModel, route: OnDisk, options: Mapping[str, Any], config: Config
) -> EngineRequest:
    """The engine to run the file of `route` with, without a context size.

    `options` are by the names of `-o`. They come before config.json, and both before what Ollama's
    manifest says. Raises `ConfigError`, and `BadModelFile` if the model's chat template cannot be
    used.
    """
    if not is_text(folder := str(home())):
        problem = f"The engine cannot keep files in {folder}: {NOT_TEXT}"
        raise ConfigError(problem, "Set LLM_USER_PATH to another folder")
    draft_model = options.get("draft_model", "none")
    settings = EngineSettings(
        threads=options.get("threads", config.threads),
        gpu_layers=options.get("gpu_layers"),
        kv_cache_type=options.get("kv_cache_type"),
        flash_attention=options.get("flash_attention"),
        embedding=model.purpose == "embedding",
        projector=route.projector,
        lora=_absolute(options.get("lora")) or read_modelfile(route).adapter,
        draft_model=_DRAFTS[draft_model] if draft_model in _DRAFTS else _absolute(draft_model),
        chat_template=given_template(options.get("chat_template"))
        or chat_template_of(model, route),
        rpc=",".join(config.rpc),
    )
    limits = replace(_read_limits(config), overcommit=bool(options.get("overcommit")))
    return EngineRequest(route.path, model.name, settings, limits)


def given_template(option: str | None) -> str:
    """The template that `-o chat_template` means: a name of llama.cpp's, or the text of a file.

    Raises `ConfigError`.
    """
    if option is None or option in BUILT_IN_TEMPLATES:
        return option or ""
    path = Path(option).expanduser()
    try:
        if not option.strip():
            raise FileNotFoundError
        template = read_regular(path)[:_MAX_TEMPLATE_BYTES].decode()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no chat template {option or repr(option)}",
            "Give the path of a Jinja file, or a name of llama.cpp's, such as chatml or gemma",
        ) from None
    except OSError as error:
        raise ConfigError.from_os_error("read", path, error) from None
    except ValueError:
        raise ConfigError(f"{path} is no text", "Give the path of a Jinja file") from None
    if not template.strip():
        raise ConfigError(f"The chat template {path} is empty", "Give another file")
    return template


def _absolute(path: str | None) -> str:
    """The path of a file that the engine reads. Raises `ConfigError` if it cannot be told it."""
    if path and not is_text(path):
        raise ConfigError(f"{path} cannot be used: {NOT_TEXT}", "Rename it")
    return str(Path(path).expanduser().absolute()) if path else ""
