"""Estimates of the data separation, one for each repetition."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from gradatim.lab import Session
from gradatim.transport import DataSeparation, separation_angles, separation_of_data


def refined_angles(n_nodes: int) -> np.ndarray:
    """Those of a separation that was estimated at `n_nodes` of them."""
    return separation_angles(8 * (n_nodes - 1) + 1)


def estimated(session: Session, label: str, sets: Iterable[jax.Array], keys: jax.Array, *, n_noise: int, n_nodes: int) -> DataSeparation:
    """Of each data set with noise of its own, stacked along a first axis; sets are made one after another, if at all."""

    def roots() -> list[np.ndarray]:
        pairs = zip(sets, keys, strict=True)
        return [np.asarray(separation_of_data(x, key=key, n_noise=n_noise, n_nodes=n_nodes).root_gamma) for x, key in pairs]

    angles = jnp.asarray(refined_angles(n_nodes))
    each = [DataSeparation(angles, jnp.asarray(root)) for root in session.once(label, roots)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
