"""Completion through click: the scripts for the shells, and the answers that need llm.

llm's program calls click's class for a shell when the variable _LLM_COMPLETE is set. `install` puts
classes in their place that add the names of our models and options. Where llm itself completes a
word, its own answer counts.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
)

from llm_localrun.completion import quick
from llm_localrun.completion.answer import answer, needs_names
from llm_localrun.completion.line import Line, for_bash
from llm_localrun.completion.sources import Candidate, matching
from llm_localrun.system.paths import home

_BASH = """
_llm_localrun_completion() {
    local found status
    found=$(%(quick)s bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    status=$?
    COMPREPLY=()
    if [[ $status -eq 0 ]]; then
        [[ -z $found ]] || mapfile -t COMPREPLY <<< "$found"
    elif [[ $status -eq %(is_path)d ]]; then
        compopt -o default
    else
        %(complete_func)s "$@"
    fi
}
complete -o nosort -F _llm_localrun_completion %(prog_name)s
"""
_ZSH = """
_llm_localrun_completion() {
    local found
    local -a lines
    found=$(%(quick)s zsh "${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" 2>/dev/null)
    case $? in
        0) lines=("${(@f)found}"); [[ -z $found ]] || _describe -V names lines -M 'm:{a-zA-Z}={A-Za-z}' ;;
        %(is_path)d) _files ;;
        *) %(complete_func)s "$@" ;;
    esac
}
[[ $zsh_eval_context[-1] == loadautofunc ]] || compdef _llm_localrun_completion %(prog_name)s
"""  # noqa: E501
_FISH = """
function _llm_localrun_completion
    %(quick)s fish (commandline -cp | string collect) 2>/dev/null
    switch $status
        case 0
        case %(is_path)d
            __fish_complete_path (commandline -ct)
        case '*'
            %(complete_func)s
    end
end
complete --erase --command %(prog_name)s
complete --no-files --command %(prog_name)s --arguments "(_llm_localrun_completion)"
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_QUICK = shlex.join([sys.executable, "-I", "-S", quick.__file__])


class _Completion(ShellComplete):
    """What click's class for a shell does, and our names."""

    def source(self) -> str:
        """click's script, and one that asks us before it asks llm."""
        script = super().source()
        if super().get_completions(["-m"], ""):
            # llm completes the names of models itself.
            return script
        values: dict[str, Any] = {**self.source_vars()}
        values |= {"quick": _QUICK, "is_path": quick.IS_PATH}
        return script + _SCRIPTS.get(self.name, "") % values

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        if args[:1] == ["localrun"]:
            return self._ours(args, incomplete) or super().get_completions(args, incomplete)
        return super().get_completions(args, incomplete) or self._ours(args, incomplete) or []

    def _ours(self, args: list[str], incomplete: str) -> list[CompletionItem] | None:
        words = self._with_command(args)
        user = home().parent
        if needs_names(words, user):
            from llm_localrun.search import make_names_of_catalogue

            make_names_of_catalogue()
        found = answer(words, incomplete, user)
        if found is None:
            return list(map(_item, _options(words, incomplete)))
        if found.is_file:
            return [CompletionItem(incomplete, type="file")]
        return list(map(_item, found.candidates))

    def _with_command(self, args: list[str]) -> list[str]:
        """`args`, with llm's default command if they begin with a prompt."""
        commands = self.cli.commands if isinstance(self.cli, click.Group) else {}
        return args if not args or args[0] in commands else ["prompt", *args]


class _BashCompletion(_Completion):
    """For bash, which breaks words at colons, and quotes nothing."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        self._kept = ""
        while incomplete == ":" or args[-1:] == [":"]:
            if incomplete != ":":
                args.pop()
                incomplete = f":{incomplete}"
            incomplete = (args.pop() if args else "") + incomplete
            self._kept = incomplete[: incomplete.rindex(":") + 1]
        return args, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        if item.type == "plain":
            value = for_bash(item.value, Line([], "", kept=self._kept))
            item = CompletionItem(value)
        return super().format_completion(item)


def install() -> None:
    """Puts our classes in the place of click's, unless another plugin has put one there."""
    for name in ("bash", "zsh", "fish", "powershell"):
        theirs = get_completion_class(name)
        if theirs is not None and theirs.__module__ == ShellComplete.__module__:
            ours = _BashCompletion if name == "bash" else _Completion
            add_completion_class(type(f"_{theirs.__name__}", (ours, theirs), {"name": name}))


def _item(candidate: Candidate) -> CompletionItem:
    return CompletionItem(candidate.value, help=candidate.help or None)


def _options(words: Sequence[str], typed: str) -> list[Candidate]:
    """The names, or the values, of the options of our models where `typed` is one of them."""
    option = _option_of(words)
    if option is None or not _runs_ours(words):
        return []
    from llm_localrun.chat.options import Options, choices_of

    if option:
        return matching(map(Candidate, choices_of(option)), typed)
    fields = Options.model_fields.items()
    found = (Candidate(name, field.description or "") for name, field in fields)
    return matching(found, typed)


def _option_of(words: Sequence[str]) -> str | None:
    """The option whose value comes next; "" if the name of one does; None if neither does."""
    if words[:1] in (["prompt"], ["chat"]):
        if words[-1] in ("-o", "--option"):
            return ""
        return words[-1] if words[-2:-1] in (["-o"], ["--option"]) else None
    if words[:3] == ["models", "options", "set"]:
        return {4: "", 5: words[-1]}.get(len(words))
    return None


def _runs_ours(words: Sequence[str]) -> bool:
    """Whether the command uses a model of ours."""
    import llm

    from llm_localrun.name_cache import is_ours
    from llm_localrun.registration import user_aliases

    if words[:3] == ["models", "options", "set"]:
        model = words[3]
    else:
        given = [word for flag, word in pairwise(words) if flag in ("-m", "--model")]
        default = os.environ.get("LLM_MODEL") or llm.get_default_model()  # type: ignore[no-untyped-call]
        model = given[-1] if given else str(default)
    return is_ours(user_aliases().get(model, model))
