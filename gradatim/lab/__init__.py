"""The laboratory: claims, runs and records."""

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
