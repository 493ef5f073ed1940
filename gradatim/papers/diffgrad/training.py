"""Training a small residual network on images: the choice of rates, the judged runs, activations, the friction of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim import datasets
from gradatim.lab import Session
from gradatim.lab.sweeps import Sweep, epochs, learning_rate_sweep, take_rows
from gradatim.nets import ResNet
from gradatim.optim import diffgrad_friction

from .arms import ACTIVATIONS, NAMES, OPTIMIZERS
from .config import Images

TUNING, JUDGING, ACTIVATION, FRICTION = range(4)
"Folded into the keys, so that the seeds on which rates are chosen are not those on which they are judged."


@dataclass(frozen=True)
class TrainingData:
    """The data and the pieces of every training run on them."""

    config: Images
    train: tuple[Any, Any]
    test: tuple[Any, Any]

    @classmethod
    def load(cls, config: Images, session: Session) -> TrainingData:
        """Reads both splits and tells the session of them."""
        pairs = []
        for split, n in (("train", config.n_train), ("test", config.n_test)):
            data = datasets.load(config.dataset, split=split, n=n, pool=config.pool)
            session.uses(data.provenance)
            pairs.append((jnp.asarray(data.images), jnp.asarray(data.labels)))
        return cls(config, *pairs)

    @property
    def tuning(self) -> dict[str, Any]:
        """What rates are chosen on: the training images, of which some are kept back to judge."""
        kept = self.config.n_validation
        return {"train": jax.tree.map(lambda a: a[:-kept], self.train), "test": jax.tree.map(lambda a: a[-kept:], self.train)}

    @property
    def judging(self) -> dict[str, Any]:
        """What optimisers are judged on: all training images, and the test images."""
        return {"train": self.train, "test": self.test}

    def net(self, key: Any, activation: str = "relu") -> ResNet:
        """A network with fresh parameters."""
        c = self.config
        sizes: dict[str, Any] = {"widths": c.widths, "n_blocks": c.n_blocks, "stem_stride": c.stem_stride}
        return ResNet(1, 10, **sizes, activation=ACTIVATIONS[activation], key=key)

    def steps(self, data: dict[str, Any], n_epochs: int) -> tuple[int, int]:
        """Steps of an epoch, and of all."""
        per_epoch = len(data["train"][1]) // self.config.batch_size
        return per_epoch, n_epochs * per_epoch

    def sweep(
        self,
        session: Session,
        arms: Mapping[str, Any],
        data: dict[str, Any],
        *,
        purpose: int,
        n_epochs: int,
        activation: str = "relu",
        **grid: Any,
    ) -> Sweep:
        """Trains every arm from the same parameters on the same batches; `purpose` sets apart the randomness of one use."""
        per_epoch, steps = self.steps(data, n_epochs)
        n = len(data["train"][1])
        return learning_rate_sweep(
            session,
            arms,
            init=lambda key: self.net(jax.random.fold_in(key, purpose), activation),
            loss=_loss,
            evaluate=_evaluate,
            data=data,
            order=lambda key: epochs(jax.random.fold_in(key, purpose), n, batch_size=self.config.batch_size, steps=steps),
            batch=_batch,
            steps=steps,
            every=per_epoch,
            **grid,
        )


def _batch(data: Any, rows: Any) -> Any:
    return take_rows(data["train"], rows)


def _loss(net: Any, batch: Any) -> Any:
    images, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(images), labels).mean()


def _evaluate(net: Any, data: Any) -> dict[str, Any]:
    images, labels = data["test"]
    logits = jax.vmap(net)(images)
    return {
        "accuracy": 100 * (logits.argmax(1) == labels).mean(),
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(),
    }


def tune(images: TrainingData, session: Session) -> tuple[dict[str, float], xr.Dataset | None]:
    """The factor of the grid at which each optimiser does best on images kept back; a note where that is at an end of the grid."""
    c = images.config
    if len(c.factors) == 1:
        return dict.fromkeys(OPTIMIZERS, c.factors[0]), None
    arms = {name: OPTIMIZERS[name] for name in dict.fromkeys((*c.optimizers, "diffgrad"))}
    sweep = images.sweep(
        session, arms, images.tuning, purpose=TUNING, n_epochs=c.tuning_epochs, rates=c.factors, n_seeds=1, label="choose the rate of"
    )
    best = {name: sweep.best_rate(name, "accuracy", maximise=True) for name in arms}
    if at_edge := [NAMES[name] for name, factor in best.items() if factor in (min(c.factors), max(c.factors))]:
        session.note("best rate at an end of the grid: " + ", ".join(at_edge))
    return best, sweep.data


def compare_optimizers(images: TrainingData, factors: Mapping[str, float], session: Session) -> Sweep:
    """Each optimiser at the factor that was chosen for it, over all seeds."""
    c = images.config
    arms = {name: _scaled(OPTIMIZERS[name], factors[name]) for name in dict.fromkeys((*c.optimizers, "diffgrad"))}
    return images.sweep(
        session, arms, images.judging, purpose=JUDGING, n_epochs=c.epochs, rates=(1.0,), n_seeds=c.n_seeds, label="train with"
    )


def compare_activations(images: TrainingData, factor: float, session: Session) -> xr.Dataset:
    """Last accuracy for each activation, with diffGrad at one rate and with Adam at half of it."""
    c = images.config
    arms = {name: _scaled(OPTIMIZERS[name], factor) for name in ("diffgrad", "adam_half")}
    parts: list[xr.Dataset] = []
    for activation in c.activations:
        sweep = images.sweep(
            session, arms, images.judging, purpose=ACTIVATION, n_epochs=c.activation_epochs, activation=activation,
            rates=(1.0,), n_seeds=c.n_seeds, label=f"{activation} with",
        )  # fmt: skip
        parts.append(sweep.final.isel(rate=0, drop=True).drop_vars("step"))
    return xr.concat(parts, xr.DataArray(list(c.activations), dims="activation", name="activation"))


def _scaled(arm: Any, factor: float) -> Callable[[Any], optax.GradientTransformation]:
    return lambda rate: arm(factor * rate)


def layer_friction(images: TrainingData, factor: float, session: Session) -> xr.Dataset:
    """The mean friction of every layer along one training run: of the step that is to come."""
    c = images.config
    per_epoch, steps = images.steps(images.judging, c.epochs)
    key = jax.random.fold_in(session.key, FRICTION)
    # One batch more than there are steps: at the end, too, the friction is that of a step to come.
    rows = epochs(key, c.n_train, batch_size=c.batch_size, steps=steps + 1)
    optimizer = OPTIMIZERS["diffgrad"](factor)
    net = images.net(key)

    def gradient(net: Any, i: Any, args: Any) -> Any:
        rows, data = args
        return eqx.filter_grad(_loss)(net, _batch(data, rows[i]))

    def step(state: Any, i: Any, args: Any) -> Any:
        net, inner, _ = state
        updates, inner = optimizer.update(gradient(net, i, args), inner, eqx.filter(net, eqx.is_inexact_array))
        return eqx.apply_updates(net, updates), inner, i + 1

    def watch(state: Any, args: Any) -> dict[str, Any]:
        net, inner, now = state
        factors = diffgrad_friction(inner, gradient(net, now, args))
        return {_layer(path): leaf.mean() for path, leaf in jax.tree_util.tree_leaves_with_path(factors) if leaf.ndim > 1}

    state = (net, optimizer.init(eqx.filter(net, eqx.is_inexact_array)), jnp.zeros((), jnp.int32))
    loop = session.loop(
        step, state, steps=steps, args=(rows, images.judging), every=max(per_epoch // 3, 1), watch=watch, label="friction of each layer"
    )
    layers = [name for name in loop.history if name != "step"]
    values = np.stack([loop.history[name] for name in layers])
    return xr.Dataset({"friction": (("layer", "step"), values)}, {"layer": layers, "step": loop.history["step"]})


def _layer(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".weight")
