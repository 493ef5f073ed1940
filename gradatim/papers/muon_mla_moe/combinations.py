"""Attention full or latent, feed-forward dense or with experts, either optimiser: loss, cache and time of a decoded character."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.nets import cache_bytes

from .config import KINDS, Config
from .training import ARMS, NAMES, Corpus, beside_muon, drawn, template, train_with_experts

DENSE, LATENT = KINDS[0], KINDS[-1]
ALONE = (("latent, dense", "adamw"), ("multi_head, experts", "adamw"), (DENSE, "muon"))
"Each change to the dense model with AdamW by itself."
HEAD = 32
TIMED, REPEATS = 32, 7
"Characters of one timed call, one after another, and calls."
MOST_TIMED_LAYERS = 2
"Decoding takes as long for each further layer."


def combine(config: Config, corpus: Corpus, curves: xr.Dataset, rates: dict[str, float], session: Session) -> xr.Dataset:
    """Validation loss of every kind and optimiser, the dense model's as the comparison has it; bytes of the cache; decode time."""
    kinds = list(dict.fromkeys((DENSE, *(kind for kind in KINDS if kind in config.kinds), LATENT)))
    dense = curves["last_loss"].sel(batch_size=config.model.batch_size)
    losses = {(DENSE, arm): dense.sel(arm=arm).values for arm in ARMS}
    loads: dict[tuple[str, str], float] = {}
    not_run = np.full(config.n_seeds, np.nan)
    for kind in kinds[1:]:
        for arm in beside_muon(config):
            label = f"{kind} with {NAMES[arm]}"
            values, load = train_with_experts(session, corpus, config, kind, arm, rates[arm], label=label)
            losses[kind, arm] = values[:, -1]
            if load.size:
                loads[kind, arm] = float((load.max(-1) / load.mean(-1)).mean())
    shape = dataclasses.replace(config.model, context=config.decode_context)
    caches = {kind: jax.eval_shape(template(config, shape, kind).init_cache) for kind in kinds}
    seconds = time_decoding(config, kinds, session)
    data = xr.Dataset(
        {
            "loss": (("kind", "arm", "seed"), [[losses.get((kind, arm), not_run) for arm in ARMS] for kind in kinds]),
            "cache_bytes": ("kind", [cache_bytes(caches[kind]) for kind in kinds]),
            "decode_seconds": (("way", "repeat"), np.array(list(seconds.values())) / TIMED),
        },
        {"kind": kinds, "arm": list(ARMS), "way": list(seconds)},
    )
    per_token = data["decode_seconds"].median("repeat")
    times = {str(way): float(per_token.sel(way=way)) for way in per_token.way.values}
    session.note(
        "decoding a character on this machine: "
        + ", ".join(f"{way} {1e6 * time:.0f} µs ({times[DENSE] / time:.2f} of the dense model's speed)" for way, time in times.items())
    )
    if loads:
        session.note(
            "largest over mean load of the experts at the end: " + ", ".join(f"{k}, {NAMES[a]} {x:.2f}" for (k, a), x in loads.items())
        )
    return data


def combine_measures(data: xr.Dataset) -> tuple[dict[str, Measure], dict[str, str]]:
    """C3."""
    saving = 100 * (1 - float(data["cache_bytes"].sel(kind=LATENT)) / float(data["cache_bytes"].sel(kind=DENSE)))
    measures = {"C3.cache_saving": Measure.exact(saving)}
    untested = {"C3.decode_speedup": "the article's figure is of a GPU and a whole model; a note says what a decoded character takes here"}
    perplexity = {(kind, arm): np.exp(data["loss"].sel(kind=kind, arm=arm).values) for kind in data.kind.values for arm in ARMS}
    ours, control = perplexity[LATENT, "muon"], perplexity[DENSE, "adamw"]
    if np.isfinite([ours, control]).all():
        measures["C3.perplexity_ratio"] = Measure.paired(ours, control, "log-ratio")
    else:
        untested["C3.perplexity_ratio"] = "a run diverged"
    if not set(ALONE) <= perplexity.keys():
        untested["C3.perplexity_over_product"] = "not every change alone is among the models of this run"
    elif np.isfinite([ours, control, *(alone := [perplexity[change] for change in ALONE])]).all():
        measures["C3.perplexity_over_product"] = Measure.paired(ours * control**2, np.prod(alone, axis=0), "log-ratio")
    else:
        untested["C3.perplexity_over_product"] = "a run diverged"
    return measures, untested


def time_decoding(config: Config, kinds: list[str], session: Session) -> dict[str, np.ndarray]:
    """Seconds of the last characters of a context, in turns: every kind, and latent attention whose keys and values are formed anew."""
    n_heads = max(config.decode_width // HEAD, 1)
    share = config.n_shared + config.top_k
    hidden = -(-config.decode_width * 8 // 3 // share) * share
    size = dataclasses.replace(
        config.model, width=config.decode_width, n_heads=n_heads, hidden=hidden, context=config.decode_context,
        n_layers=min(config.model.n_layers, MOST_TIMED_LAYERS),
    )  # fmt: skip
    tokens = jnp.arange(TIMED) % 84

    def decoded(model: Any, cache: Any, tokens: Any, is_absorbed: bool) -> Any:
        def step(cache: Any, token: Any) -> Any:
            logits, cache = model.decode(token, cache, is_absorbed=is_absorbed)
            return cache, logits.argmax()

        return jax.lax.scan(step, cache, tokens)[1]

    @eqx.filter_jit
    def ready(kind: str, key: Any) -> tuple[Any, Any]:
        model = drawn(config, size, key, kind=kind)
        # What the cache holds does not change how long it takes to read.
        return model, tuple(dataclasses.replace(layer, length=layer.length + config.decode_context - TIMED) for layer in model.init_cache())

    compiled = eqx.filter_jit(decoded)
    functions = {}
    for kind in kinds:
        model, full = ready(kind, jax.random.key(0))
        functions[kind] = _call(compiled, model, full, tokens, True)
        if kind == "latent, dense" or (kind == LATENT and "latent, dense" not in kinds):
            functions[f"{kind}, not absorbed"] = _call(compiled, model, full, tokens, False)
    return session.timed("decode", functions, repeats=REPEATS)


def _call(function: Any, *arguments: Any) -> Any:
    return lambda: function(*arguments)
