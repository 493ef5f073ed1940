"""A perceptron trained by every estimator on the same grid of rates, and the variance of the estimates at its start (C3, C4)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim import datasets
from gradatim.lab import Measure, Session, choice_by_others
from gradatim.lab.sweeps import epochs, learning_rate_sweep, time_to_target
from gradatim.optim import activity_perturbation, forward_gradient, node_perturbation, spsa, weight_perturbation, with_estimated_gradient

from .config import Networks

NAMES = {
    "backpropagation": "backpropagation",
    "node": "node perturbation",
    "activity": "activity perturbation",
    "forward_gradient": "forward gradient",
    "weight": "weight perturbation",
    "spsa": "SPSA",
    "spsa_16": "SPSA, 16 directions",
}
EVALUATIONS = {"backpropagation": 3.0, "node": 2.0, "activity": 2.0, "forward_gradient": 2.5, "weight": 2.0, "spsa": 2.0, "spsa_16": 32.0}
"Cost of a step in forward passes: a backward pass counts two, a forward derivative one and a half beside its own."
SHORT = ("backpropagation", "spsa_16")
"Arms that take the shorter number of steps."
TARGET = 0.9


@dataclass(frozen=True)
class Digits:
    """The images, flat, and the pieces of every run on them."""

    config: Networks
    images: dict[str, Any]

    @classmethod
    def load(cls, config: Networks, session: Session) -> Digits:
        """Training, validation and test images."""
        parts = {}
        for split, n in (("train", config.n_train), ("test", config.n_test)):
            data = datasets.load(config.dataset, split=split, n=n, pool=config.pool)
            session.uses(data.provenance)
            parts[split] = (data.images.reshape(len(data), -1), data.labels)
        kept = config.n_validation
        parts["validation"] = tuple(a[-kept:] for a in parts["train"])
        parts["train"] = tuple(a[:-kept] for a in parts["train"])
        return cls(config, jax.tree.map(jnp.asarray, parts))

    def net(self, key: Any) -> eqx.nn.MLP:
        """He's initialisation, no biases at the start."""
        net = eqx.nn.MLP(self.config.pool**2, 10, self.config.width, 1, key=key)
        keys = jax.random.split(key, len(net.layers))
        weights = [
            # Drawn flat: the same numbers, in a program that XLA compiles many times faster than one of two axes.
            jax.random.normal(k, (layer.weight.size,)).reshape(layer.weight.shape) * jnp.sqrt(2 / layer.weight.shape[1])
            for k, layer in zip(keys, net.layers, strict=True)
        ]
        biases = [jnp.zeros(layer.weight.shape[0]) for layer in net.layers]
        return eqx.tree_at(lambda n: [x.weight for x in n.layers] + [x.bias for x in n.layers], net, weights + biases)

    def batch(self, key: Any) -> Any:
        """Training images and labels of a batch."""
        images, labels = self.images["train"]
        rows = epochs(key, len(labels), batch_size=self.config.batch_size, steps=1)[0]
        return images[rows], labels[rows]

    def estimators(self) -> dict[str, Callable[..., Any]]:
        """Those that are compared."""
        return {name: self.known()[name] for name in self.config.estimators}

    def known(self) -> dict[str, Callable[..., Any]]:
        """Functions `(net, images, labels, key=key) -> (value, estimate)`."""
        h = self.config.radius
        return {
            "backpropagation": lambda net, images, labels, *, key: eqx.filter_value_and_grad(batch_loss)(net, images, labels),
            "node": node_perturbation(cross_entropy, radius=h),
            "activity": activity_perturbation(cross_entropy, radius=h),
            "forward_gradient": on_network(lambda fun: forward_gradient(fun)),
            "weight": weight_perturbation(cross_entropy, radius=h),
            "spsa": on_network(lambda fun: spsa(fun, radius=h)),
            "spsa_16": on_network(lambda fun: spsa(fun, radius=h, n_probes=16)),
        }


def cross_entropy(logits: Any, label: Any) -> Any:
    """Of one example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def batch_loss(net: Any, images: Any, labels: Any) -> Any:
    """The mean cross-entropy of a batch."""
    return jax.vmap(cross_entropy)(jax.vmap(net)(images), labels).mean()


def on_network(make: Callable[[Any], Any]) -> Callable[..., Any]:
    """An estimator of a function of arrays, for the mean loss of a network."""

    def value_and_grad(net: Any, images: Any, labels: Any, *, key: Any) -> Any:
        arrays, rest = eqx.partition(net, eqx.is_inexact_array)
        return make(lambda arrays, images, labels: batch_loss(eqx.combine(arrays, rest), images, labels))(arrays, images, labels, key=key)

    return value_and_grad


def train(data: Digits, session: Session) -> xr.Dataset:
    """Accuracy of every arm from every seed, on validation and test images, over steps: at the rate that suits the other seeds best."""
    c = data.config

    @functools.cache
    def order_of(steps: int) -> Callable[[Any], Any]:
        def order(key: Any) -> Any:
            rows = epochs(key, c.n_train - c.n_validation, batch_size=c.batch_size, steps=steps)
            return rows, jax.random.key_data(jax.random.split(jax.random.fold_in(key, 1), steps))

        return order

    parts = []
    for name, estimator in data.estimators().items():
        steps = c.backpropagation_steps if name in SHORT else c.steps
        estimated = with_estimated_gradient(estimator)

        def loss(net: Any, batch: Any, estimated: Any = estimated) -> Any:
            images, labels, key = batch
            return estimated(net, images, labels, key=key)

        sweep = learning_rate_sweep(
            session,
            {name: optax.adam},
            c.rates,
            init=data.net,
            loss=loss,
            evaluate=_evaluate,
            data=data.images,
            order=order_of(steps),
            batch=_batch,
            steps=steps,
            n_seeds=c.n_seeds,
            every=max(steps // 40, 1),
            label="train by",
        )
        curves = sweep.data.sel(arm=name, drop=True).drop_vars("diverged_at")
        last = curves.isel(step=-1, drop=True)
        best = choice_by_others(last.validation, "rate", maximise=True)
        chosen = curves.isel(rate=best).reset_coords("rate").rename(step="look")
        at_edge = np.isin(chosen.rate, (min(c.rates), max(c.rates)))
        if len(c.rates) > 1 and at_edge.any():
            session.note(f"{NAMES[name]} does best at the edge of the grid of rates, {_listed(chosen.rate.values[at_edge])}")
        looks = chosen.look.values * EVALUATIONS[name]
        chosen = chosen.assign(evaluations=("look", looks.astype(float), {"units": "forward passes"}))
        # Arms have looks of their own, and end in NaN where another has more.
        chosen = chosen.assign(final=chosen.accuracy.isel(look=-1)).assign_coords(look=np.arange(chosen.sizes["look"]))
        ends = {f"{what}_by_rate": last[what].rename(rate="tried").reset_coords(drop=True) for what in ("accuracy", "validation")}
        parts.append(chosen.assign(ends).assign_coords(tried=list(c.rates)))
    together = xr.concat(parts, xr.DataArray(list(data.estimators()), dims="arm", name="arm"), join="outer")
    assert isinstance(together, xr.Dataset)
    for name in ("accuracy", "validation", "final", "accuracy_by_rate", "validation_by_rate"):
        together[name].attrs["units"] = "1"
    return together


def _batch(data: Any, entry: Any) -> Any:
    rows, key = entry
    images, labels = data["train"]
    return images[rows], labels[rows], jax.random.wrap_key_data(key)


def _evaluate(net: Any, data: Any) -> dict[str, Any]:
    def accuracy(split: str) -> Any:
        images, labels = data[split]
        return (jax.vmap(net)(images).argmax(1) == labels).mean()

    return {"accuracy": accuracy("test"), "validation": accuracy("validation")}


def training_measures(training: xr.Dataset, session: Session) -> tuple[dict[str, Measure], dict[str, str]]:
    """What backpropagation has ahead of the others, the worse of each kind; each seed at the rate that the other seeds choose.

    For the interval rates, and the worse of a kind, are chosen again without each seed.
    """
    final = training["final"]
    measures, untested = {}, {}
    for part, arms in {"node_deficit": ("node", "activity"), "weight_deficit": ("weight", "forward_gradient")}.items():
        missing = [NAMES[arm] for arm in ("backpropagation", *arms) if arm not in training.arm]
        if missing:
            untested[f"C3.{part}"] = f"{missing[0]} is not among the estimators of this run"
        elif not np.isfinite(final.sel(arm=["backpropagation", *arms])).all():
            untested[f"C3.{part}"] = "a run diverged at its best rate"
        else:
            measures[f"C3.{part}"] = _deficit(training, arms)
    for arm in training.arm.values:
        curves = training.sel(arm=arm)
        looks = np.where(np.isfinite(curves.evaluations.values), curves.evaluations.values, np.inf)
        reached = time_to_target(curves["accuracy"].transpose("seed", "look").values, looks, TARGET, maximise=True)
        when = f"after {np.median(reached):.3g} forward passes (median)" if np.isfinite(np.median(reached)) else "not reached"
        accuracy = float(final.sel(arm=arm).mean())
        session.note(f"{NAMES[str(arm)]}: rate {_listed(curves.rate.values)}, test accuracy {accuracy:.3f}, 90 % {when}")
    return measures, untested


def _deficit(training: xr.Dataset, arms: Sequence[str]) -> Measure:
    """Of the worse of some arms."""

    def mean(arm: str, kept: np.ndarray) -> float:
        ends = training.sel(arm=arm).isel(seed=kept)
        best = choice_by_others(ends["validation_by_rate"], "tried", maximise=True)
        return float(ends["accuracy_by_rate"].isel(tried=best).mean())

    return Measure.leave_one_out(lambda kept: mean("backpropagation", kept) - min(mean(arm, kept) for arm in arms), training.sizes["seed"])


def estimate_quality(data: Digits, session: Session, key: Any) -> tuple[xr.Dataset, Measure]:
    """Second moments of estimates over the squared gradient, and mean cosines, at the start of training.

    A seed has its own network, batch and directions.
    """
    c = data.config
    arms = {name: f for name, f in data.known().items() if name in {"node", "weight", *c.estimators} - {*SHORT}}

    def quality(estimator: Any) -> Any:
        def of_net(key: Any, examples: Any) -> Any:
            net = data.net(key)
            images, labels = Digits(c, examples).batch(jax.random.fold_in(key, 2))
            gradient = _flat(eqx.filter_grad(batch_loss)(net, images, labels))

            def one(k: Any) -> Any:
                estimate = _flat(estimator(net, images, labels, key=k)[1])
                squared = estimate @ estimate
                return squared / (gradient @ gradient), estimate @ gradient / jnp.sqrt(squared * (gradient @ gradient))

            keys = jax.random.split(jax.random.fold_in(key, 1), c.quality_draws)
            ratios, cosines = jax.lax.map(one, keys, batch_size=min(c.quality_draws, 50))
            return ratios.mean(), cosines.mean()

        return eqx.filter_jit(lambda keys, examples: jax.lax.map(lambda k: of_net(k, examples), keys))

    keys = jax.random.split(key, c.quality_seeds)
    found = {name: session.once(f"quality of {name}", quality(f), keys, data.images) for name, f in arms.items()}
    ratios, cosines = (np.stack([np.asarray(pair[i]) for pair in found.values()]) for i in (0, 1))
    described = {"second_moment": (("arm", "net"), ratios, {"units": "1"}), "cosine": (("arm", "net"), cosines, {"units": "1"})}
    quality_data = xr.Dataset(described, {"arm": list(arms)})
    for name in arms:
        mean = quality_data.sel(arm=name).mean("net")
        session.note(f"{NAMES[name]} at the start: E‖ĝ‖²/‖g‖² {float(mean.second_moment):.3g}, mean cosine {float(mean.cosine):.3g}")
    moment = quality_data.second_moment
    return quality_data, Measure.paired(moment.sel(arm="weight").values, moment.sel(arm="node").values, kind="log-ratio")


def _listed(rates: Any) -> str:
    return " or ".join(f"{rate:g}" for rate in np.unique(rates))


def _flat(tree: Any) -> Any:
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])
