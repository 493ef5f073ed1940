"""Random numbers on the host."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import PRNGKeyArray


def host_generator(key: PRNGKeyArray) -> np.random.Generator:
    """NumPy's generator seeded by a key: on the device a draw of every new shape would be a program to compile.

    >>> host_generator(jax.random.key(0)).integers(100, size=3).tolist() == host_generator(jax.random.key(0)).integers(100, size=3).tolist()
    True
    """
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
