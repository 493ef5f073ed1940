"""The posterior of a line with scatter by emcee 3.1.6: seconds and quantiles as JSON."""

from __future__ import annotations

import json

import emcee
import numpy as np
import population
import timing


def main() -> None:
    """Prints one JSON list."""
    data = population.sample()
    start = np.array([-0.005, -0.015, 0.015]) * (1 + 0.1 * np.random.default_rng(0).normal(size=(32, 3)))
    quantiles = np.zeros((3, 3))

    def run() -> None:
        nonlocal quantiles
        sampler = emcee.EnsembleSampler(32, 3, population.log_posterior, kwargs=data)
        sampler.run_mcmc(start, 1000)
        samples = sampler.get_chain(discard=200, flat=True)
        quantiles = np.quantile(samples, [0.16, 0.5, 0.84], axis=0).T

    seconds = timing.median(run)
    info = {name: quantiles[i].tolist() for i, name in enumerate(("intercept", "slope", "scatter"))}
    print(
        json.dumps([{"group": "posterior of a line with scatter, 25 points", "name": "emcee, 32 × 1000", "seconds": seconds, "info": info}])
    )


if __name__ == "__main__":
    main()
