"""Driven electrolytes and polar chemotaxis (arXiv:2207.00467): correlations, forces between plates, ions, and critical scaling.

The article's text could not be read: equations are written from the abstracts and from what is known of the field, and were derived anew;
its figures give no numbers to compare with beyond the exponents.
"""

from __future__ import annotations

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Correlations as Correlations
from .config import Ions as Ions
from .config import Line as Line
from .config import Plane as Plane
from .config import Plates as Plates
from .config import Vertices as Vertices
from .correlations import run_correlations
from .figures import draw as draw
from .ions import run_ions
from .line import run_line
from .plane import run_plane
from .plates import run_plates
from .settling import run_settling
from .vertices import run_vertices

PRECISION = "double"
SCALES = {
    "smoke": Config(
        correlations=Correlations(cells=16, samples=100, smallest_samples=400, settling_samples=240, space_cells=48),
        plates=Plates(fields=12, times=6),
        ions=Ions(pairs=64, cells=16, steps=400),
        line=Line(cells=64, warm_steps=1000, steps=4000, every=40, seeds=3, window=(2, 6), control_window=(8, 12)),
        # All windows hold five shells, and fits of equal shapes are one program.
        plane=Plane(
            cells=24,
            warm_steps=600,
            steps=2400,
            dt=0.01,
            every=40,
            seeds=3,
            window=(2, 6),
            life_window=(3, 7),
            control_window=(3, 7),
            sides=(2, 3, 4, 5, 6),
        ),
        vertices=Vertices(cells=32),
    ),
    "laptop": Config(),
    "full": Config(
        correlations=Correlations(cells=256, samples=4000, smallest_samples=200_000, space_cells=256),
        ions=Ions(pairs=100_000, cells=224, steps=200_000),
        line=Line(cells=4096, warm_steps=200_000, steps=1_000_000, seeds=16, control_window=(32, 128)),
        plane=Plane(cells=256, warm_steps=200_000, steps=400_000, seeds=8, sides=(4, 6, 8, 12, 16, 24, 32, 48, 64)),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: the spectra of the cube and of all sampled modes in double precision, and the records of the critical theory."""
    correlations, line, plane = config.correlations, config.line, config.plane
    cube = 12 * 16 * correlations.space_cells**3
    sampled = 12 * 16 * len(correlations.fields) * correlations.seeds * correlations.cells**2
    sampled += 12 * 16 * correlations.settling_samples * 8 * 3
    records = 8 * (line.steps // line.every) * 3 * line.seeds * max(line.window[1], line.control_window[1])
    records += 8 * (plane.steps // plane.every) * 3 * plane.seeds * 4 * max(plane.life_window[1], plane.control_window[1]) ** 2
    # Each loop keeps a copy of its state besides.
    return cube + sampled + 4 * records + 100 * plane.seeds * plane.cells**2 + 200 * config.ions.pairs


def run(config: Config, session: Session) -> Findings:
    """The seven experiments, one after another."""
    parts = [
        run_correlations(config.correlations, session),
        run_settling(config.correlations, session),
        run_plates(config.plates, session),
        run_ions(config.ions, session),
        run_vertices(config.vertices, session),
        run_line(config.line, session),
        run_plane(config.plane, session),
    ]
    return Findings.joined(parts)
