"""What the checks of numbers in every room rest on."""

from __future__ import annotations

from jax.core import Tracer


def is_known(*values: object) -> bool:
    """Whether values are there to be looked at: not while JAX is tracing one of them.

    >>> import jax
    >>> seen = []
    >>> jax.jit(lambda x: seen.append(is_known(x)))(0.5)
    >>> is_known(0.5), seen
    (True, [False])
    """
    return not any(isinstance(value, Tracer) for value in values)
