"""The laboratory: claims, runs and records."""

from typing import TYPE_CHECKING, Any

from .claims import Claim as Claim
from .claims import ClaimPart as ClaimPart
from .claims import Criterion as Criterion
from .config import Between as Between
from .config import OneOf as OneOf
from .config import validate as validate
from .findings import Findings as Findings
from .measures import Measure as Measure
from .paper import Paper as Paper
from .paper import read_paper as read_paper
from .ranks import rank_correlation as rank_correlation
from .records import Record as Record
from .records import latest as latest
from .records import list_records as list_records
from .records import open_record as open_record
from .registry import find as find
from .registry import papers as papers
from .run import RunOutcome as RunOutcome
from .run import RunRequest as RunRequest
from .run import run_papers as run_papers
from .run import supervise as supervise
from .scorecard import check_scorecard as check_scorecard
from .scorecard import read_scorecard as read_scorecard
from .scorecard import regressions as regressions
from .scorecard import update_scorecard as update_scorecard
from .template import new_paper as new_paper

if TYPE_CHECKING:
    from .draws import host_generator as host_generator
    from .loop import Loop as Loop
    from .loop import NonFiniteError as NonFiniteError
    from .session import Session as Session
    from .sweeps import Sweep as Sweep
    from .sweeps import best_by_others as best_by_others
    from .sweeps import choice_by_others as choice_by_others
    from .sweeps import epochs as epochs
    from .sweeps import learning_rate_sweep as learning_rate_sweep
    from .sweeps import time_to_target as time_to_target

# What imports JAX comes when it is asked for: the command line reads claims and records without it.
_WITH_JAX = {
    "Loop": "loop",
    "NonFiniteError": "loop",
    "Session": "session",
    "Sweep": "sweeps",
    "best_by_others": "sweeps",
    "choice_by_others": "sweeps",
    "epochs": "sweeps",
    "host_generator": "draws",
    "learning_rate_sweep": "sweeps",
    "time_to_target": "sweeps",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WITH_JAX[name]}"), name)
