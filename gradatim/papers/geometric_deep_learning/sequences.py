"""Time: shifts and rest, slowed signals and gates (C11), and what is remembered for long (C17)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure, Session, host_generator
from gradatim.nets.geometric import GatedUpdate, SimpleRNN, chrono_bias, rnn_fixed_point_init, run_rnn, time_warp

from .config import Memory, Warping
from .random_weights import drawn
from .rates import at, chosen_by_others, in_words, on_edge
from .training import single, stacked, train_together

DELAY = 5
"Steps of silence before a signal."
GATES = 200_000
"Drawn for their mean."
SHORTEST, LONGEST = 2.0, 100.0
"Memories of the gates that are drawn, steps."
CELLS = ("plain", "LSTM", "LSTM for long times")


def rest(session: Session) -> dict[str, Measure]:
    """A network that rests before the signal comes, one that does not, and the mean of chrono gates."""
    random = host_generator(jax.random.fold_in(session.key, 23))
    # With a gain below one the update is a contraction.
    cell = drawn(lambda: SimpleRNN(2, 8, key=jax.random.key(0)), random)
    cell = eqx.tree_at(lambda cell: cell.state_weight, cell, 0.7 * cell.state_weight / np.linalg.norm(cell.state_weight, 2))
    signal = random.normal(size=(12, 2))
    silence = np.zeros((DELAY, 2))

    @jax.jit
    def measure(cell: Any, key: Array, signal: Array, silence: Array) -> Any:
        # Within the round-off of double precision, or of single.
        tolerance = 1e-12 if signal.dtype == jnp.float64 else 1e-7
        found = rnn_fixed_point_init(cell, 2, jnp.zeros(8, signal.dtype), tolerance=tolerance)
        ways = jnp.stack([jnp.concatenate([signal, silence]), jnp.concatenate([silence, signal])])
        starts = jnp.stack([found.state, jnp.zeros_like(found.state)])
        now, later = jax.vmap(lambda x: jax.vmap(lambda start: run_rnn(cell, x, start))(starts))(ways)
        now, later = now[:, :-DELAY], later[:, DELAY:]
        errors = jnp.abs(later - now).max(axis=(1, 2)) / jnp.abs(now).max(axis=(1, 2))
        gates = jax.nn.sigmoid(chrono_bias(key, GATES, shortest=SHORTEST, longest=LONGEST))
        return errors, found.is_converged, gates.mean(), gates.std()

    key = jax.random.fold_in(session.key, 24)
    errors, is_converged, mean, std = session.once("rest and gates", lambda: tuple(map(np.asarray, measure(cell, key, signal, silence))))
    if not is_converged:
        raise ArithmeticError("the network's state of rest was not found, though its update is a contraction")
    session.note(f"C11: outputs of a delayed sequence differ by {errors[1]:.2g} where the first state is zero and not at rest")
    return {
        "C11.shift_error_at_rest": Measure.exact(float(errors[0])),
        "C11.chrono_mean_gate": Measure.exact(float(mean), 1.96 * float(std) / GATES**0.5),
    }


def warping(config: Warping, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Gated networks told which of two signals came first, judged on slower sequences with and without slower gates."""
    random = host_generator(jax.random.fold_in(session.key, 25))
    seeds, n, length = config.seeds, config.sequences, config.length

    def make(key: Array) -> Any:
        keys = jax.random.split(key)
        return GatedUpdate(2, config.hidden, key=keys[0]), eqx.nn.Linear(config.hidden, 4, key=keys[1])

    nets = stacked([single(make(key)) for key in jax.random.split(jax.random.fold_in(session.key, 30), seeds)])
    # Memories as long as the sequences: the gates' own biases.
    biases = -np.log(random.uniform(2, length, size=(seeds, config.hidden)) - 1).astype(np.float32)
    nets = eqx.tree_at(lambda nets: nets[0].bias, nets, jnp.asarray(biases))
    train, test = ([events(random, n, length) for _ in range(seeds)] for _ in range(2))
    data, unseen = (tuple(np.stack(parts) for parts in zip(*some, strict=True)) for some in (train, test))
    rows = random.integers(n, size=(config.steps, seeds, config.batch_size)).astype(np.int32)
    nets, history = train_together(
        session, nets, lambda net, data, rows: _order_loss(net, data[0][rows], data[1][rows]), data, rows,
        rates=np.full(seeds, config.learning_rate), which=np.arange(seeds), steps=config.steps, label="order of events",
    )  # fmt: skip

    @eqx.filter_jit
    def judge(nets: Any, data: Any) -> Any:
        slow_length = round((length - 1) / config.speed) + 1
        times = (config.speed * jnp.arange(slow_length)).astype(jnp.float32)

        def one(net: Any, sequences: Array, labels: Array) -> Any:
            slow = jax.vmap(lambda x: time_warp(x, times))(sequences)
            slower = (net[0].slowed(config.speed), net[1])
            return jnp.stack([_order_loss(net, sequences, labels), _order_loss(net, slow, labels), _order_loss(slower, slow, labels)])

        return eqx.filter_vmap(one)(nets, *data)

    losses = session.once("slowed sequences", lambda: np.asarray(judge(nets, unseen)))
    session.note(
        f"C11: loss at the speed of training {losses[:, 0].mean():.3g}, at {config.speed:g} of it {losses[:, 1].mean():.3g} "
        f"and with gates scaled alike {losses[:, 2].mean():.3g} (log 4 = 1.386 without an answer)"
    )
    kinds = ["as learnt", "slowed", "slowed, gates too"]
    data = xr.Dataset(
        {
            "loss": (("seed", "judged"), losses, {"units": "nat"}),
            "history": (("step", "seed"), history["loss"], {"units": "nat"}),
        },
        {"judged": kinds, "step": history["step"]},
    )
    return {"C11.warped_loss_ratio": Measure.paired(losses[:, 2], losses[:, 1], "log-ratio")}, data


def events(random: np.random.Generator, n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences with two smooth events, each on one of two channels, and which two they were: their order is all there is to tell."""
    kinds = random.integers(2, size=(n, 2))
    times = np.stack([random.uniform(0.1, 0.4, n), random.uniform(0.5, 0.8, n)], axis=1) * length
    bumps = np.exp(-((np.arange(length)[None, :, None] - times[:, None]) ** 2) / (2 * (length / 25) ** 2))
    sequences = np.einsum("nte,nec->ntc", bumps, np.eye(2)[kinds])
    return sequences.astype(np.float32), (2 * kinds[:, 0] + kinds[:, 1]).astype(np.int32)


def _order_loss(net: Any, sequences: Array, labels: Array) -> Array:
    cell, readout = net

    def last(x: Array) -> Array:
        return jax.lax.scan(lambda h, z: (cell(z, h), None), jnp.zeros(cell.bias.shape, x.dtype), x)[0]

    logits = jax.vmap(readout)(jax.vmap(last)(sequences))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def memory(config: Memory, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Each network repeats symbols after a long time, at the rate that is best for the other seeds."""
    random = host_generator(jax.random.fold_in(session.key, 26))
    seeds, width, key = config.seeds, config.hidden, jax.random.key(0)
    n_in, shape = config.alphabet + 1, (config.symbols,)
    drawn_symbols = random.integers(config.alphabet, size=(config.steps, seeds, config.batch_size, *shape)).astype(np.int32)
    chosen, unseen = (random.integers(config.alphabet, size=(seeds, config.held_out, *shape)).astype(np.int32) for _ in range(2))
    longest = config.lag + 2 * config.symbols
    long_times = np.log(random.uniform(2, longest, size=(seeds, width)) - 1).astype(np.float32)
    zeros = np.zeros_like(long_times)
    makers = {
        "plain": lambda: SimpleRNN(n_in, width, key=key),
        "LSTM": lambda: eqx.nn.LSTMCell(n_in, width, key=key),
    }
    keys = jax.random.split(jax.random.fold_in(session.key, 31), seeds)
    readouts = [single(eqx.nn.Linear(width, config.alphabet, key=one)) for one in keys]
    cells = {name: [_uniform(single(drawn(make, random)), random, width) for _ in range(seeds)] for name, make in makers.items()}
    cells["LSTM for long times"] = cells["LSTM"]
    rates = np.repeat(config.rates, seeds)
    which = np.tile(np.arange(seeds), len(config.rates))

    def loss(net: Any, data: Any, symbols: Array) -> Array:
        del data
        return copy_loss(net, symbols, config)

    @eqx.filter_jit
    def judge(nets: Any, which: Array, held: Any) -> Any:
        return eqx.filter_vmap(lambda net, k: jnp.stack([copy_loss(net, symbols[k], config) for symbols in held]))(nets, which)

    losses, histories, steps = [], [], np.zeros(0)
    for name in CELLS:
        nets = stacked([(cell, readout) for cell, readout in zip(cells[name], readouts, strict=True)])
        if name == "LSTM for long times":
            bias = np.concatenate([-long_times, long_times, zeros, zeros], axis=1)
            nets = eqx.tree_at(lambda nets: nets[0].bias, nets, jnp.asarray(bias))
        nets, history = train_together(
            session, nets, loss, zeros, drawn_symbols, rates=rates, which=which, steps=config.steps, label=f"memory of {name}"
        )
        found = session.once(f"memory of {name}, judged", lambda nets=nets: np.asarray(judge(nets, jnp.asarray(which), (chosen, unseen))))
        losses.append(found.reshape(len(config.rates), seeds, 2))
        histories.append(history["loss"].reshape(-1, len(config.rates), seeds))
        steps = history["step"]
    # A run that diverges is no worse than any other answer.
    return _judged(config, np.where(np.isfinite(losses), losses, np.inf), np.stack(histories), steps, session)


def _judged(
    config: Memory, losses: np.ndarray, histories: np.ndarray, steps: np.ndarray, session: Session
) -> tuple[dict[str, Measure], xr.Dataset]:
    """Each seed at the others' rate: `losses` by cell, rate, seed and what chooses or is judged, `histories` by cell, step, rate, seed."""
    baseline = float(np.log(config.alphabet))
    choices = np.stack([chosen_by_others(held) for held in losses[..., 0]])
    judged = np.stack([at(unseen, choice) for unseen, choice in zip(losses[..., 1], choices, strict=True)])
    ratios = judged / baseline
    edges = ", ".join(
        f"{name} {in_words(choice, config.rates)}{', one on the edge of the grid' if on_edge(choice, config.rates) else ''}"
        for name, choice in zip(CELLS, choices, strict=True)
    )
    session.note(
        f"C17: loss over log {config.alphabet}, the best without memory, mean over seeds: "
        + ", ".join(f"{name} {ratio.mean():.3g}" for name, ratio in zip(CELLS, ratios, strict=True))
        + f"; best rates: {edges}"
    )
    measures = {"C17.gated_loss_ratio": Measure.over_seeds(ratios[2]), "C17.plain_loss_ratio": Measure.over_seeds(ratios[0])}
    data = xr.Dataset(
        {
            "loss": (("cell", "seed"), judged, {"units": "nat"}),
            "loss_by_rate": (("cell", "rate", "seed"), losses[..., 1], {"units": "nat"}),
            "history": (("cell", "step", "seed"), np.take_along_axis(histories, choices[:, None, None], 2)[:, :, 0], {"units": "nat"}),
            "taken_rate": (("cell", "seed"), np.asarray(config.rates)[choices], {"units": "1"}),
        },
        {"cell": list(CELLS), "rate": list(config.rates), "step": steps},
        {"baseline": baseline},
    )
    return measures, data


def _uniform(cell: Any, random: np.random.Generator, width: int) -> Any:
    """The weights that cells usually start with, uniform between ±1/√width, and no biases."""

    def draw(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        numbers = np.zeros(leaf.shape) if leaf.ndim == 1 else random.uniform(-1, 1, leaf.shape) / width**0.5
        return jnp.asarray(numbers.astype(np.float32))

    return jax.tree.map(draw, cell)


def copy_loss(net: Any, symbols: Array, config: Memory) -> Array:
    """The mean cross-entropy of the repetition: symbols, silence, and a signal for each symbol to be told."""
    cell, readout = net
    quiet, signal = jnp.zeros((config.lag, config.alphabet + 1)), jnp.eye(config.alphabet + 1)[-1:]
    signals = jnp.repeat(signal, config.symbols, axis=0)

    def of_one(symbols: Array) -> Array:
        inputs = jnp.concatenate([jax.nn.one_hot(symbols, config.alphabet + 1), quiet, signals]).astype(jnp.float32)
        hidden = jnp.zeros(readout.weight.shape[1], jnp.float32)
        start = (hidden, hidden) if isinstance(cell, eqx.nn.LSTMCell) else hidden
        final = jax.lax.scan(lambda state, z: (cell(z, state), None), start, inputs[: -config.symbols])[0]
        outputs = jax.lax.scan(lambda state, z: ((after := cell(z, state)), after), final, inputs[-config.symbols :])[1]
        logits = jax.vmap(readout)(outputs[0] if isinstance(cell, eqx.nn.LSTMCell) else outputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, symbols).mean()

    return jax.vmap(of_one)(symbols).mean()
