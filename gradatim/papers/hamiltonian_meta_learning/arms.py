"""What is compared, and the runs that take part: networks that differ in activation, loss and the system that they never see."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from gradatim.sciml import FieldPoints, HamiltonianMLP, field_at, leave_one_out, mish

from .config import Config

VARIANTS = {"mish": ((1, 0, 0), 0), "tanh": ((0, 1, 0), 0), "softplus": ((0, 0, 1), 0), "squares": ((1, 0, 0), 1)}
"Shares of mish, tanh and softplus, and of the squared loss."


@jax.custom_jvp
def softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 + eˣ), whose derivatives are those of its first, the sigmoid: as cheap as those of its rivals."""
    return jnp.logaddexp(x, 0)


@softplus.defjvp
def _softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return softplus(*primals), jax.nn.sigmoid(primals[0]) * tangents[0]


class Mixture(eqx.Module):
    """A mixture of activations, whose shares no training moves: networks of all kinds are one kind of program."""

    shares: Float[Array, " 3"]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Entry by entry."""
        a, b, c = jax.lax.stop_gradient(self.shares)
        return a * mish(x) + b * jnp.tanh(x) + c * softplus(x)


class Learner(eqx.Module):
    """A network and the loss that it learns by."""

    network: HamiltonianMLP
    squares: Float[Array, ""]
    "The squared loss's share; that of log cosh is the rest."

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, ""]:
        """The energy."""
        return self.network(x)


def loss(learner: Learner, points: FieldPoints) -> Float[Array, ""]:
    """Log cosh, or half the square, of the field's errors."""
    return weighed_loss(learner.network, jax.lax.stop_gradient(learner.squares), points)


def weighed_loss(energy: Any, squares: Any, points: FieldPoints) -> Float[Array, ""]:
    """The same for any energy."""
    predicted = field_at(energy, points.states)
    return jnp.mean(
        (1 - squares) * optax.losses.log_cosh(predicted, points.rates) + squares * optax.losses.l2_loss(predicted, points.rates)
    )


class Runs(NamedTuple):
    """A first axis over runs: variants slowest, then the system held out, then seeds, each with all rates tried, in a pilot."""

    learners: Learner
    others: Int[np.ndarray, "runs others"]
    "Rows of the trajectories that are trained on."
    keys: Key[Array, " runs"]
    "Of the tasks, one a set of data: arms meet the same ones."


def make_runs(
    config: Config, keys: Key[Array, " sets"], variants: tuple[str, ...], data: Int[np.ndarray, " columns"], n_systems: int
) -> Runs:
    """Untrained networks, one a variant, a system held out and a set of data; the same weights wherever the set is the same."""
    shape = (len(variants), n_systems, len(data))
    variant, held_out, column = (index.ravel() for index in np.indices(shape))
    sets = data[column]
    shares = np.array([VARIANTS[name][0] for name in variants], np.float32)[variant]
    squares = np.array([VARIANTS[name][1] for name in variants], np.float32)[variant]
    pairs = jax.vmap(jax.random.split)(keys)[sets]

    def make(key: PRNGKeyArray, shares: Array, squares: Array) -> Learner:
        return Learner(HamiltonianMLP(4, config.width, config.depth, Mixture(shares), key=key), squares)

    # One after another: random numbers of many axes compile many times slower.
    make_all = jax.jit(lambda *arrays: jax.lax.map(lambda row: make(*row), arrays))
    learners = make_all(pairs[:, 0], jnp.asarray(shares), jnp.asarray(squares))
    others = leave_one_out(n_systems)[held_out] + (n_systems * sets)[:, None]
    return Runs(learners, others, pairs[:, 1])
