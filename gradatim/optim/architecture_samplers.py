"""How probabilities of options come from logits: softmax and sparsemax (DARTS), Dirichlet (DrNAS), Gumbel (GDAS), uniform (SPOS).

A sampler is `sampler(logits, key, step)`, from a dict of logits by choice to a dict of probabilities by choice, of the same shapes. It
draws all choices at once, and is safe under jit, vmap and grad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

Logits = Mapping[str, Array]
Probabilities = dict[str, Array]
Sampler = Callable[[Any, Any, Any], Any]
LEAST_CONCENTRATION = 1e-3
"Of a Dirichlet law: smaller ones round to zero in single precision, where its samples are not defined."


def softmax_mixture(logits: Logits, key: PRNGKeyArray, step: Any = 0) -> Probabilities:
    """P = softmax(a), the same each time (DARTS, Liu et al., arXiv:1806.09055).

    >>> print(softmax_mixture({"kernel": jnp.log(jnp.array([1.0, 3.0]))}, jax.random.key(0))["kernel"].round(2))
    [0.25 0.75]
    """
    del key, step
    return {name: jax.nn.softmax(a, axis=-1) for name, a in logits.items()}


def sparsemax_mixture(logits: Logits, key: PRNGKeyArray, step: Any = 0) -> Probabilities:
    """P = argmin ‖p - a‖ over the simplex, with exact zeros (Martins & Astudillo, arXiv:1602.02068), as the entangled DARTS uses it.

    >>> print(sparsemax_mixture({"kernel": jnp.array([0.5, 0.3, -0.4])}, jax.random.key(0))["kernel"])
    [0.6 0.4 0. ]
    """
    del key, step

    def project(a: Array) -> Array:
        rows = jax.vmap(optax.projections.projection_simplex)(a.reshape(-1, a.shape[-1]))
        return rows.reshape(a.shape)

    return {name: project(a) for name, a in logits.items()}


def dirichlet_mixture(logits: Logits, key: PRNGKeyArray, step: Any = 0) -> Probabilities:
    """P ~ Dirichlet(elu(a) + 1), differentiated along the sample's path (DrNAS, Chen et al., arXiv:2006.10355).

    >>> rows = jnp.broadcast_to(jnp.array([[0.0, 1.0]]), (10_000, 2))
    >>> print(f"{dirichlet_mixture({'kernel': rows}, jax.random.key(0))['kernel'][:, 1].mean():.1f} in theory 2/(1 + 2)")
    0.7 in theory 2/(1 + 2)
    """
    del step
    concentrations = {name: jnp.maximum(jax.nn.elu(a) + 1, LEAST_CONCENTRATION) for name, a in logits.items()}
    # As `jax.random.dirichlet` does it, for all choices in one draw: normalised gammas, by their logarithms.
    return {name: jax.nn.softmax(g, axis=-1) for name, g in _split(concentrations, jax.random.loggamma(key, _flat(concentrations))).items()}


def gumbel_straight_through(temperature: optax.ScalarOrSchedule) -> Sampler:
    """One-hot samples of softmax(a), differentiated as if they were soft (GDAS, Dong & Yang, arXiv:1910.04465).

        y = softmax((log softmax(a) + G)/τ),   p = onehot(argmax y) - stop_gradient(y) + y,   G standard Gumbel

    **Arguments:** `temperature`: τ > 0 or a schedule; GDAS lets it fall from 10 to 0.1.

    >>> sampler = gumbel_straight_through(0.1)
    >>> sampler({"kernel": jnp.array([9.0, 0.0])}, jax.random.key(0), 0)["kernel"].tolist()
    [1.0, 0.0]
    """
    if not callable(temperature) and not float(temperature) > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")

    def sampler(logits: Logits, key: PRNGKeyArray, step: Any = 0) -> Probabilities:
        tau = temperature(step) if callable(temperature) else temperature
        noise = _split(logits, jax.random.gumbel(key, (_flat(logits).size,)))
        return {name: _straight_through(jax.nn.softmax((jax.nn.log_softmax(a) + noise[name]) / tau)) for name, a in logits.items()}

    return sampler


def uniform_one_hot(logits: Logits, key: PRNGKeyArray, step: Any = 0) -> Probabilities:
    """One option of each choice with equal chance, whatever the logits (SPOS, Guo et al., arXiv:1904.00420).

    >>> drawn = uniform_one_hot({"kernel": jnp.array([9.0, 0.0, 0.0])}, jax.random.key(0))["kernel"]
    >>> sorted(drawn.tolist())
    [0.0, 0.0, 1.0]
    """
    del step
    noise = _split(logits, jax.random.uniform(key, (_flat(logits).size,)))
    return {name: jax.nn.one_hot(jnp.argmax(noise[name], axis=-1), a.shape[-1], dtype=a.dtype) for name, a in logits.items()}


def _straight_through(soft: Array) -> Array:
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1], dtype=soft.dtype)
    # Not hard - stop(soft) + soft: that is rounded, and then no longer exactly one-hot.
    return hard + (soft - jax.lax.stop_gradient(soft))


def _flat(arrays: Mapping[str, Array]) -> Array:
    return jnp.concatenate([arrays[name].reshape(-1) for name in sorted(arrays)])


def _split(like: Mapping[str, Array], flat: Array) -> dict[str, Array]:
    ends, parts = 0, {}
    for name in sorted(like):
        start, ends = ends, ends + math.prod(like[name].shape)
        parts[name] = flat[start:ends].reshape(like[name].shape)
    return parts
