"""Models that `pull` has downloaded: finding them by name, and checking for newer versions.

Deleting a model is left to `pull.remove`, downloading it to `pull.plan`.
"""

from dataclasses import dataclass
from enum import Enum

from llm_localrun.catalogue import get_catalogue
from llm_localrun.config import read_config
from llm_localrun.errors import LocalRunError, UnknownModel
from llm_localrun.models import LocalModel
from llm_localrun.name_cache import CachePolicy
from llm_localrun.pull.plan import PullPlan, plan_pull
from llm_localrun.pull.records import QUANTIZED, PullRecord, read_records
from llm_localrun.pull.refs import parse_ref
from llm_localrun.pull.remove import records_of
from llm_localrun.resolve import candidates, order_of
from llm_localrun.system.progress import Progress, working


@dataclass(frozen=True, slots=True)
class Target:
    """What a name means to a command that deletes or replaces: a model, its records, or both."""

    model: LocalModel | None
    records: list[PullRecord]


def find_target(name: str) -> Target:
    """The model `name`, or what was pulled by the REF `name`. Looks for models again first.

    Raises `UnknownModel`, also if several models share the name: a model that is deleted or
    replaced must be named exactly.
    """
    records = read_records()
    snapshot = get_catalogue(CachePolicy.REFRESH)
    if pulled := [record for record in records if record.ref == name]:
        model = next((m for m in snapshot.models if records_of(m, pulled)), None)
        return Target(model, pulled)
    found = candidates(name, snapshot.models, order_of(read_config(), snapshot))
    if len(found) > 1:
        ids = ", ".join(model.id for model in found)
        raise UnknownModel(f"'{name}' can mean several models", f"Give the id of one: {ids}")
    return Target(found[0], records_of(found[0], records))


def present_records() -> list[PullRecord]:
    """The records of pulls whose files all exist: the user may have deleted some by hand."""
    records = (record for record in read_records() if record.source != QUANTIZED)
    return [record for record in records if all(path.exists() for path in record.paths)]


class VersionState(str, Enum):
    """How a pulled model compares with its source."""

    NEWER = "newer"
    CURRENT = "up to date"
    UNKNOWN = "unknown"
    """The source does not say."""
    FAILED = "failed"
    """The source could not be asked."""

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """What the source of a pulled model offers now. `plan` is None if the check failed."""

    record: PullRecord
    state: VersionState
    plan: PullPlan | None = None
    problem: str = ""


def check_version(record: PullRecord) -> VersionCheck:
    """Asks the source of a pulled model for its current version. Downloads nothing."""
    try:
        with working(Progress(f"looking for a newer version of {record.shown_ref}")):
            planned = plan_pull(parse_ref(record.ref))
    except LocalRunError as error:
        return VersionCheck(record, VersionState.FAILED, problem=str(error))
    is_newer = planned.differs_from(record)
    if is_newer is None:
        remedy = "`llm localrun update` downloads it again"
        return VersionCheck(record, VersionState.UNKNOWN, planned, remedy)
    return VersionCheck(record, VersionState.NEWER if is_newer else VersionState.CURRENT, planned)
