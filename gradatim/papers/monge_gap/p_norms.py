"""Known maps for powers of p-norms in the plane: with the gap of their own cost, without it, and with that of the squared distance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session, host_generator
from gradatim.transport import PNorm, exact_monge_gap

from .config import Costs
from .low_dimensions import unexplained
from .problems import Points, diagonal, p_norm_source
from .training import DRAWN, Samples, Weights, described, structured, train


def run_p_norms(config: Costs, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Every power."""
    keys = jax.random.split(key, len(config.powers))
    parts = [_of_power(config, p, session, one) for p, one in zip(config.powers, keys, strict=True)]
    axis = xr.Variable("p", list(config.powers))
    return {"p_norm": xr.concat(parts, axis, combine_attrs="override")}


def _of_power(config: Costs, p: float, session: Session, key: jax.Array) -> xr.Dataset:
    key_data, key_train = jax.random.split(key)
    training, cost = config.p_norm, PNorm(p)
    random = host_generator(key_data)

    def images(n: int) -> Points:
        return np.stack([diagonal(random, n) for _ in range(training.seeds)])

    def sources(y: Points) -> Points:
        return np.stack([p_norm_source(one, p) for one in y])

    # The points are made from their images.
    optimal = images(training.held_out)
    samples = Samples(sources(images(training.pool)), images(training.pool), sources(optimal), images(training.held_out))
    gap, penalised = Weights(gap=config.p_norm_weight), Weights(gap=config.p_norm_weight, asymmetry=config.asymmetry_weight)
    label = f"p-norm to the power {p:g}"
    plain = train(training, samples, [Weights(), gap], session, key_train, label=label, cost=cost)
    wrong = train(training, samples, [gap], session, key_train, label=f"{label}, gap of the squared distance", judged_by=cost)
    of_form = train(
        training, samples, [penalised], session, key_train, label=f"{label}, structured", build=structured, cost=cost, penalised=True
    )
    arms = [
        xr.Dataset(
            {"unexplained": (("arm", "seed"), unexplained(found.images, optimal), {"units": "%"}), **described(found)}, {"arm": names}
        )
        for names, found in ((["none", "gap"], plain), (["squared gap"], wrong), (["structured"], of_form))
    ]
    powers = sorted({*config.powers, 2.0})
    known = session.once(f"{label}, known map", lambda: _known_gaps(samples.held_x, optimal, powers))
    points = {
        "known_gap": (("power", "seed"), known, {"units": "%"}),
        "source": (("point", "axis"), samples.held_x[0, :DRAWN], {"units": "1"}),
        "target": (("point", "axis"), samples.held_y[0, :DRAWN], {"units": "1"}),
        "optimal": (("point", "axis"), optimal[0, :DRAWN], {"units": "1"}),
    }
    return xr.concat(arms, "arm", combine_attrs="override").assign(points).assign_coords(power=powers)


def _known_gaps(x: np.ndarray, y: np.ndarray, powers: list[float]) -> np.ndarray:
    """Exact gaps of the known map over its displacement, percent, by every power: (power, seed)."""
    pairs = [(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)) for a, b in zip(x, y, strict=True)]
    found = [[exact_monge_gap(*pair, cost=PNorm(power)) for pair in pairs] for power in powers]
    return np.array([[100 * gap.value / gap.displacement for gap in row] for row in found])
