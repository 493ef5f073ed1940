"""Muon with latent attention and experts (arXiv:2509.24406): what it saves in tokens, cache and perplexity on small language models."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Session

from .combinations import combine, combine_measures
from .comparison import compare, compare_measures, many_runs
from .config import KINDS, Size, Theory
from .config import Config as Config
from .figures import draw as draw
from .theory import best_rival, descend, over_bound, slope, weight_norms
from .training import Corpus

PRECISION = "single"
SCALES = {
    "smoke": Config(
        model=Size(16, 1, 2, 32, 16, batch_size=8, steps=30), small=Size(16, 1, 2, 32, 16, batch_size=4, steps=10),
        n_train=2000, n_validation=16, rates=(0.02,), batch_sizes=(8,), kinds=(KINDS[0], KINDS[-1]), beside=False, n_seeds=3,
        stability_seeds=3, decode_width=32, decode_context=64, theory=Theory(100, (16, 32, 64), 1, 3),
    ),
    "laptop": Config(),
    "full": Config(
        model=Size(512, 10, 8, 1408, 256, batch_size=8, steps=20_000), n_validation=1024, tuning_steps=2000, batch_sizes=(4, 16),
        n_routed=62, top_k=6, decode_context=4096, n_seeds=3,
    ),
}  # fmt: skip
UNITS = {"loss": "nat", "cache_bytes": "byte", "decode_seconds": "s", "token_ratio": "1", "mean_norm": "1", "muon": "1", "adamw": "1"}


def memory(config: Config) -> int:
    """Bytes: parameters with gradient and optimiser, and what the gradient needs of a batch, of all runs that go together."""
    total = 0
    for size, n_runs, has_experts in (
        (config.model, len(config.rates), False),
        (config.model, config.n_seeds, True),
        (config.small, len(config.stability_rates) * config.stability_seeds, False),
    ):
        more = (config.n_routed + config.n_shared) / (config.top_k + config.n_shared) if has_experts else 1
        parameters = size.n_layers * (4 * size.width**2 + 3 * size.width * size.hidden * more) + 168 * size.width
        tokens = size.context * (max(size.batch_size, *config.batch_sizes) if size is config.model and not has_experts else size.batch_size)
        # All of a few experts are evaluated; blocks of tokens for many are about half empty.
        units = size.hidden * min(more, 2)
        kept = tokens * size.n_layers * (12 * size.width + 4 * units + 3 * size.n_heads * size.context)
        total = max(total, int(n_runs * (16 * parameters + 4 * kept)))
    return total + config.n_train * (config.model.context + 1)


def run(config: Config, session: Session) -> Findings:
    """Both optimisers on the dense model, all kinds of models, the theory, and many small runs."""
    corpus = Corpus.load(session)
    trees, rates = compare(config, corpus, session)
    measures, untested = compare_measures(trees, config, session)
    trees["combinations"] = combine(config, corpus, trees["curves"], rates, session)
    found, reasons = combine_measures(trees["combinations"])
    measures, untested = measures | found, untested | reasons
    measures["C4.best_rival"] = best_rival(config.theory, session)
    trees["norms"], measures["C4.norm_over_bound"] = weight_norms(config, corpus, session)
    trees["descents"] = descend(config.theory, session)
    measures["C4.rate_slope"] = slope(trees["descents"])
    measures["C4.mean_norm_over_bound"] = over_bound(trees["descents"])
    trees["many_runs"], measures["C6.non_finite_runs"] = many_runs(config, corpus, session)
    for data in trees.values():
        for name, unit in UNITS.items():
            if name in data:
                data[name].attrs["units"] = unit
    session.note(_eight(trees["combinations"]))
    return Findings(measures, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)


def _eight(data: xr.Dataset) -> str:
    mean = data["loss"].mean("seed")
    parts = [f"{kind}, {arm} {np.exp(float(mean.sel(kind=kind, arm=arm))):.3f}" for kind in data.kind.values for arm in data.arm.values]
    return "perplexity of a character on the works held out: " + "; ".join(parts)
