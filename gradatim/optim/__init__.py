"""Optimisers from the gradient literature, as optax gradient transformations."""

from .diffgrad import ScaleByDiffgradState as ScaleByDiffgradState
from .diffgrad import diffgrad as diffgrad
from .diffgrad import diffgrad_friction as diffgrad_friction
from .diffgrad import scale_by_diffgrad as scale_by_diffgrad
from .objectives import Objective as Objective
from .objectives import notched_valley as notched_valley
from .objectives import ramp_to_waves as ramp_to_waves
from .objectives import two_parabolas as two_parabolas
