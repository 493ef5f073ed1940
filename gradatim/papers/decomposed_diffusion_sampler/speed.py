"""How long three samplers take."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.transport import Krylov

from .arms import INNER
from .bench import Bench, quality
from .config import Config


def time_samplers(config: Config, session: Session, bench: Bench) -> xr.Dataset:
    """One set's images by three samplers in turns, compiled and warm, all with the same network."""
    arms, n = bench.arms[0], config.images
    task = arms.task
    y, shape = task.y[:n], (n, *task.operator.shape)
    steps = jnp.full(n, 0.1, jnp.float32)
    pairs = min(config.timed_pairs, config.pairs)
    seconds = session.timed(
        "samplers",
        {
            "dds": lambda: arms.sampled(Krylov(INNER), y, config.times),
            "dps": lambda: arms.propagated(y, config.many_times, steps),
            "pairs": lambda: arms.predictor_corrector(y, shape, pairs),
        },
        repeats=config.repeats,
    )
    quality_pairs = session.once("pairs", lambda: np.asarray(arms.predictor_corrector(y, shape, pairs * 5)))
    ratio = np.asarray(quality(jnp.asarray(quality_pairs), jnp.asarray(task.truth[:n]))[0])
    return xr.Dataset(
        {
            "seconds": (("sampler", "repeat"), np.stack([seconds[name] for name in ("dds", "dps", "pairs")]), {"units": "s"}),
            "pairs_ratio": ("image", ratio, {"units": "dB"}),
        },
        {"sampler": ["dds", "dps", "pairs"]},
        {"task": task.name, "timed_pairs": pairs, "pairs": config.pairs, "images": n, "quality_pairs": pairs * 5},
    )
