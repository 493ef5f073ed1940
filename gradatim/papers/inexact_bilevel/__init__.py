"""Bilevel learning without exact lower solutions (Salehi et al., arXiv:2308.10098): quadratics, penalties, denoising.

Constants are bounds, not estimates, so that every certificate means what it says; for the penalties, where those are too pessimistic to
go far with, the authors' own assumption stands beside them. Digits stand in for the 12 × 12 MNIST of the paper,
pieces of two photographs for its images, and the filters of the field of experts are fixed cosines, whose weights and roundings are
learned.
"""

from __future__ import annotations

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Denoising as Denoising
from .config import Penalties as Penalties
from .config import Quadratic as Quadratic
from .config import Well as Well
from .denoising import run_denoising
from .figures import draw as draw
from .judging import judge
from .penalties import run_penalties
from .quadratics import run_quadratic, run_well

PRECISION = "double"
SCALES = {
    "smoke": Config(
        quadratic=Quadratic(rows=8, columns=4, work=1500, draws=3),
        well=Well(draws=3),
        penalties=Penalties(samples=40, work=300, looks=2, precision=1e-2),
        denoising=Denoising(
            side=12, images=2, fixed=(1.0, 1e-3), work=600, experts_work=300, filter_side=2, coarse_grid=(2, 2), precision=3e-1
        ),
    ),
    "laptop": Config(),
    "full": Config(
        quadratic=Quadratic(work=1_000_000),
        well=Well(draws=30),
        penalties=Penalties(work=1_000_000, shuffles=10),
        denoising=Denoising(side=96, images=10, repeats=10, work=200_000, experts_work=1_000_000, filter_side=7, coarse_grid=(17, 11)),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: the answers of all filters at all places, kept for two derivatives, and the matrices of the quadratic problem."""
    denoising, quadratic = config.denoising, config.quadratic
    answers = denoising.images * denoising.side**2 * 2 * denoising.filter_side**2
    return int(8 * (12 * answers + 9 * quadratic.rows * quadratic.columns))


def run(config: Config, session: Session) -> Findings:
    """The four problems, then what they say together."""
    trees = {
        **run_quadratic(config.quadratic, session),
        **run_well(config.well, session),
        **run_penalties(config.penalties, session),
        **run_denoising(config.denoising, session),
    }
    return judge(trees, session)
