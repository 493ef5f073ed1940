"""Gauge freedom of diffusion models (arXiv:2402.03845): what may be added to a score, and what that changes.

Normal data and the sphere have scores in closed form, and all that is said of exact fields is judged on them. The learned part is small
like the paper's own: a rolled sheet and a sphere in three and five dimensions. The full text was not at hand, and the networks are not the
authors': both kinds are made of the same denoiser, the gradient one through ψ = -‖x - a f‖² / (2 m²), with as many parameters. The time
runs from noise to data.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Exact as Exact
from .config import Learned as Learned
from .config import Penalised as Penalised
from .figures import draw as draw
from .judging import judge
from .networks import data_sets, train
from .normal import run_normal
from .penalised import run_penalised
from .reading import read_networks
from .sphere import run_sphere

PRECISION = "double"
SCALES = {
    "smoke": Config(
        exact=Exact(dims=(3,), starts=4, samples=128, replicates=3, steps=60, directions=8),
        learned=Learned(
            dims=(3,), points=256, width=16, depth=1, batch_size=64, steps=20, rates=(3e-3,), pilot_steps=50, starts=0, samples=128,
            features=20, seeds=3,
        ),
        penalised=Penalised(width=16, batch_size=64, steps=10, seeds=3),
    ),
    "laptop": Config(),
    "full": Config(
        exact=Exact(starts=1000, samples=20_000, replicates=50, steps=1000, directions=100),
        learned=Learned(
            points=100_000, width=256, depth=4, batch_size=1024, steps=100_000, rates=(1e-4, 3e-4, 1e-3, 3e-3), pilot_steps=20_000,
            seeds=10, starts=500, samples=20_000, features=500,
        ),
        penalised=Penalised(width=256, batch_size=1024, steps=50_000, learning_rate=1e-3, seeds=10),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: gradients of the projection's basis, distances to all data, samples of the sphere, networks and their activations."""
    exact, learned = config.exact, config.learned
    dim = max(learned.dims)
    basis = 8 * 4 * 2 * learned.samples * dim * (learned.features + 2)
    distances = 8 * 4 * 128 * learned.points
    samples = 8 * 12 * exact.replicates * exact.samples * 3 + 8 * 12 * exact.samples * (3 * exact.steps + 40)
    n_networks = 4 * learned.seeds
    weights = 4 * 6 * n_networks * learned.depth * (learned.width + 1) * learned.width
    # Gradients of a gradient hold every layer several times over.
    activations = 4 * 12 * n_networks * learned.batch_size * learned.depth * learned.width
    return basis + distances + samples + weights + activations


def run(config: Config, session: Session) -> Findings:
    """What is exact first, then what networks learn."""
    key_normal, key_sphere, key_train, key_read, key_penalty, key_data = jax.random.split(session.key, 6)
    trees: dict[str, xr.Dataset] = run_normal(session, key_normal)
    trees |= run_sphere(config, session, key_sphere)
    data = data_sets(config.learned, key_data)
    networks, training = train(config, session, key_train, data)
    trees |= training | read_networks(config, session, key_read, networks, data)
    trees |= run_penalised(config, session, key_penalty)
    return judge(config, trees, session)
