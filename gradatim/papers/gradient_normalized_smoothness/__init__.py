"""Gradient-normalised smoothness (arXiv:2506.13710): one radius for many kinds of smoothness, and Hessians that are approximate."""

from __future__ import annotations

import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Rates as Rates
from .convergence import (
    as_dataset,
    counts_dataset,
    iteration_measures,
    run_all,
    run_designs,
    step_measures,
    tell_baselines,
    time_fisher_term,
)
from .figures import draw as draw
from .rates import chains, radius, waves
from .steadiness import compare

PRECISION = "double"
SCALES = {
    "smoke": Config(
        log_sum_exp=(100,),
        timed_equations=(20, 40),
        repeats=3,
        powers=(5,),
        chebyshev=(50,),
        designs=3,
        beside=False,
        max_steps=400,
        separable_steps=200,
        n_starts=20,
        chebyshev_starts=3,
        nonconvex_steps=100,
        rates=Rates(chain=20, chain_steps=200, repeats=3, waves_steps=200, degrees=(0.0, 0.5, 1.0)),
    ),
    "laptop": Config(),
    "full": Config(
        log_sum_exp=(1000,),
        timed_equations=(1000, 2000),
        chebyshev=(1000,),
        n_starts=10_000,
        rates=Rates(
            chain=1000, chain_steps=10_000, repeats=32, waves_steps=100_000, degrees=(0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
        ),
    ),
}


def memory(config: Config) -> int:
    """Bytes: some ten square matrices of the largest problem, and the traces of every run, on every design where it is random."""
    largest = max(*config.log_sum_exp, *config.chebyshev, config.timed_equations[1], config.rates.chain)
    rates = config.rates
    cells = (len(rates.degrees) + 1) ** 2
    random_runs = 3 * len(config.log_sum_exp) + 3 + 2 * len(config.chebyshev)
    traces = 8 * 6 * ((25 + random_runs * config.designs) * config.max_steps + 3 * config.separable_steps)
    # Of the waves only gradients are kept, of every phase.
    return 10 * 8 * largest**2 + 2 * (traces + 8 * rates.repeats * cells * rates.waves_steps)


def run(config: Config, session: Session) -> Findings:
    """Worst cases and the map of rates, the five problems with every Hessian, on random designs too, seconds, and random starts."""
    runs, drawn = run_all(config, session), run_designs(config, session)
    chain_measures, chain_data, chain_baselines = chains(config.rates, session)
    wave_measures, wave_data = waves(config.rates, session)
    ratio, radius_data = radius(session)
    start_measures, untested, start_data = compare(config, session)
    baselines = tell_baselines(config, runs, session)
    measures = {**chain_measures, **wave_measures, "C2.radius_over_bound": ratio, **start_measures}
    measures |= step_measures(runs, drawn, session) | iteration_measures(config, runs, drawn, session)
    measures["C7.speedup_over_exact"] = time_fisher_term(config, session)
    session.note(
        "breast-cancer data are separable with an intercept only; the minimiser then lies at infinity, where a linear rate, which needs a "
        "bounded level set, is not to be had; with a penalty strong convexity alone would give one"
    )
    trees = {"chains": chain_data, "waves": wave_data, "radii": radius_data, "starts": start_data, "designs": counts_dataset(runs, drawn)}
    trees |= {"baselines/log_sum_exp": baselines, "baselines/chains": chain_baselines}
    for index, name in enumerate(dict.fromkeys(problem for problem, _ in runs)):
        trees[f"problems/{index}"] = as_dataset(runs, name).assign_attrs(name=name)
    return Findings(measures, xr.DataTree.from_dict(trees), untested)
