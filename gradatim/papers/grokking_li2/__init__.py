"""Features of a group's table, how they are found, and from how few examples (Tian, arXiv:2509.21519).

Three stages: a read-out on random features, whose gradient is known in closed form; nodes that climb an energy each for itself; nodes that
share out what is left. Networks are trained as the authors train them: all pairs at once, squared error with outputs centred over the
answers, Adam with weight decay in the gradient. The energies at the maxima are four times those that the article prints. Orders, widths
and epochs are cut to fit a laptop; groups that are not commutative stand beside the cyclic ones.
"""

from __future__ import annotations

import math

import jax

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Decays as Decays
from .config import Few as Few
from .config import Grams as Grams
from .config import Lazy as Lazy
from .config import Maxima as Maxima
from .config import Phase as Phase
from .config import Solved as Solved
from .config import Starts as Starts
from .config import Window as Window
from .figures import draw as draw
from .grokking import n_pairs, run_decays, run_few, run_grams, run_phase, run_solved, run_starts, run_window
from .lazy import run_lazy, run_simple_form
from .maxima import run_maxima
from .tables import run_tables

PRECISION = "double"
SCALES = {
    # One order, width and number of networks throughout: what is trained by Adam is compiled once.
    "smoke": Config(
        lazy=Lazy(descent_steps=1000, relative_decays=(1.0,)),
        maxima=Maxima(orders=(7,), beside=("cyclic, 8",), nodes=32, steps=300),
        decays=Decays(order=8, train_fraction=0.4, width=16, few_nodes=16, epochs=10),
        grams=Grams(order=8, width=16, few_nodes=16, epochs=10, seeds=6),
        phase=Phase(orders=(8,), sides=(4,), constants=(1.2, 1.9), width=16, epochs=10),
        window=Window(order=8, constants=(1.9,), width=16, epochs=10, seeds=3),
        few=Few(8, 0.4, 16, adam_rates=(5e-3, 2e-2), muon_rates=(2e-2, 5e-2), epochs=10, pilots=3, seeds=6, tails=(1.0,), trials=1000),
        starts=Starts(8, scarce=0.4, ample=0.5, width=16, scarce_epochs=10, ample_epochs=10),
        solved=Solved((8, 8), 0.5, width=16, epochs=(10, 10), seeds=6),
    ),
    "laptop": Config(),
    "full": Config(
        maxima=Maxima(orders=(7, 23, 71, 127), nodes=256, steps=4000),
        decays=Decays(order=71, width=2048, few_nodes=256, epochs=2000, seeds=15),
        grams=Grams(width=2048, epochs=2000, seeds=15),
        phase=Phase(orders=(23, 31, 41, 59, 71, 97, 127), sides=(11, 15, 23, 31, 47, 63), width=2048, epochs=3000, seeds=20),
        window=Window(order=127, constants=(5.2,), rates=(1e-3, 5e-3), width=1024, epochs=10_000, seeds=15),
        few=Few(order=71, train_fraction=0.4, width=128, epochs=3000),
        starts=Starts(order=127, scarce=0.2, ample=0.4, width=1024, decay=5e-5, scarce_epochs=10_000, ample_epochs=1000, seeds=15),
        solved=Solved(orders=(23, 127), epochs=(2000, 1000), seeds=15),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes of the largest training: weights with Adam's moments and gradients, features of the pairs and their gradients."""
    decays, grams, phase, window, starts = config.decays, config.grams, config.phase, config.window, config.starts

    def scaled(constant: float, order: int) -> int:
        return n_pairs(constant * math.log(order) / order, order)

    trainings = [
        (decays.order, decays.width, decays.n_train, 2 * decays.seeds),
        (grams.order, grams.width, n_pairs(grams.train_fraction, grams.order), grams.seeds),
        *((n, phase.width, scaled(max(phase.constants), n), len(phase.constants) * phase.seeds) for n in phase.orders),
        (window.order, window.width, scaled(max(window.constants), window.order), 2 * len(window.constants) * window.seeds),
        (starts.order, starts.width, n_pairs(max(starts.ample, starts.scarce), starts.order), 2 * starts.seeds),
    ]
    sizes = (r * 4 * (6 * 3 * order * width + 4 * n * width) + 12 * order**2 * width for order, width, n, r in trainings)
    return int(max(sizes))


def run(config: Config, session: Session) -> Findings:
    """The three stages without training, then the trained networks."""
    keys = iter(jax.random.split(session.key, 11))
    return Findings.joined(
        [
            run_lazy(config.lazy, session, next(keys)),
            run_simple_form(config, session, next(keys)),
            run_maxima(config.maxima, session, next(keys)),
            run_tables(session, next(keys)),
            run_decays(config.decays, session, next(keys)),
            run_grams(config.grams, session, next(keys)),
            run_phase(config.phase, session, next(keys)),
            run_window(config.window, session, next(keys)),
            run_few(config.few, session, next(keys)),
            run_starts(config.starts, session, next(keys)),
            run_solved(config.solved, session, next(keys)),
        ]
    )
