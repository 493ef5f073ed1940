"""A convex valley too steep for Newton's method far out, and its values and gradients in NumPy."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix as optx

METRIC = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])
ROWS = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 1.0], [0.3, -2.0, 1.5], [2.0, 1.0, -1.0]])
START = np.array([3.0, -2.0, 4.0])
ROUND_OFF = 1e-9


@eqx.filter_jit
def descend(fn, solver, start, args, max_steps):
    return optx.minimise(fn, solver, start, args, max_steps=max_steps, throw=False)


def ravine(y, args):
    """Logarithms of hyperbolic cosines and a little of a square."""
    scale, stretch = args
    u = jnp.asarray(ROWS, y.dtype) @ (stretch * y) - 0.3
    return scale * (jnp.sum(jnp.logaddexp(u, -u)) + 0.01 * jnp.sum((stretch * y) ** 2))


def value(y):
    u = ROWS @ y - 0.3
    return np.logaddexp(u, -u).sum() + 0.01 * y @ y


def gradient(y):
    return ROWS.T @ np.tanh(ROWS @ y - 0.3) + 0.02 * y
