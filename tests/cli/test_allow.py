"""`llm localrun allow`: models that may run outside this machine."""

import json
from pathlib import Path

import pytest

from llm_localrun.config import read_config
from llm_localrun.models import RunsOn
from tests.conftest import CONFIG, Invoke, configure, one_error
from tests.support.many_models import put

pytestmark = pytest.mark.usefixtures("still_there")

CLOUD = "local/ollama/gpt-oss:120b-cloud"


def test_model_is_allowed_by_any_name_and_refused_again(user_path: Path, invoke: Invoke) -> None:
    put(user_path)
    done = invoke("localrun", "allow", "local-gpt-oss-120b")
    assert done.stdout == (
        f"{CLOUD} is now allowed. It runs in a cloud (ollama.com).\n"
        f"To refuse it again: llm localrun allow --remove {CLOUD}\n"
    )
    put(user_path)
    assert invoke("localrun", "allow", CLOUD).exit_code == 0
    assert read_config().allow == (CLOUD,)
    assert invoke("localrun", "allow").stdout == f"{CLOUD}\n"
    assert json.loads(invoke("localrun", "allow", "--json").stdout) == [CLOUD]
    put(user_path)
    done = invoke("localrun", "allow", "--remove", "local-gpt-oss-120b")
    assert done.stdout == f"{CLOUD} is now refused.\n"
    assert read_config().allow == ()
    put(user_path)
    message = one_error(invoke("localrun", "allow", "--remove", CLOUD))
    assert message == f"{CLOUD} is not allowed. `llm localrun allow` lists the allowed models."


def test_missing_model_can_be_refused_again(user_path: Path, invoke: Invoke) -> None:
    configure(user_path, **CONFIG, allow=["local/ollama/gone:cloud"])
    assert invoke("localrun", "allow", "--remove", "local/ollama/gone:cloud").exit_code == 0
    assert read_config().allow == ()


@pytest.mark.parametrize(
    ("name", "where"),
    [("local-smollm2", RunsOn.THIS_MACHINE), ("local-bge", RunsOn.ANOTHER_MACHINE)],
)
def test_models_that_need_no_permission(
    user_path: Path, invoke: Invoke, name: str, where: str
) -> None:
    put(user_path)
    done = invoke("localrun", "allow", name)
    assert done.stderr.endswith(f" runs on {where}: no permission is needed.\n")
    assert read_config().allow == ()


def test_list_without_allowed_models(invoke: Invoke) -> None:
    done = invoke("localrun", "allow")
    assert (done.exit_code, done.stdout) == (0, "")
    assert invoke("localrun", "allow", "--remove").exit_code == 2
