"""What the networks are measured against: fields and characteristics on one grid of places and times."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from gradatim.lab import Session
from gradatim.sciml import reference_burgers, reference_convection_diffusion

from .config import Config

PERIOD, HORIZON = 2 * math.pi, 1.0
SNAPSHOTS = 100
PLACES = 64
"Of the grid on which networks are measured; labels, too."
EVERY = 2
"Snapshots from one time of that grid to the next."


class Truth(NamedTuple):
    """Burgers from sin x at rest, from which a mean only carries it away, at all snapshots."""

    diffusivity: float
    t: np.ndarray  # (snapshots,)
    field: np.ndarray  # (snapshots, cells)
    displacement: np.ndarray  # (snapshots, labels)
    jacobian: np.ndarray

    @property
    def times(self) -> np.ndarray:
        """Of the grid."""
        return self.t[::EVERY]

    @property
    def places(self) -> np.ndarray:
        """Of the grid."""
        return PERIOD * np.arange(PLACES) / PLACES

    def burgers(self, mean: float) -> np.ndarray:
        """All snapshots less their mean c, at all cells: u(x - c t) of the one at rest, moved by its Fourier coefficients."""
        waves = np.arange(self.field.shape[1] // 2 + 1)
        return np.fft.irfft(np.fft.rfft(self.field, axis=1) * np.exp(-1j * mean * waves[None] * self.t[:, None]), axis=1)

    def on_grid(self, equation: str, speed: float) -> tuple[np.ndarray, np.ndarray]:
        """Fields less their mean, and displacements X - ξ, (times, places) each."""
        if equation == "Burgers":
            fields = self.burgers(speed)[::EVERY, :: self.field.shape[1] // PLACES]
            return fields, self.displacement[::EVERY] + speed * self.times[:, None]
        initial = jnp.sin(jnp.asarray(self.places))
        field = reference_convection_diffusion(initial, jnp.asarray(self.times), speed=speed, diffusivity=self.diffusivity)
        return np.asarray(field, np.float64), np.broadcast_to(speed * self.times[:, None], field.shape)


def solve(config: Config, session: Session) -> Truth:
    """The solution at rest with its characteristics."""
    found = session.once("reference", _burgers, config.cells, jnp.asarray(config.diffusivity))
    labels = PERIOD * np.arange(PLACES) / PLACES
    t, field, paths, jacobian = (np.asarray(found[name], np.float64) for name in ("t", "field", "paths", "jacobian"))
    return Truth(config.diffusivity, t, field, paths - labels, jacobian)


@eqx.filter_jit
def _burgers(n_cells: int, diffusivity: jnp.ndarray) -> dict[str, jnp.ndarray]:
    x, labels = (PERIOD * jnp.arange(n) / n for n in (n_cells, PLACES))
    # Five steps of 1/500 cross a cell of 512 five times over at speed one.
    return reference_burgers(jnp.sin(x), labels, diffusivity=diffusivity, horizon=HORIZON, n_snapshots=SNAPSHOTS)._asdict()
