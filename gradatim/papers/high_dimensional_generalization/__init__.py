"""Generalisation in high dimensions (arXiv:1710.03667): linear theory beside draws, random first layers, digits, trained networks.

The article's full text was not at hand: formulas are derived anew from its set-up, sizes of its nonlinear figures are ours where the
captions do not give them, and so are the constants of the complexity bounds.
"""

from __future__ import annotations

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Digits as Digits
from .config import Linear as Linear
from .config import Students as Students
from .config import Trained as Trained
from .digits import run_digits
from .figures import draw as draw
from .linear import run_linear
from .students import run_students
from .theory import run_theory
from .training import run_trained

PRECISION = "double"
SCALES = {
    "smoke": Config(
        linear=Linear(parameters=100, ratios=(0.25, 0.5, 1.0, 2.0, 4.0), draws=15, teachers=16, motion_steps=200),
        students=Students(
            samples=12, widths=(0.25, 0.5, 1.0, 2.0, 8.0), trials=6, scaled=(2.0,), scaled_trials=6,
            spectrum_samples=60, spectrum_inputs=30, spectrum_draws=3,
        ),
        digits=Digits("digits", pool=8, samples=60, test=200, widths=(0.25, 0.5, 1.0, 2.0, 4.0), seeds=3),
        trained=Trained(samples=50, test=500, widths=(4, 32), rates=(1e-2,), steps=60),
    ),
    "laptop": Config(),
    "full": Config(
        linear=Linear(parameters=1000, draws=100),
        students=Students(trials=500, scaled=(2.0, 4.0, 8.0), scaled_trials=50, spectrum_draws=50),
        digits=Digits("fashion-mnist", samples=2000, test=5000, seeds=10),
        trained=Trained(samples=300, test=5000, widths=(4, 16, 64, 256, 1024, 4096), steps=100_000, seeds=10),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: of the largest draw of each experiment, its weights at all times above all."""
    linear, students, digits, trained = config.linear, config.students, config.digits, config.trained
    rows = linear.parameters * max(linear.ratios)
    draws = 4 * rows * linear.parameters + 3 * linear.parameters**2 + 5 * 24 * linear.parameters * linear.teachers
    units = max(students.widths) * students.samples * max(1.0, max(students.scaled) / 4)
    layers = 8 * units**2 + 4 * units * students.samples * max(students.scaled)
    features = digits.samples * max(digits.widths)
    images = 3 * features * (digits.samples + digits.test) + 3 * 26 * 10 * (features + digits.test)
    hidden = sum(trained.widths) * len(trained.rates) * trained.seeds
    networks = 2 * hidden * (students.inputs * 4 + trained.test)
    return int(8 * max(draws, layers, images, networks))


def run(config: Config, session: Session) -> Findings:
    """Theory, draws, random first layers, images, trained networks."""
    return Findings.joined(
        [
            run_theory(session),
            run_linear(config.linear, session),
            run_students(config.students, session),
            run_digits(config.digits, session),
            run_trained(config.trained, config.students, session),
        ]
    )
