"""A character model of Shakespeare, of blocks in LLaMA's form, trained at several widths by the three rules."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from gradatim import datasets
from gradatim.lab import Session
from gradatim.nets import DecoderBlock, DecoderLM, label_by_growth
from gradatim.optim import RateAndDecay, WidthScaling, adamw_by_label

from .config import Config, Text
from .plateau import NAMES, late_means, matrix_pairs, note_waits

SUBLAYERS = {"attention": (("query", "key", "value"), "output"), "feed_forward": (("gate", "up"), "down")}
"Of a block: the matrices that see the normalised tokens, and the one behind them."
CLASSES = tuple(name for first, last in SUBLAYERS.values() for name in (*first, last))
HIDDEN = Fraction(11, 4)
"Feed-forward units over width: LLaMA's 8/3, raised so that all multiples of 4 can have it."
PURPOSE = 0
"Folded into the key; the noise has the widths, which are larger."


class Texts(NamedTuple):
    """The characters to train on, and texts of the works held out, each one character longer than the context."""

    train: Int[Array, " characters"]
    validation: Int[Array, "texts characters"]


class Lane(NamedTuple):
    """What stays the same in a run: `(learning rate, decay)` of the matrices, and the seed's key."""

    matrix: Float[Array, " rate_and_decay"]
    key: PRNGKeyArray


class Training(NamedTuple):
    """Model and optimiser."""

    model: DecoderLM
    optimizer: Any
    done: Int[Array, ""]
    "Steps so far."


def load_texts(config: Text, session: Session) -> tuple[Texts, int, float]:
    """Shakespeare, held-out texts evenly over the last four works; how many symbols there are; and the surprise at those texts of who
    knows nothing but how often each symbol is, nats a character.
    """
    train, validation = (datasets.load_text("shakespeare", split=split) for split in ("train", "validation"))
    session.uses(train.provenance)
    chosen = validation.blocks(config.context + 1, config.n_validation)
    # One more of each: a symbol may be missing from the training part.
    counts = np.bincount(train.tokens, minlength=train.vocabulary_size) + 1
    surprise = -np.log(counts / counts.sum())[chosen[:, 1:]].mean()
    texts = Texts(jnp.asarray(train.tokens, jnp.int32), jnp.asarray(chosen, jnp.int32))
    return texts, train.vocabulary_size, float(surprise)


def draw_texts(train: Int[Array, " all"], config: Text, key: PRNGKeyArray) -> Int[Array, "texts characters"]:
    """A batch: texts of the context and one character more, from anywhere."""
    starts = jax.random.randint(key, (config.batch_size,), 0, len(train) - config.context)
    return train[starts[:, None] + jnp.arange(config.context + 1)[None]]


def make_decoder(config: Text, vocabulary: int, width: int, *, key: PRNGKeyArray) -> DecoderLM:
    """A model whose heads become more, not wider."""
    return DecoderLM(vocabulary, width, config.n_layers, width // config.head_dim, config.context, hidden=int(HIDDEN * width), key=key)


def check_sizes(config: Text) -> None:
    """Checks that heads and feed-forward units come out whole.

    **Raises:** `ValueError` if they do not.
    """
    for name, sizes, divisor, of in (
        ("head_dim", (config.head_dim,), HIDDEN.denominator, "so that feed-forward units come out whole"),
        ("widths", config.widths, config.head_dim, "the heads' dimension"),
    ):
        if any(size % divisor for size in sizes):
            raise ValueError(f"text.{name} must be a multiple of {divisor}, {of}, got {', '.join(map(str, sizes))}")


class Trainer:
    """Trains models of one width, many at once: rates, decays and keys are arguments, with a first axis over the runs.

    **Arguments:** `vocabulary`, `width`; `b1`, `b2`: of AdamW.
    """

    def __init__(self, config: Text, vocabulary: int, width: int, *, b1: float, b2: float) -> None:
        self.config, self.base_width, self.b1, self.b2 = config, config.widths[0], b1, b2
        self.shapes, larger = (
            eqx.filter_eval_shape(make_decoder, config, vocabulary, d, key=jax.random.key(0)) for d in (width, 2 * width)
        )
        self.labels = label_by_growth(self.shapes, larger)
        self.multiplier = WidthScaling(self.base_width, width).output_multiplier

    def begin(self, lanes: Lane) -> Training:
        """First weights, and the optimisers' states."""
        return eqx.filter_jit(self._begin)(lanes)

    def _begin(self, lanes: Lane) -> Training:
        def one(lane: Lane) -> Training:
            model = self.draw(jax.random.fold_in(lane.key, 0))
            optimizer = self.optimizer(lane).init(eqx.filter(model, eqx.is_inexact_array))
            return Training(model, optimizer, jnp.zeros((), jnp.int32))

        return eqx.filter_vmap(one)(lanes)

    def draw(self, key: PRNGKeyArray) -> DecoderLM:
        """First weights: normal, of deviation 1/√(fan in) in the matrices, 1 in the embedding, 1/√(base width) in the read-out; gains 1."""
        leaves, tree = jax.tree.flatten(self.shapes)
        labels = jax.tree.leaves(self.labels)
        sizes = [leaf.size if leaf.ndim > 1 else 0 for leaf in leaves]
        # One draw for all: to compile one for each takes long.
        parts = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
        made: list[Array] = []
        for leaf, label, part in zip(leaves, labels, parts, strict=True):
            fan_in = {"matrix": leaf.shape[-1], "output": self.base_width}.get(label, 1)
            made.append(part.reshape(leaf.shape) / math.sqrt(fan_in) if leaf.ndim > 1 else jnp.ones(leaf.shape, leaf.dtype))
        return jax.tree.unflatten(tree, made)

    def step(self, states: Training, i: Any, args: tuple[Lane, Texts]) -> Training:
        """One step of every run, on texts that depend on its seed and the steps so far alone."""
        del i  # a run is made of several loops
        lanes, texts = args

        def one(state: Training, lane: Lane) -> Training:
            gradient = eqx.filter_grad(self.loss)(state.model, self.batch(texts, lane.key, state.done))
            updates, optimizer = self.optimizer(lane).update(gradient, state.optimizer, eqx.filter(state.model, eqx.is_inexact_array))
            return Training(eqx.apply_updates(state.model, updates), optimizer, state.done + 1)

        return eqx.filter_vmap(one)(states, lanes)

    def batch(self, texts: Texts, key: PRNGKeyArray, done: Int[Array, ""]) -> Int[Array, "texts characters"]:
        """The texts of a step."""
        return draw_texts(texts.train, self.config, jax.random.fold_in(jax.random.fold_in(key, 1), done))

    def optimizer(self, lane: Lane) -> optax.GradientTransformation:
        """AdamW, with the lane's rate and decay for matrices."""
        vector = RateAndDecay(self.config.vector_rate, 0.0)
        classes = {"matrix": (lane.matrix[0], lane.matrix[1]), "vector": vector, "output": vector}
        return adamw_by_label(classes, self.labels, b1=self.b1, b2=self.b2)

    def logits(self, model: DecoderLM, tokens: Int[Array, "texts tokens"]) -> Float[Array, "texts tokens vocabulary"]:
        """What is predicted of the next characters."""
        return self.multiplier * jax.vmap(model)(tokens)

    def loss(self, model: DecoderLM, texts: Int[Array, "texts characters"]) -> Float[Array, ""]:
        """Mean surprise at the next character, nats."""
        return _surprise(self.logits(model, texts[:, :-1]), texts[:, 1:])

    def readings(self, states: Training, args: tuple[Lane, Texts]) -> dict[str, Array]:
        """Validation loss, largest singular value and gain of every matrix, and gain of every sublayer, of all runs."""
        arrays, rest = eqx.partition(states.model, eqx.is_array)
        # One after another: all texts held out are many more than a batch.
        return jax.lax.map(lambda arrays: self._readings(eqx.combine(arrays, rest), args[1].validation), arrays)

    def _readings(self, model: DecoderLM, texts: Int[Array, "texts characters"]) -> dict[str, Array]:
        x, gains = model.embedding.weight[texts[:, :-1]], []
        for block in model.blocks:
            x, found = block_gains(block, x)
            gains.append(found)
        logits = self.multiplier * jax.vmap(jax.vmap(model.norm))(x) @ model.readout.weight.T
        return {
            "loss": _surprise(logits, texts[:, 1:]),
            "top": jnp.concatenate([top_values(block) for block in model.blocks]),
            **{name: jnp.concatenate([found[name] for found in gains]) for name in gains[0]},
        }


def block_gains(
    block: DecoderBlock, x: Float[Array, "texts tokens width"]
) -> tuple[Float[Array, "texts tokens width"], dict[str, Float[Array, " _"]]]:
    """The tokens after a block, and rms out over rms in of its matrices, in the order of `CLASSES`, and of its sublayers."""
    of_matrices: list[Array] = []
    of_sublayers: list[Array] = []
    for name, (first, last) in SUBLAYERS.items():
        sublayer: Any = getattr(block, name)
        normalised = jax.vmap(jax.vmap(getattr(block, f"{name}_norm")))(x)
        images = {matrix: normalised @ getattr(sublayer, matrix).weight.T for matrix in first}
        of_matrices += [_rms(image) / _rms(normalised) for image in images.values()]
        if name == "attention":
            # With the identity for the last matrix, attention ends with what that sees.
            weight = sublayer.output.weight
            seen = jax.vmap(eqx.tree_at(lambda s: s.output.weight, sublayer, jnp.eye(weight.shape[1], dtype=weight.dtype)))(normalised)
        else:
            seen = jax.nn.silu(images["gate"]) * images["up"]
        added = seen @ getattr(sublayer, last).weight.T
        of_matrices.append(_rms(added) / _rms(seen))
        of_sublayers.append(_rms(added) / _rms(normalised))
        x = x + added
    return x, {"gain": jnp.stack(of_matrices), "sublayer_gain": jnp.stack(of_sublayers)}


def top_values(block: DecoderBlock) -> Float[Array, " matrices"]:
    """The largest singular value of each matrix, in the order of `CLASSES`."""
    weights = [getattr(getattr(block, name), m).weight for name, (first, last) in SUBLAYERS.items() for m in (*first, last)]
    return jnp.stack([jnp.linalg.svdvals(w if w.shape[0] >= w.shape[1] else w.T)[0] for w in weights])


def _surprise(logits: Float[Array, "texts tokens vocabulary"], following: Int[Array, "texts tokens"]) -> Float[Array, ""]:
    return optax.softmax_cross_entropy_with_integer_labels(logits, following).mean()


def _rms(values: Array) -> Array:
    return jnp.sqrt(jnp.mean(values**2))


def train_on_text(config: Config, session: Session) -> xr.Dataset:
    """Readings on the plateau for every rule and width, `(width, rule, seed, …)`, and `surprise`, of who knows but frequencies."""
    t = config.text
    texts, vocabulary, surprise = load_texts(t, session)
    seeds = jax.random.split(jax.random.fold_in(session.key, PURPOSE), t.n_seeds)
    layers = range(1, t.n_layers + 1)
    axes = {
        "matrix": [f"{name} {layer}" for layer in layers for name in CLASSES],
        "sublayer": [f"{name.replace('_', '-')} {layer}" for layer in layers for name in SUBLAYERS],
    }
    dims = {"top": ("matrix",), "gain": ("matrix",), "sublayer_gain": ("sublayer",)}
    parts: list[xr.Dataset] = []
    for width in t.widths:
        trainer = Trainer(t, vocabulary, width, b1=config.b1, b2=config.b2)
        pairs = matrix_pairs(t.widths[0], width, t.rate, t.decay)
        note_waits(session, pairs, NAMES, f"text, width {width}", t.steps)
        # By pair, for at the base width the rules are one; seeds together, and no more, whose arrays would not stay in the cache.
        means: dict[RateAndDecay, dict[str, np.ndarray]] = {}
        for name, pair in pairs.items():
            if pair not in means:
                lanes, label = make_lanes(pair, seeds), f"text, width {width}, {NAMES[name]}"
                states, args = trainer.begin(lanes), (lanes, texts)
                means[pair] = late_means(session, trainer.step, states, steps=t.steps, args=args, watch=trainer.readings, label=label)
        shaped: dict[str, Any] = {
            quantity: (("rule", "seed", *dims.get(quantity, ())), np.stack([means[pair][quantity] for pair in pairs.values()]))
            for quantity in next(iter(means.values()))
        }
        shaped["root_ratio"] = ("rule", np.array([(rate / decay) ** 0.5 for rate, decay in pairs.values()]))
        parts.append(xr.Dataset(shaped, {"rule": list(pairs), "seed": np.arange(t.n_seeds), **axes}))
    data = xr.concat(parts, xr.DataArray(list(t.widths), dims="width", name="width"))
    return data.assign(surprise=surprise)


def make_lanes(pair: RateAndDecay, seeds: Key[Array, " seeds"]) -> Lane:
    """One pair of rate and decay with every seed."""
    return Lane(jnp.tile(jnp.asarray(tuple(pair))[None], (len(seeds), 1)), seeds)
