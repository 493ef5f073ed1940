"""The deep conjugate direction method (arXiv:2205.10763): a network's guess at the solution as the next direction of a Krylov method.

Two dimensions and 32 × 32 cells, with grids twice and three times as wide, take the place of 64³ to 256³, of which the full scale has 64³
to 192³; 256 Ritz vectors take that of 10,000, and a few hundred steps of training that of days. Right-hand sides for testing are sums of
smooth blobs and white noise in place of the divergence of smoke. Networks, weights of the spectrum, tolerance and the two earlier
directions are the authors'.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Session, host_generator
from gradatim.sciml import PoissonSystem, box_with_ball, host_conjugate_gradients, ritz_vectors

from . import problems
from .config import Config as Config
from .config import Training as Training
from .figures import draw as draw
from .judging import judge, larger_sides
from .solving import MOST_STEPS, RTOL, TIGHT, all_curves, dataset, direction_of, timed
from .training import train

PRECISION = "double"
_SMALL = Training(channels=8, pairs=(0, 1, 0), ritz_steps=20, samples=200, batch_size=8, steps=80, learning_rate=5e-3, seeds=3)
SCALES = {
    "smoke": Config(
        side=8, with_larger=False, training=_SMALL, right_hand_sides=2, histories=(0, 2, 10), max_steps=60, deflated=4, repeats=3
    ),
    "laptop": Config(),
    "full": Config(
        dimensions=3, side=64, training=Training(ritz_steps=1000, samples=5000, steps=10_000), right_hand_sides_larger=1, max_steps=1000
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: Ritz vectors, one network's right-hand sides, activations of a batch or the largest grid."""
    settings, cells = config.training, config.side**config.dimensions
    larger = (config.right_hand_sides_larger * side**config.dimensions for side in larger_sides(config))
    largest = max(config.right_hand_sides * cells, *larger, 0)
    spectrum = 8 * cells * 3 * settings.ritz_steps
    drawn = 4 * 3 * settings.samples * (cells + settings.ritz_steps)
    learning = 4 * settings.channels * 2 * (5 + 2 * sum(settings.pairs)) * settings.batch_size * cells
    # In the network's convolutions, all windows along the last axis, for each of the windows along the others.
    copies = 6 + 2 * 3 ** (config.dimensions - 1)
    solving = 4 * settings.channels * copies * largest + 8 * 2 * (max(config.histories) + 4) * largest
    return spectrum + drawn + max(learning, solving)


def run(config: Config, session: Session) -> Findings:
    """Training on the empty box; then box, disk and larger boxes, and the time."""
    _check(config)
    key_ritz, key_training, key_problems, key_disk = jax.random.split(session.key, 4)
    random = host_generator(key_problems)
    shape = (config.side,) * config.dimensions
    box, disk = PoissonSystem(np.ones(shape, bool)), PoissonSystem(box_with_ball(shape, radius=config.radius))
    steps = min(config.training.ritz_steps, config.side**config.dimensions)
    basis = ritz_vectors(box.operator(), steps, key=key_ritz)
    trained = train(config, box, basis, session, key_training)
    trees: dict[str, xr.Dataset] = {"training": trained.data, "spectrum": trained.spectrum}

    n_seeds = config.training.seeds

    def sides(system: PoissonSystem, n: int, make=problems.smooth) -> np.ndarray:
        fluid = np.asarray(system.is_fluid)
        return make(random, fluid, n_seeds * n).reshape(n_seeds, n, *fluid.shape)

    # Drawn in one order whatever is read from a checkpoint.
    on_box, on_disk = (sides(system, config.right_hand_sides) for system in (box, disk))
    of_noise = sides(box, config.right_hand_sides, problems.noise)
    larger = {side: PoissonSystem(np.ones((side,) * config.dimensions, bool)) for side in larger_sides(config)}
    on_larger = {side: sides(system, config.right_hand_sides_larger) for side, system in larger.items()}

    ritz_disk = ritz_vectors(disk.operator(), steps, key=key_disk)
    for name, system, b, ritz in (("box", box, on_box, basis), ("noise", box, of_noise, basis), ("disk", disk, on_disk, ritz_disk)):

        def solved(system=system, b=b, ritz=ritz) -> dict[str, np.ndarray]:
            return all_curves(config, trained.networks, system, b, config.histories, TIGHT, ritz)

        trees[name] = dataset(session.once(f"solves: {name}", solved), (RTOL, TIGHT))
    for side, system in larger.items():

        def solved_larger(system=system, b=on_larger[side]) -> dict[str, np.ndarray]:
            return all_curves(config, trained.networks, system, b, config.histories_larger, RTOL)

        trees[f"box_{side}"] = dataset(session.once(f"solves: {side} cells", solved_larger), (RTOL,))
    trees["timing"] = timed(config, trained.networks[0], box, on_box, basis, session)
    trees["fields"] = _fields(trained.networks[0][0], disk, on_disk[0, 0])
    return judge(config, trees, session)


def _check(config: Config) -> None:
    for name, histories, needed in (
        ("histories", config.histories, {0, 2, 10}),
        ("histories_larger", config.histories_larger, {2}),
    ):
        if not needed <= set(histories):
            raise ValueError(f"{name} must hold {sorted(needed)}, got {histories}")
    if config.side % 2:
        raise ValueError(f"side must be even, got {config.side}")


def _fields(network, system: PoissonSystem, b: np.ndarray) -> xr.Dataset:
    """A right-hand side around the disk, its solution, and the network's direction for it; of a box in three dimensions the middle."""
    matrix = system.as_csr()
    solution = system.extend(host_conjugate_gradients(matrix, system.restrict(b), rtol=TIGHT, max_steps=MOST_STEPS)[0])
    direction = np.asarray(direction_of(network, jnp.asarray(b, jnp.float32)), np.float64) * np.asarray(system.is_fluid)
    image = np.asarray(matrix @ system.restrict(direction))
    direction = direction * (direction.ravel() @ b.ravel()) / (system.restrict(direction) @ image)
    fields = {"b": b, "solution": solution, "direction": direction, "is_fluid": np.asarray(system.is_fluid)}
    return xr.Dataset(
        {
            name: (("x", "y"), values if values.ndim == 2 else values[..., len(values) // 2], {"units": "1"})
            for name, values in fields.items()
        }
    )
