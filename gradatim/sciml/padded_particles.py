"""Systems of different numbers of particles in arrays of one shape, and a mask of which particles each has.

What one graph network learns from pairs and triples together needs one shape for both: the smaller systems get particles at zero that are
marked as absent, and nothing is known, learned or averaged over these.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from .hamiltonian import FieldPoints, HamiltonianField
from .hamiltonian_networks import HamiltonianGCN


class ParticlePoints(NamedTuple):
    """Where a field is known: states, their rates of change, and which particles are present."""

    states: Float[Array, "*batch size"]
    rates: Float[Array, "*batch size"]
    present: Bool[Array, "*batch n"]


def pad_particles(points: FieldPoints, n_present: int, *, n_particles: int) -> ParticlePoints:
    """The points of systems of `n_present` particles as those of `n_particles`, of which the last are absent.

    **Arguments:** `points`: of flat states (q, p), each particle by particle; `n_present`: from 1 to `n_particles`.

    **Raises:** `ValueError` for numbers out of this range, or a size of states that is not 2 `n_present` times that of a coordinate.

    >>> pair = jnp.arange(8.0)
    >>> padded = pad_particles(FieldPoints(pair, pair), 2, n_particles=3)
    >>> padded.states.tolist(), padded.present.tolist()
    ([0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 4.0, 5.0, 6.0, 7.0, 0.0, 0.0], [True, True, False])
    """
    *batch, size = points.states.shape
    if not 1 <= n_present <= n_particles:
        raise ValueError(f"n_present must lie between 1 and n_particles = {n_particles}, got {n_present}")
    if size % (2 * n_present):
        raise ValueError(f"the size of a state of {n_present} particles must be a multiple of {2 * n_present}, got {size}")

    def padded(x: Float[Array, "*batch size"]) -> Float[Array, "*batch padded"]:
        parts = x.reshape(*batch, 2, n_present, -1)
        widths = [(0, 0)] * (parts.ndim - 2) + [(0, n_particles - n_present), (0, 0)]
        return jnp.pad(parts, widths).reshape(*batch, -1)

    present = jnp.broadcast_to(jnp.arange(n_particles) < n_present, (*batch, n_particles))
    return ParticlePoints(padded(points.states), padded(points.rates), present)


def particle_field_at(
    network: HamiltonianGCN, states: Float[Array, "points size"], present: Bool[Array, "points n"]
) -> Float[Array, "points size"]:
    """The field of a graph network at many states; zero for absent particles.

    >>> from gradatim.sciml import HamiltonianMLP
    >>> network = HamiltonianGCN(HamiltonianMLP(2, 8, 2, key=jax.random.key(0)), 2, key=jax.random.key(1))
    >>> field = particle_field_at(network, jnp.ones((1, 4)), jnp.array([[True, False]]))
    >>> (field != 0).tolist()
    [[True, False, True, False]]
    """
    return jax.vmap(lambda x, present: HamiltonianField(lambda x: network(x, present))(0.0, x))(states, present)


def log_cosh_particle_loss(network: HamiltonianGCN, points: ParticlePoints) -> Float[Array, ""]:
    """Mean of log cosh(J ∇H(x) - ẋ) over points and the components of present particles.

    [`log_cosh_field_loss`][gradatim.sciml.log_cosh_field_loss] where all are present; padding does not change it.

    >>> from gradatim.sciml import HamiltonianMLP
    >>> particle = HamiltonianMLP(2, 8, 2, key=jax.random.key(0))
    >>> points = FieldPoints(jnp.ones((1, 2)), jnp.zeros((1, 2)))
    >>> losses = [
    ...     log_cosh_particle_loss(HamiltonianGCN(particle, n, key=jax.random.key(1)), pad_particles(points, 1, n_particles=n))
    ...     for n in (1, 3)
    ... ]
    >>> print(f"{abs(losses[1] - losses[0]):.5f}")
    0.00000
    """
    per_particle = points.states.shape[-1] // (2 * points.present.shape[-1])
    known = jnp.tile(jnp.repeat(points.present, per_particle, axis=-1), 2)
    rates = particle_field_at(network, points.states, points.present)
    return jnp.mean(optax.losses.log_cosh(rates, points.rates), where=known)
