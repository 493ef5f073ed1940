"""C2: what finite width and finite samples add to the loss of networks."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from gradatim.datasets import load
from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import fit_variance_limited, linearise

from .config import Samples, Widths
from .measuring import normals, slope

WEIGHT_VARIANCE = 2.0
PADDED = 64
"Narrower layers are this wide with units switched off: one compiled program for all of them."
LOSSES = ("squared", "cross-entropy")
CLASSES = 10


class _Wide(eqx.Module):
    """Networks of one width, one for each initialisation, and what they learn."""

    start: PyTree
    is_on: Float[Array, " units"]
    width: Float[Array, ""]
    x: Float[Array, "n pixels"]
    y: Float[Array, " n"]
    x_test: Float[Array, "m pixels"]
    y_test: Float[Array, " m"]
    learning_rate: float = eqx.field(static=True)

    def outputs(self, params: PyTree, x: Float[Array, "n pixels"]) -> Float[Array, " n"]:
        """In the NTK parametrisation: √(σ_w²/inputs) times weights of unit variance."""
        first, second, last = params
        for number, weight in enumerate((first, second, last)):
            size = x.shape[1] if number == 0 else self.width
            # Smooth units: the linearisation has no kinks to pass.
            x = (x if number == 0 else jax.lax.erf(x) * self.is_on[None]) @ weight * jnp.sqrt(WEIGHT_VARIANCE / size)
        return x[:, 0]


def run_widths(config: Widths, session: Session, key: PRNGKeyArray) -> Findings:
    """Test losses of networks less those of their linearisations, width by width."""
    x, y, x_test, y_test = _odd_or_even(config, session)
    rows = []
    for width in config.widths:
        units = max(width, PADDED)
        shapes = ((x.shape[1], units), (units, units), (units, 1))
        keys = jax.random.split(jax.random.fold_in(key, units), 3)
        first, second, last = (normals(k, config.pairs, *shape) for k, shape in zip(keys, shapes, strict=True))
        # Both signs of the last layer are as likely: what is odd in it cancels in the mean of a pair.
        both = (np.concatenate(halves) for halves in ((first, first), (second, second), (last, -last)))
        start = tuple(jnp.asarray(weight, jnp.float32) for weight in both)
        is_on = (jnp.arange(units) < width).astype(jnp.float32)
        work = _Wide(start, is_on, jnp.asarray(width, jnp.float32), x, y, x_test, y_test, config.learning_rate)
        loop = session.loop(
            _wide_step, (start, start), steps=config.steps, args=work, every=config.steps, watch=_wide_watch, label=f"width {width}"
        )
        rows.append({name: values[-1] for name, values in loop.history.items() if name != "step"})
    net, tangent = (np.stack([row[name] for row in rows], axis=1).astype(np.float64) for name in ("net", "tangent"))
    excess = (net - tangent).reshape(2, config.pairs, -1).mean(axis=0)
    # The finite network may do better or worse than its linearisation: what counts is how fast they become one.
    sign = np.sign(excess.mean(axis=0))
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    if (sign == sign[0]).all():
        fit = fit_variance_limited(np.array(config.widths), sign[0] * excess, np.zeros(len(excess)))
        measures["C2.width_slope"] = slope(fit)
    else:
        untested["C2.width_slope"] = f"the mean difference to the linearised network changes its sign over the widths: {sign.tolist()}"
    errors = excess.std(axis=0, ddof=1) / len(excess) ** 0.5
    session.note(
        f"C2: test loss of the networks {net.mean(axis=0).round(4).tolist()}, less that of the linearised ones "
        f"{[f'{e:.2e}' for e in excess.mean(axis=0)]}, standard errors {[f'{e:.1e}' for e in errors]}"
    )
    data = xr.Dataset(
        {
            "network": (("sign", "pair", "width"), net.reshape(2, config.pairs, -1), {"units": "1"}),
            "linearised": (("sign", "pair", "width"), tangent.reshape(2, config.pairs, -1), {"units": "1"}),
        },
        {"width": list(config.widths)},
    )
    return Findings(measures, xr.DataTree.from_dict({"widths": data}), untested)


def _odd_or_even(config: Widths, session: Session) -> tuple[Array, Array, Array, Array]:
    parts: list[Array] = []
    for split, n in (("train", config.n_train), ("test", config.n_test)):
        digits = load("digits", split=split, n=n)
        session.uses(digits.provenance)
        x = digits.images.reshape(n, -1)
        parts += [jnp.asarray(x / np.sqrt(np.mean(x**2)), jnp.float32), jnp.asarray(2 * (digits.labels % 2) - 1, jnp.float32)]
    x, y, x_test, y_test = parts
    return x, y, x_test, y_test


def _squared(outputs: Array, y: Array) -> Array:
    return jnp.mean((outputs - y) ** 2) / 2


def _wide_step(state: tuple[PyTree, PyTree], i: Array, work: _Wide) -> tuple[PyTree, PyTree]:
    def moved(params: PyTree, linear: PyTree, start: PyTree) -> tuple[PyTree, PyTree]:
        tangent = linearise(work.outputs, start)
        slopes = (
            jax.grad(lambda p: _squared(work.outputs(p, work.x), work.y))(params),
            jax.grad(lambda p: _squared(tangent(p, work.x), work.y))(linear),
        )
        return jax.tree.map(lambda p, g: p - jnp.float32(work.learning_rate) * g, (params, linear), slopes)

    return jax.vmap(moved)(*state, work.start)


def _wide_watch(state: tuple[PyTree, PyTree], work: _Wide) -> dict[str, Array]:
    def losses(params: PyTree, linear: PyTree, start: PyTree) -> tuple[Array, Array]:
        tangent = linearise(work.outputs, start)
        return _squared(work.outputs(params, work.x_test), work.y_test), _squared(tangent(linear, work.x_test), work.y_test)

    net, tangent = jax.vmap(losses)(*state, work.start)
    return {"net": net, "tangent": tangent}


class _Sampled(eqx.Module):
    """Small networks r, each with weights on the population: how often each image was drawn over the mean."""

    x: Float[Array, "n pixels"]
    y: Float[Array, "n classes"]
    weights: Float[Array, "r n"]
    is_cross_entropy: Bool[Array, " r"]
    learning_rate: float = eqx.field(static=True)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(self.learning_rate, momentum=0.9)

    def loss(self, params: PyTree, weights: Float[Array, " n"], is_cross_entropy: Bool[Array, ""]) -> Float[Array, ""]:
        """Mean over the weighted images: cross-entropy in nats, or half the squared distance to one-hot labels."""
        x = self.x
        for number, (weight, bias) in enumerate(params):
            x = (jnp.tanh(x) if number else x) @ weight + bias[None]
        squared = jnp.sum((x - self.y) ** 2, axis=1) / 2
        return jnp.mean(weights * jnp.where(is_cross_entropy, optax.softmax_cross_entropy(x, self.y), squared))


def run_samples(config: Samples, session: Session, key: PRNGKeyArray) -> Findings:
    """Losses on the population after training on finite samples of it, less those after training on all of it."""
    digits = load("digits", n=config.population, pool=4)
    session.uses(digits.provenance)
    x = digits.images.reshape(config.population, -1)
    key_weights, key_networks = jax.random.split(key)
    n_each = len(config.sizes) * config.draws + 1
    weights = _drawn(config, key_weights)
    work = _Sampled(
        x=jnp.asarray((x - x.mean(axis=0)) / x.std(), jnp.float32),
        y=jax.nn.one_hot(digits.labels, CLASSES, dtype=jnp.float32),
        weights=jnp.asarray(np.concatenate([weights, weights]).reshape(-1, config.population), jnp.float32),
        is_cross_entropy=jnp.arange(2 * config.seeds * n_each) >= config.seeds * n_each,
        learning_rate=config.learning_rate,
    )
    params = _small_networks(config, key_networks, n_each)
    loop = session.loop(
        _sampled_step, (params, work.optimizer.init(params)), steps=config.steps, args=work, every=config.steps, watch=_sampled_watch,
        label="small networks",
    )  # fmt: skip
    losses = loop.history["loss"][-1].astype(np.float64).reshape(2, config.seeds, n_each)
    limit = losses[..., -1]
    shape = (2, config.seeds, len(config.sizes), config.draws)
    drawn = losses[..., :-1].reshape(shape).swapaxes(2, 3)
    influence = session.once("influence of every image", _influence, config, work, params)
    first_order = np.einsum("lsn,swn->lsw", influence, weights[:, :-1] - 1).reshape(shape).swapaxes(2, 3)
    # What is linear in the draw has mean zero, and is most of its scatter.
    steady = drawn - first_order
    slopes: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    for name, rows, ends in zip(LOSSES, steady, limit, strict=True):
        # One row a seed: its draws share the first weights.
        beyond = (rows - ends[:, None, None]).mean(axis=1)
        try:
            # Training that is stopped may do better for the noise of its sample: what counts is how fast that goes.
            fit = fit_variance_limited(np.array(config.sizes), np.sign(beyond[:, 0].mean()) * beyond, np.zeros(len(beyond)))
            slopes[name] = slope(fit, "initialisations")
        except ValueError as error:
            untested["C2.data_slope"] = f"{name} loss, with the sign of the excess at the fewest samples: {error}"
    measures = {} if untested else {"C2.data_slope": max(slopes.values(), key=lambda m: abs(m.intervals()[0][0] + 1))}
    excess, plain = ((rows - limit[..., None, None]).mean(axis=(1, 2)) for rows in (steady, drawn))
    session.note(
        f"C2: slopes in samples {', '.join(f'{name} {measure!r}' for name, measure in slopes.items())}; losses with the whole population "
        f"{dict(zip(LOSSES, limit.mean(axis=1).round(4).tolist(), strict=True))}, excess at {config.sizes} "
        f"{[[f'{e:.2e}' for e in row] for row in excess]}; with the part that is linear in the draw, whose mean is zero, "
        f"{[[f'{e:.2e}' for e in row] for row in plain]}"
    )
    data = xr.Dataset(
        {
            "loss": (("objective", "seed", "draw", "size"), drawn, {"units": "1 (squared), nat (cross-entropy)"}),
            "first_order": (("objective", "seed", "draw", "size"), first_order, {"units": "1 (squared), nat (cross-entropy)"}),
            "limit": (("objective", "seed"), limit, {"units": "1 (squared), nat (cross-entropy)"}),
        },
        {"objective": list(LOSSES), "size": list(config.sizes)},
    )
    return Findings(measures, xr.DataTree.from_dict({"samples": data}), untested)


def _drawn(config: Samples, key: PRNGKeyArray) -> Float[np.ndarray, "seeds each n"]:
    """Multinomial counts over their mean, and ones for the whole population at the end."""
    random = host_generator(key)
    even = np.full(config.population, 1 / config.population)
    rows = [random.multinomial(D, even, (config.seeds, config.draws)) * (config.population / D) for D in config.sizes]
    return np.concatenate([*rows, np.ones((config.seeds, 1, config.population))], axis=1)


def _small_networks(config: Samples, key: PRNGKeyArray, n_each: int) -> PyTree:
    """The same initialisation for all samples and both losses of a seed."""
    params = []
    for k, (a, b) in zip(
        jax.random.split(key, 3), ((16, config.width), (config.width, config.width), (config.width, CLASSES)), strict=True
    ):
        weight = np.tile(np.repeat(normals(k, config.seeds, a, b) / a**0.5, n_each, axis=0), (2, 1, 1))
        params.append((jnp.asarray(weight, jnp.float32), jnp.zeros((len(weight), b), jnp.float32)))
    return params


def _influence(config: Samples, work: _Sampled, params: PyTree) -> Float[np.ndarray, "2 seeds n"]:
    """The slope, in each image's weight, of the loss that training on the whole population ends with: backwards through the training."""
    last = np.arange(1, 2 * config.seeds + 1) * (len(config.sizes) * config.draws + 1) - 1
    whole = jax.tree.map(lambda leaf: leaf[last], params)
    slopes = _slopes(work, whole, work.weights[last], work.is_cross_entropy[last], config.steps)
    return np.asarray(slopes, np.float64).reshape(2, config.seeds, -1)


@eqx.filter_jit
def _slopes(work: _Sampled, params: PyTree, weights: Array, is_cross_entropy: Array, steps: int) -> Array:
    def loss(weights: Array, params: PyTree, is_cross_entropy: Array) -> Array:
        # What a step computes is computed again on the way back: kept for all steps it would fill the memory.
        @jax.checkpoint
        def step(state: tuple[PyTree, optax.OptState], _: None) -> tuple[tuple[PyTree, optax.OptState], None]:
            params, memory = state
            updates, memory = work.optimizer.update(jax.grad(work.loss)(params, weights, is_cross_entropy), memory)
            return (optax.apply_updates(params, updates), memory), None

        (params, _), _ = jax.lax.scan(step, (params, work.optimizer.init(params)), length=steps)
        return work.loss(params, jnp.ones_like(weights), is_cross_entropy)

    return jax.vmap(jax.grad(loss))(weights, params, is_cross_entropy)


def _sampled_step(state: tuple[PyTree, optax.OptState], i: Array, work: _Sampled) -> tuple[PyTree, optax.OptState]:
    params, memory = state
    gradient = jax.vmap(jax.grad(work.loss))(params, work.weights, work.is_cross_entropy)
    updates, memory = work.optimizer.update(gradient, memory)
    return optax.apply_updates(params, updates), memory


def _sampled_watch(state: tuple[PyTree, optax.OptState], work: _Sampled) -> dict[str, Array]:
    return {"loss": jax.vmap(work.loss)(state[0], jnp.ones_like(work.weights), work.is_cross_entropy)}
