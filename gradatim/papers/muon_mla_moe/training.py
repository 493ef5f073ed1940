"""Data, models and optimisers of every run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim import datasets
from gradatim.lab import Session
from gradatim.lab.sweeps import Sweep, learning_rate_sweep, take_rows
from gradatim.nets import DecoderLM, matrix_axes, muon_roles
from gradatim.optim import muon, muon_dimension_numbers

from .config import Config, Size

ARMS = ("adamw", "muon")
NAMES = {"adamw": "AdamW", "muon": "Muon", "muon_svd": "Muon, exact factor"}
ADAM_B2 = 0.95
WARM_UP, LAST = 0.05, 0.1
LENGTH_OF_ADAMW = 0.2
"Root mean square of Muon's step in units of the rate, where that of AdamW lies too (Liu et al., arXiv:2502.16982)."
TUNING, JUDGING, STABILITY, NORMS = range(4)
"Folded into the keys, so that the seeds on which rates are chosen are not those on which they are judged."


class Text(NamedTuple):
    """Blocks of one character more than a model reads: each is told the next."""

    train: jax.Array
    validation: jax.Array


@dataclass(frozen=True)
class Corpus:
    """Both parts of the text."""

    train: datasets.Corpus
    validation: datasets.Corpus

    @classmethod
    def load(cls, session: Session) -> Corpus:
        """Shakespeare, and the last four works to validate on."""
        train, validation = (datasets.load_text("shakespeare", split=split) for split in ("train", "validation"))
        session.uses(train.provenance)
        return cls(train, validation)

    def blocks(self, config: Config, size: Size) -> Text:
        """The texts of a model, those to validate on evenly spaced."""
        train = self.train.blocks(size.context + 1)[: config.n_train]
        return Text(jnp.asarray(train), jnp.asarray(self.validation.blocks(size.context + 1, config.n_validation)))


def decoder(config: Config, size: Size, key: Any, *, kind: str = "multi_head, dense", n_symbols: int = 84) -> DecoderLM:
    """A model of one size and kind."""
    attention, feed_forward = kind.split(", ")
    experts: dict[str, Any] = (
        {"n_experts": config.n_routed, "n_shared": config.n_shared, "top_k": config.top_k} if feed_forward == "experts" else {}
    )
    return DecoderLM(
        n_symbols, size.width, size.n_layers, size.n_heads, size.context, attention=attention, hidden=size.hidden, key=key, **experts
    )


def drawn(config: Config, size: Size, key: Any, *, kind: str = "multi_head, dense") -> DecoderLM:
    """A model whose weights all come from one draw, distributed as its layers start: to compile a draw for each takes long."""
    shapes = template(config, size, kind)
    leaves, tree = jax.tree.flatten(shapes)
    sizes = [leaf.size if leaf.ndim > 1 else 0 for leaf in leaves]
    uniform = jax.random.uniform(key, (sum(sizes),), minval=-1.0, maxval=1.0)
    made = []
    for leaf, part in zip(leaves, jnp.split(uniform, np.cumsum(sizes)[:-1]), strict=True):
        if leaf.ndim > 1:
            made.append(part.reshape(leaf.shape) / np.sqrt(leaf.shape[-1]).astype(np.float32))
        else:
            # Gains of the norms, and the whole numbers of the experts' biases.
            made.append(jnp.full(leaf.shape, float(jnp.issubdtype(leaf.dtype, jnp.floating)), leaf.dtype))
    model = jax.tree.unflatten(tree, made)
    # Symbols start with variance 1, as equinox has it.
    return eqx.tree_at(lambda m: m.embedding.weight, model, model.embedding.weight * np.sqrt(3 * size.width).astype(np.float32))


def drawn_rows(key: Any, data: Text, size: Size) -> Any:
    """The texts of every step, with replacement: there are many more than a run reads."""
    return jax.random.randint(key, (size.steps, size.batch_size), 0, len(data.train))


def optimizers(config: Config, model: Any, steps: int) -> dict[str, Callable[[Any], optax.GradientTransformation]]:
    """Each optimiser from its rate: one schedule, one decay of the same matrices, one second moment for what is none."""
    dimensions = muon_dimension_numbers(model)
    decays = jax.tree.map(lambda role: role == "muon", muon_roles(model))

    def with_muon(rate: Any, **how: Any) -> optax.GradientTransformation:
        return muon(
            schedule(rate, steps),
            weight_decay=config.weight_decay,
            adam_b2=ADAM_B2,
            muon_weight_dimension_numbers=lambda _: dimensions,
            consistent_rms=LENGTH_OF_ADAMW,
            **how,
        )

    return {
        "adamw": lambda rate: optax.adamw(schedule(rate, steps), b2=ADAM_B2, weight_decay=config.weight_decay, mask=lambda _: decays),
        "muon": with_muon,
        "muon_svd": lambda rate: with_muon(rate, method="svd"),
    }


def matrices(model: Any) -> list[Any]:
    """Those that Muon orthogonalises, each (outputs, inputs)."""
    axes = matrix_axes(model, muon_roles(model), "muon")
    return jax.tree.leaves(jax.tree.map(lambda numbers, leaf: leaf if numbers else None, axes, model, is_leaf=lambda node: node is None))


def beside_muon(config: Config) -> tuple[str, ...]:
    """The optimisers of runs for which a part asks Muon only."""
    return ARMS if config.beside else ("muon",)


def schedule(rate: Any, steps: int) -> Callable[[Any], Any]:
    """A line up from nothing, then half a cosine down to a tenth; optax's own asks a rate whether it is zero, and it may be traced."""
    warm = max(round(WARM_UP * steps), 1)

    def at(count: Any) -> Any:
        part = jnp.clip((count - warm) / max(steps - warm, 1), 0.0, 1.0)
        cosine = LAST + (1 - LAST) * 0.5 * (1 + jnp.cos(jnp.pi * part))
        return rate * jnp.where(count < warm, (count + 1) / warm, cosine)

    return at


def loss(model: Any, texts: Any) -> Any:
    """Mean surprise at the next character, nats."""
    return loss_and_loads(model, texts)[0]


def loss_and_loads(model: Any, texts: Any) -> Any:
    """The loss, and the tokens that each expert of each layer was chosen by."""
    texts = texts.astype(jnp.int32)
    logits, loads = jax.vmap(model.with_loads)(texts[:, :-1])
    surprise = optax.softmax_cross_entropy_with_integer_labels(logits, texts[:, 1:]).mean()
    return surprise, jax.tree.map(lambda load: load.sum(0), loads)


def evaluate(model: Any, data: Text) -> dict[str, Any]:
    """The loss on the works held out."""
    return {"loss": loss(model, data.validation)}


def batch(data: Text, rows: Any) -> Any:
    """The texts of one step."""
    return take_rows(data.train, rows)


def sweep(
    session: Session, corpus: Corpus, config: Config, size: Size, arms: dict[str, Any], *, purpose: int, every: int, **grid: Any
) -> Sweep:
    """Arms, rates and seeds of the dense model of one size."""
    data = corpus.blocks(config, size)
    return learning_rate_sweep(
        session,
        arms,
        init=lambda key: drawn(config, size, jax.random.fold_in(key, purpose)),
        loss=loss,
        evaluate=evaluate,
        data=data,
        order=lambda key: drawn_rows(jax.random.fold_in(key, purpose), data, size),
        batch=batch,
        steps=size.steps,
        every=every,
        **grid,
    )


def tuned(session: Session, corpus: Corpus, config: Config, size: Size, label: str) -> tuple[dict[str, float], xr.Dataset | None]:
    """The rate of the grid at which each optimiser does best, from one seed; a note where that is at an end of the grid."""
    if len(config.rates) == 1:
        return dict.fromkeys(ARMS, config.rates[0]), None
    fewer = min(config.tuning_steps * size.steps // config.model.steps, size.steps)
    short = dataclasses.replace(size, steps=max(fewer, 10))
    known = optimizers(config, template(config, short), short.steps)
    grid = {"rates": config.rates, "n_seeds": 1, "label": f"choose the rate, {label}"}
    found = sweep(session, corpus, config, short, {arm: known[arm] for arm in ARMS}, purpose=TUNING, every=short.steps, **grid)
    best = {arm: found.best_rate(arm, "loss") for arm in ARMS}
    for arm, rate in best.items():
        # In single precision the grid's numbers come back rounded.
        if np.isclose(rate, [min(config.rates), max(config.rates)]).any():
            session.note(f"{label}: the best rate of {NAMES[arm]}, {rate:g}, is at an end of the grid")
    return best, found.data


def template(config: Config, size: Size, kind: str = "multi_head, dense") -> Any:
    """A model's shapes."""
    return eqx.filter_eval_shape(lambda key: decoder(config, size, key, kind=kind), jax.random.key(0))


def looks(steps: int) -> int:
    """Steps between two looks at the validation loss: 20 looks."""
    return max(steps // 20, 1)


def train_with_experts(
    session: Session, corpus: Corpus, config: Config, kind: str, arm: str, rate: float, *, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Validation loss over `(seed, step)` and the last load over `(seed, layer, expert)` of any kind of model.

    As the sweep trains, with the seeds and batches of its judged runs, and after each step the experts' biases move.
    """
    size = config.model
    data = corpus.blocks(config, size)
    optimizer = optimizers(config, template(config, size, kind), size.steps)[arm](rate)
    keys = jax.vmap(jax.random.split)(jax.random.split(session.key, config.n_seeds))
    models = eqx.filter_jit(eqx.filter_vmap(lambda key: drawn(config, size, jax.random.fold_in(key, JUDGING), kind=kind)))(keys[:, 0])
    orders = eqx.filter_jit(eqx.filter_vmap(lambda key: drawn_rows(jax.random.fold_in(key, JUDGING), data, size)))(keys[:, 1])

    def one(model: Any, inner: Any, rows: Any, data: Text) -> Any:
        gradient, loads = eqx.filter_grad(loss_and_loads, has_aux=True)(model, batch(data, rows))
        updates, inner = optimizer.update(gradient, inner, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates).balanced(loads), inner

    def step(state: Any, i: Any, args: Any) -> Any:
        orders, data = args
        return eqx.filter_vmap(one, in_axes=(eqx.if_array(0), eqx.if_array(0), 0, None))(*state, orders[:, i], data)

    def watch(state: Any, args: Any) -> dict[str, Any]:
        values, loads = eqx.filter_vmap(loss_and_loads, in_axes=(eqx.if_array(0), None))(state[0], args[1].validation)
        counted = [load for load in loads if load is not None]
        return {"loss": values} | ({"load": jnp.stack(counted, 1)} if counted else {})

    begin = eqx.filter_jit(eqx.filter_vmap(lambda model: optimizer.init(eqx.filter(model, eqx.is_inexact_array))))
    loop = session.loop(
        step, (models, begin(models)), steps=size.steps, args=(orders, data), every=looks(size.steps), watch=watch, label=label,
        on_nonfinite="keep",
    )  # fmt: skip
    load = loop.history["load"][-1] if "load" in loop.history else np.zeros((config.n_seeds, size.n_layers, 0), np.int32)
    return loop.history["loss"].T, load
