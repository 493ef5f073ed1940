"""C4: the orthogonal factor descends furthest, weight decay bounds the weights, and the gradient shrinks as the root of the steps."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure, Session, host_generator
from gradatim.numerics import polar_factor

from .config import Config, Theory
from .training import LENGTH_OF_ADAMW, NORMS, Corpus, batch, beside_muon, drawn, drawn_rows, loss, matrices, optimizers, schedule, template

SHAPES = ((24, 24), (32, 16), (12, 40))
ROWS, COLUMNS = 16, 12
"Of the quadratics."
MOST = 1.2024
"The largest singular value that five Newton–Schulz steps can give (at 0.0041 of the Frobenius norm)."


@jax.jit
def _exact_factor(gradient: Array) -> Array:
    return polar_factor(gradient, method="svd")


def best_rival(theory: Theory, session: Session) -> Measure:
    """How much further than the orthogonal factor any direction of the unit ball descends, relative: random ones and its neighbours.

    Neighbours are the factor and a random matrix mixed, 1e-3 to 1 of it, and brought back to spectral norm 1.
    """
    random = host_generator(jax.random.fold_in(session.key, NORMS))
    furthest = []
    for shape in SHAPES:
        gradient = random.normal(size=shape)
        factor = np.asarray(_exact_factor(jnp.asarray(gradient, jnp.float32)), np.float64)
        others = random.normal(size=(theory.n_rivals, *shape)) / np.sqrt(max(shape))
        left, _, right = np.linalg.svd(others, full_matrices=False)
        share = 10 ** random.uniform(-3, 0, size=(theory.n_rivals, 1, 1))
        rivals = np.concatenate([others, left @ right, factor + share * others])
        rivals /= np.linalg.norm(rivals, 2, axis=(1, 2))[:, None, None]
        furthest.append(float((gradient * rivals).sum((1, 2)).max() / (gradient * factor).sum() - 1))
    return Measure.exact(max(furthest), 1e-6)


def descend(theory: Theory, session: Session) -> xr.Dataset:
    """Mean nuclear norm of the gradient of quadratics ½ ⟨W, H W⟩ along W ← W - η msign(∇f), for each number of steps and rate.

    The eigenvalues of each problem's H are drawn evenly on a logarithmic scale over two decades: the slope may depend on them.
    """
    n_rates = 6 * theory.rates_per_octave + 1
    factors = 2.0 ** np.linspace(-3, 3, n_rates)
    longest, shortest = max(theory.lengths), min(theory.lengths)

    random = host_generator(jax.random.fold_in(session.key, NORMS + 1))
    basis = np.linalg.qr(random.normal(size=(theory.n_problems, ROWS, ROWS)))[0]
    values = 10 ** random.uniform(-2, 0, size=(theory.n_problems, ROWS))
    hessians = jnp.asarray(basis * values[:, None] @ basis.transpose(0, 2, 1), jnp.float32)
    starts = jnp.asarray(random.normal(size=(theory.n_problems, ROWS, COLUMNS)), jnp.float32)
    # L in the spectral norm: ⟨D, H D⟩ over its unit ball is at most the sum of the largest eigenvalues.
    smoothness = np.sort(values, axis=1)[:, -COLUMNS:].sum(axis=1)
    height = 0.5 * jnp.einsum("pij,pik,pkj->p", starts, hessians, starts)
    lengths = jnp.asarray(theory.lengths, jnp.float32)
    # The theorem's rate √(2 (f₀ - f*) / (L T)).
    rates = (
        jnp.sqrt(2 * height / jnp.asarray(smoothness, jnp.float32))[:, None, None]
        / jnp.sqrt(lengths)[None, :, None]
        * jnp.asarray(factors, jnp.float32)[None, None]
    )
    shape = rates.shape
    weights = jnp.broadcast_to(starts[:, None, None], (*shape, ROWS, COLUMNS))

    def step(state: Any, i: Any, args: Any) -> Any:
        weights, total = state
        hessians, rates, lengths = args
        gradient = jnp.einsum("pij,plrjk->plrik", hessians, weights)
        factor = polar_factor(gradient, coefficients="polar_express")
        running = (i < lengths)[None, :, None]
        total = total + jnp.where(running, (gradient * factor).sum((-2, -1)), 0.0)
        return weights - jnp.where(running, rates, 0.0)[..., None, None] * factor, total

    state = (weights, jnp.zeros(shape))
    loop = session.loop(
        step, state, steps=longest, args=(hessians, rates, lengths), every=longest, label=f"descents of {shortest} steps on"
    )
    mean = np.asarray(loop.state[1]) / np.asarray(theory.lengths)[None, :, None]
    bound = np.sqrt(2 * (smoothness * np.asarray(height))[:, None] / np.asarray(theory.lengths)[None])
    return xr.Dataset(
        {"mean_norm": (("problem", "length", "factor"), mean), "bound": (("problem", "length"), bound)},
        {"length": list(theory.lengths), "factor": factors},
    )


def slope(data: xr.Dataset) -> Measure:
    """Of the logarithm of the mean norm at each length's best rate, over that of the length."""
    best = np.log(data["mean_norm"].min("factor").values)
    return Measure.over_seeds([np.polyfit(np.log(data.length.values), row, 1)[0] for row in best])


def over_bound(data: xr.Dataset) -> Measure:
    """The mean norm at the theorem's own rate over the theorem's bound: the largest of all problems and lengths."""
    ratio = data["mean_norm"].sel(factor=1.0) / data["bound"]
    return Measure.exact(float(ratio.max()), 1e-5)


def weight_norms(config: Config, corpus: Corpus, session: Session) -> tuple[xr.Dataset, Measure]:
    """Spectral norms of a small model's matrices at every step, and Muon's over what rate and decay allow.

    ‖Wₜ‖ ≤ (1 - ηₜ λ) Bₜ₋₁ + ηₜ s c = Bₜ,    B₀ = ‖W₀‖,    s the shape factor, c the largest singular value of a step
    """
    size, rate, arms = config.small, max(config.stability_rates), beside_muon(config)
    data = corpus.blocks(config, size)
    shapes = template(config, size)
    made = {arm: optimizers(config, shapes, size.steps)[arm](rate) for arm in arms}
    key = jax.random.fold_in(session.key, NORMS)
    model = eqx.filter_jit(lambda key: drawn(config, size, key))(key)
    order = jax.jit(lambda key: drawn_rows(key, data, size))(jax.random.fold_in(key, 1))
    longest = [LENGTH_OF_ADAMW * max(leaf.shape) ** 0.5 for leaf in matrices(shapes)]

    def norms(model: Any) -> Any:
        return jnp.stack([jnp.linalg.svd(leaf, compute_uv=False).max() for leaf in matrices(model)])

    def step(state: Any, i: Any, args: Any) -> Any:
        rows, data = args
        after: dict[str, Any] = {}
        for arm, optimizer in made.items():
            model, inner = state[arm]
            gradient = eqx.filter_grad(loss)(model, batch(data, rows[i]))
            updates, inner = optimizer.update(gradient, inner, eqx.filter(model, eqx.is_inexact_array))
            after[arm] = (eqx.apply_updates(model, updates), inner)
        now = schedule(rate, size.steps)(i)
        bound = (1 - now * config.weight_decay) * state["bound"] + now * MOST * jnp.asarray(longest)
        return after | {"bound": bound}

    def watch(state: Any, args: Any) -> dict[str, Any]:
        return {arm: norms(state[arm][0]) for arm in arms} | {"bound": state["bound"]}

    @eqx.filter_jit
    def begin(model: Any) -> dict[str, Any]:
        state: dict[str, Any] = {arm: (model, made[arm].init(eqx.filter(model, eqx.is_inexact_array))) for arm in arms}
        return state | {"bound": norms(model)}

    loop = session.loop(step, begin(model), steps=size.steps, args=(order, data), every=1, watch=watch, label="norms of the weights")
    found = {name: (("step", "matrix"), loop.history[name]) for name in (*arms, "bound")}
    norms_over_time = xr.Dataset(found, {"step": loop.history["step"]})
    # Before the first step both are the same number.
    over = (norms_over_time["muon"] / norms_over_time["bound"]).isel(step=slice(1, None))
    return norms_over_time, Measure.exact(float(over.max()), 1e-5)
