"""Measures of a microstructure: where interfaces and particles are, how large, and what a profile says about Q*."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from .free_energy import GAS_CONSTANT


class Particles(NamedTuple):
    """The particles of one field: `labels` is 0 in the matrix and i + 1 in particle i."""

    areas: np.ndarray
    centroids: np.ndarray
    labels: np.ndarray


def indicator(phase: Float[Array, ...]) -> Float[Array, ...]:
    """A smooth 0 … 1 of the phase, φ³(10 - 15 φ + 6 φ²) on [0, 1], whose integral is the precipitate's area.

    Counting cells above 1/2 jumps by cells; ∫φ itself counts a supersaturated matrix as precipitate. This does neither: it is odd
    about 1/2, as an interface is, and flat to second order at 0 and 1.

    >>> print(" ".join(f"{p:.3f}" for p in indicator(jnp.array([-0.1, 0.1, 0.5, 0.9]))))
    0.000 0.009 0.500 0.991
    """
    p = jnp.clip(phase, 0, 1)
    return p**3 * (10 - 15 * p + 6 * p**2)


def centre_of_mass(density: Float[Array, "nx ..."], x: Float[Array, " nx"]) -> Float[Array, ""]:
    """∫ x ρ / ∫ ρ along the first axis, of any density: c itself, or `indicator(phase)` for the precipitates alone.

    >>> print(centre_of_mass(jnp.array([0.0, 1.0, 3.0]), jnp.array([0.0, 1.0, 2.0])))
    1.75
    """
    along = density.reshape(density.shape[0], -1).sum(1)
    return (x * along).sum() / along.sum()


def interface_positions(phase: Float[Array, " nx"], x: Float[Array, " nx"]) -> Float[Array, 2]:
    """The first rise of φ through 1/2 and the last fall after it, to a small fraction of a cell; NaN for one that is not there.

    Between two cells artanh(2φ - 1) is taken to be linear, as it is in the tanh profile of an interface at rest. A slab that has reached
    a wall has lost that interface. Works under jit, vmap and grad.

    >>> x = jnp.arange(40.0)
    >>> faces = interface_positions((jnp.tanh((x - 10.3) / 2.5) - jnp.tanh((x - 29.6) / 2.5)) / 2, x)
    >>> print(" ".join(f"{face:.2f}" for face in faces))
    10.30 29.60
    """
    above = phase > 0.5
    rises, falls = ~above[:-1] & above[1:], above[:-1] & ~above[1:]
    height = jnp.arctanh(jnp.clip(2 * phase - 1, -1 + 1e-6, 1 - 1e-6))

    def crossing(found: Array, i: Array) -> Array:
        rise = height[i + 1] - height[i]
        position = x[i] - (x[i + 1] - x[i]) * height[i] / jnp.where(rise == 0, 1, rise)
        return jnp.where(found.any(), position, jnp.nan)

    return jnp.stack([crossing(rises, jnp.argmax(rises)), crossing(falls, falls.size - 1 - jnp.argmax(falls[::-1]))])


def elongation(phase: Float[Array, "nx ny"], dx: float = 1.0) -> Float[Array, ""]:
    """The ratio of a lone particle's root-mean-square widths along x and along y (y not wrapped); 1 for a disc.

    >>> print(f"{elongation(jnp.zeros((20, 20)).at[5:15, 8:12].set(1.0)):.2f}")
    2.57
    """
    weight = indicator(phase) / indicator(phase).sum()
    widths = []
    for axis in range(2):
        along = weight.sum(1 - axis)
        x = dx * jnp.arange(along.size)
        widths.append(((x - (x * along).sum()) ** 2 * along).sum())
    return jnp.sqrt(widths[0] / widths[1])


def label_particles(phase: np.ndarray | Float[Array, "nx ny"], *, dx: float = 1.0, at_least: int = 4) -> Particles:
    """Connected regions above 1/2 of at least so many cells, periodic along y; each cell's area goes to the nearest of them.

    **Returns:** areas ∫`indicator`, centroids (x, y) with y wrapped into the box, labels. On the host, in NumPy.

    >>> phase = np.zeros((12, 8))
    >>> phase[1:4, 2:4] = phase[7:9, [0, 1, 7]] = 1
    >>> found = label_particles(phase)
    >>> print(found.areas, found.centroids.round(1).tolist())
    [6. 6.] [[2.5, 3.0], [8.0, 0.5]]
    """
    phase = np.asarray(phase)
    ny = phase.shape[1]
    labels = np.zeros(phase.shape, np.int32)
    ndimage.label(phase > 0.5, output=labels)
    # Merge what touches across the periodic edge, following chains of merges to their least label.
    parent = np.arange(labels.max() + 1)
    for a, b in zip(labels[:, 0], labels[:, -1], strict=True):
        if a and b:
            low, high = sorted((parent[a], parent[b]))
            parent[parent == high] = low
    labels = parent[labels]
    kept = [label for label in np.unique(labels) if label and (labels == label).sum() >= at_least]
    labels = np.select([labels == label for label in kept], range(1, len(kept) + 1), 0) if kept else np.zeros_like(labels)
    if not kept:
        return Particles(np.zeros(0), np.zeros((0, 2)), labels)
    pad = ny // 2
    wide = np.pad(labels, ((0, 0), (pad, pad)), mode="wrap")
    nearest = np.asarray(ndimage.distance_transform_edt(wide == 0, return_distances=False, return_indices=True))
    owner = wide[tuple(nearest)][:, pad : pad + ny]
    weight = np.asarray(indicator(jnp.asarray(phase)))
    n = len(kept) + 1
    areas = np.bincount(owner.ravel(), weight.ravel(), n)[1:]
    x, y = np.indices(phase.shape)
    along_x = np.bincount(owner.ravel(), (weight * x).ravel(), n)[1:] / areas
    turns = [np.bincount(owner.ravel(), (weight * part(2 * np.pi * y / ny)).ravel(), n)[1:] for part in (np.sin, np.cos)]
    # Twice, for the remainder of a negative rounding is ny itself.
    along_y = (np.arctan2(*turns) / (2 * np.pi) * ny + 0.5) % ny % ny
    return Particles(areas * dx**2, dx * np.stack([along_x + 0.5, along_y], 1), labels)


def heat_of_transport_from_profile(concentration: Float[Array, ...], temperature: Float[Array, ...]) -> Float[Array, ""]:
    """Q* in J/mol from a profile at rest: R times the least-squares slope of ln(c/(1 - c)) against 1/T.

    Exact for the ideal solution; ln c, as Darken and Oriani took, is its dilute limit.

    >>> T = jnp.linspace(973.15, 1073.15, 65)
    >>> print(f"{heat_of_transport_from_profile(1e-9 * jnp.exp(-100e3 / (GAS_CONSTANT * T) + 12), T) / 1e3:.0f} kJ/mol")
    -100 kJ/mol
    """
    inverse = 1 / temperature
    centred = inverse - inverse.mean()
    logit = jnp.log(concentration) - jnp.log1p(-concentration)
    return GAS_CONSTANT * (centred * logit).sum() / (centred**2).sum()
