"""What `bench` measures: models on their routes, in settings. What a setting takes of a context.

Which model a name means is left to `resolve`, measuring to `measure`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_localrun.catalogue import get_catalogue
from llm_localrun.config import Config, read_config
from llm_localrun.engine.build_probe import Build, choice_in, probe_all
from llm_localrun.engine_defaults import SLOTS
from llm_localrun.errors import ConfigError, UnknownModel
from llm_localrun.models import LocalModel, OnDisk, Route
from llm_localrun.name_cache import CachePolicy
from llm_localrun.resolve import candidates, choose_route, order_of, unknown_model
from llm_localrun.system.paths import engine_folder

SPARE_TOKENS = 64
"""What a prompt may take besides what was asked for: the template, and words that are split."""


@dataclass(frozen=True, slots=True)
class BenchSetting:
    """A prompt of `prompt` tokens after `depth` others, an answer of `generate` tokens after as
    many, and `concurrency` requests of each kind at once."""

    prompt: int
    generate: int
    depth: int = 0
    concurrency: int = 1

    @property
    def tokens(self) -> int:
        """The tokens of context that one request takes at most."""
        return self.depth + self.prompt + self.generate

    @property
    def all_prompt_tokens(self) -> int:
        """The tokens that a run sends: the prompt, and a short one for the answer, each after a
        beginning that is sent before, too."""
        return self.concurrency * (4 * self.depth + self.prompt + SPARE_TOKENS)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model on a route. `build` is the build of llama.cpp to run it with, None for the usual."""

    label: str
    model: LocalModel
    route: Route
    build: Build | None = None

    def context_size(self, setting: BenchSetting) -> int:
        """The context that the engine needs: its slots share one."""
        return setting.concurrency * (setting.tokens + SPARE_TOKENS)

    def obstacle(self, setting: BenchSetting) -> str:
        """Why the setting cannot be measured, as far as that is known before; "" if it can."""
        is_file = isinstance(self.route, OnDisk)
        if is_file and setting.concurrency > SLOTS:
            return f"the engine answers {SLOTS} prompts at once, not {setting.concurrency}"
        needed = self.context_size(setting) if is_file else setting.tokens
        trained = self.model.context_max
        if trained is None or needed <= trained:
            return ""
        return (
            f"it needs a context of {needed:,} tokens, and {self.model.name} was trained for"
            f" {trained:,}"
        )

    def config(self, config: Config) -> Config:
        """The user's settings, with this build."""
        if self.build is None:
            return config
        named = "" if self.build.kind == "xllamacpp" else self.build.installed or self.build.path
        return config.model_copy(update={"llama_server": named})


def find_builds(names: Sequence[str]) -> list[Build]:
    """The builds of llama.cpp that the user names. Raises `ConfigError`."""
    found = []
    for name in dict.fromkeys(names):
        build = choice_in(name)
        if build is None:
            raise ConfigError(
                f"There is no build of llama.cpp {name}", "`llm localrun engine list` lists all"
            )
        (probed,) = probe_all([build], engine_folder())
        if probed.problem:
            remedy = probed.remedy or "`llm localrun engine list` lists all"
            raise ConfigError(f"{name} cannot be used: {probed.problem}", remedy)
        found.append(probed)
    return found


def find_subjects(names: Sequence[str], builds: Sequence[Build]) -> tuple[list[Subject], list[str]]:
    """What to measure, and the names that mean the same as an earlier one.

    Raises `UnknownModel`, `BadModelFile` and `ConfigError`.
    """
    subjects: dict[str, Subject] = {}
    repeated = []
    for name in names:
        model, route = _find(name)
        if model.id in subjects:
            repeated.append(name)
        subjects.setdefault(model.id, Subject(name, model, _on_disk(model) if builds else route))
    if not builds:
        return [*subjects.values()], repeated
    return [
        Subject(_label(each, build, alone=len(builds) == 1), each.model, each.route, build)
        for each in subjects.values()
        for build in builds
    ], repeated


def _label(subject: Subject, build: Build, *, alone: bool) -> str:
    return subject.label if alone else f"{subject.label}, {build.name}"


def _on_disk(model: LocalModel) -> OnDisk:
    if model.on_disk is None:
        raise ConfigError(
            f"The file of {model.id} is not known, so no build of llama.cpp can run it",
            "Leave out --engine, or give the path of a GGUF file",
        )
    return model.on_disk


def _find(name: str) -> tuple[LocalModel, Route]:
    snapshot = get_catalogue(CachePolicy.FRESH)
    model = candidates(name, snapshot.models, order_of(read_config(), snapshot))[0]
    if model.purpose != "chat":
        raise unknown_model(name, snapshot, "chat")
    if not model.routes:
        raise UnknownModel(f"Nothing can run {model.id}", "`llm localrun models` lists all models")
    return choose_route(model, {})
