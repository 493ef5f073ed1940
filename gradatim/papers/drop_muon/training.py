"""C3 and C4: convolutional networks on images, Muon and Drop-Muon under several distributions, by steps and by the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim import datasets
from gradatim.lab import Measure, Session
from gradatim.lab.sweeps import NEVER, Sweep, epochs, take_rows, time_to_target
from gradatim.nets import Convolution, layer_indices
from gradatim.optim import (
    LayerSampler,
    drop_muon,
    drop_step,
    every_layer,
    independent_layers,
    muon_dimension_numbers,
    sampled_starts,
    shifting_starts,
    uniform_starts,
)
from gradatim.papers.drop_muon.config import Images

N_CLASSES = 10
TUNING, JUDGING, TIMING = 300, 301, 302
"Folded into the keys: rates are chosen on seeds that are not judged."


class ThreeConvolutions(eqx.Module):
    """3 × 3 convolutions with ReLU, each with more channels on a coarser grid, and a linear read-out of all that is left."""

    convolutions: tuple[Convolution, ...]
    readout: eqx.nn.Linear

    def __init__(self, images: Images, side: int, *, key: jax.Array) -> None:
        *keys, last = jax.random.split(key, len(images.widths) + 1)
        channels = zip((1, *images.widths), images.widths, keys, strict=False)
        self.convolutions = tuple(Convolution(n, m, stride=images.stride, key=k) for n, m, k in channels)
        for _ in images.widths:
            side = -(-side // images.stride)
        self.readout = eqx.nn.Linear(side * side * images.widths[-1], N_CLASSES, key=last)

    def __call__(self, image: jax.Array) -> jax.Array:
        """The logits of one image."""
        for convolution in self.convolutions:
            image = jax.nn.relu(convolution(image))
        return self.readout(image.ravel())


def samplers(images: Images) -> dict[str, LayerSampler]:
    """What each arm updates."""
    b = len(images.widths)
    deep = np.exp(images.shift * np.arange(b))
    every = {
        "muon": every_layer(b),
        "uniform": uniform_starts(b),
        "shift": shifting_starts(b, images.shift),
        "reversed": shifting_starts(b, -images.shift),
        "independent": independent_layers([(b + 1) / (2 * b)] * b),
        "deep": sampled_starts((deep / deep.sum()).tolist()),
    }
    return {arm: every[arm] for arm in images.arms}


@dataclass(frozen=True, eq=False)
class Race:
    """Data on the device, and a step for each set of layers, shared by all arms, rates and seeds."""

    images: Images
    data: dict[str, Any]
    side: int
    layers: Any
    numbers: Any
    steps: dict[tuple[bool, ...], Callable[[Any, Any, Any], Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, images: Images, session: Session) -> Race:
        """Reads the images and tells the session where they come from."""
        loaded = {}
        for split, n in {"train": images.n_train, "test": images.n_test}.items():
            dataset = datasets.load(images.dataset, split=split, n=n)
            session.uses(dataset.provenance)
            loaded[split] = (jnp.asarray(dataset.images), jnp.asarray(dataset.labels))
        side = loaded["train"][0].shape[1]
        net = eqx.filter_eval_shape(ThreeConvolutions, images, side, key=jax.random.key(0))
        return cls(images, loaded, side, layer_indices(net, net.convolutions), muon_dimension_numbers(net))

    def optimizer(self, rate: Any) -> optax.GradientTransformationExtraArgs:
        """Drop-Muon; Muon, where all layers are active at each step."""
        return drop_muon(
            rate,
            self.layers,
            beta=self.images.momentum,
            adam_learning_rate=self.images.adam_rate,
            muon_weight_dimension_numbers=lambda _: self.numbers,
        )

    def step(self, active: tuple[bool, ...]) -> Callable[[Any, Any, Any], Any]:
        """The step that updates just these layers, one function for all arms, so that it is compiled once."""
        if active not in self.steps:
            self.steps[active] = self._step(active)
        return self.steps[active]

    def _step(self, active: tuple[bool, ...]) -> Callable[[Any, Any, Any], Any]:
        def step(state: Any, i: Any, args: Any) -> Any:
            net, inner = state
            rate, order, data = args
            moved = drop_step(loss, self.optimizer(rate), self.layers, active)
            net, inner, _ = moved(net, inner, take_rows(data["train"], order[i]))
            return net, inner

        return step

    def begin(self, key: jax.Array, rate: Any) -> Any:
        """A network and its optimiser's state."""
        net = ThreeConvolutions(self.images, self.side, key=key)
        return net, self.optimizer(rate).init(eqx.filter(net, eqx.is_inexact_array))

    def race(
        self, session: Session, rates: dict[str, tuple[float, ...]], *, fold: int, n_seeds: int, steps: int, every: int, label: str
    ) -> xr.Dataset:
        """Curves of every arm at its rates over seeds, and which variant each step was; the data and first weights of a seed are shared."""
        images = self.images
        points = np.unique([*range(0, steps, every), steps])
        shape = (len(rates), max(map(len, rates.values())), n_seeds)
        curves = {name: np.full((*shape, len(points)), np.nan) for name in ("train", "test", "loss")}
        diverged_at = np.full(shape, NEVER)
        drawn = np.zeros((len(rates), n_seeds, steps), int)
        begin = eqx.filter_jit(self.begin)
        batches = jax.jit(lambda key: epochs(key, images.n_train, batch_size=images.batch_size, steps=steps))
        for s in range(n_seeds):
            weights, order, draws = jax.random.split(jax.random.fold_in(jax.random.fold_in(session.key, fold), s), 3)
            rows = batches(order)
            for a, (arm, grid) in enumerate(rates.items()):
                sampler = samplers(images)[arm]
                drawn[a, s] = np.asarray(_draw(sampler, draws, steps))
                choice = drawn[a, s].tolist()
                for r, rate in enumerate(grid):
                    loop = session.loop(
                        [self.step(active) for active in sampler.variants],
                        begin(weights, jnp.float32(rate)),
                        choose=choice.__getitem__,
                        args=(jnp.float32(rate), rows, self.data),
                        steps=steps,
                        every=every,
                        watch=self.watch,
                        label=f"{label} {arm} {rate:.3g} seed {s}",
                        on_nonfinite="stop",
                    )
                    kept = np.isin(points, loop.history["step"])
                    for name, curve in curves.items():
                        curve[a, r, s, kept] = loop.history[name][np.isin(loop.history["step"], points)]
                    if loop.diverged_at is not None:
                        diverged_at[a, r, s] = loop.diverged_at
        units = {"train": "%", "test": "%", "loss": "nat"}
        dims = ("arm", "rate", "seed", "step")
        variables: dict[str, Any] = {name: (dims, curve, {"units": units[name]}) for name, curve in curves.items()}
        variables |= {"diverged_at": (dims[:3], diverged_at), "variant": (("arm", "seed", "update"), drawn)}
        grid = next(iter(rates.values())) if len({*rates.values()}) == 1 else range(shape[1])
        return xr.Dataset(variables, {"arm": list(rates), "rate": list(grid), "seed": np.arange(n_seeds), "step": points})

    def watch(self, state: Any, args: Any) -> dict[str, Any]:
        """Accuracy on the first images of either split, percent, and the loss on those of training."""
        net, _ = state
        data = jax.tree.map(lambda array: array[: self.images.n_looked_at], args[2])
        watched = {}
        for split in ("train", "test"):
            pictures, labels = data[split]
            logits = jax.vmap(net)(pictures)
            watched[split] = 100 * (logits.argmax(1) == labels).mean()
            if split == "train":
                watched["loss"] = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return watched


@eqx.filter_jit
def _draw(sampler: LayerSampler, key: jax.Array, n_steps: int) -> Any:
    return sampler.draw(key, n_steps)


def loss(net: Any, batch: Any) -> Any:
    """Mean cross-entropy of a batch."""
    pictures, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(pictures), labels).mean()


def choose_rates(race: Race, session: Session) -> tuple[dict[str, float], xr.Dataset | None]:
    """The rate of each arm with the highest mean training accuracy at the end of short pilots; notes those at an end of the grid."""
    images = race.images
    if len(images.rates) == 1:
        return dict.fromkeys(images.arms, images.rates[0]), None
    grid = tuple(sorted(images.rates))
    steps, n_pilots = images.tuning_steps, images.n_pilots
    tuning = race.race(session, dict.fromkeys(images.arms, grid), fold=TUNING, n_seeds=n_pilots, steps=steps, every=steps, label="tuning")
    sweep = Sweep(tuning)
    best = {arm: sweep.best_rate(arm, "train", maximise=True) for arm in images.arms}
    for arm, rate in best.items():
        if rate in (grid[0], grid[-1]):
            session.note(f"the best learning rate of {arm}, {rate:.3g}, is at an end of the grid {', '.join(f'{g:.3g}' for g in grid)}")
    return best, tuning


def time_steps(race: Race, session: Session) -> xr.DataArray:
    """Seconds of one step of every variant, compiled, in turns."""
    images = race.images
    key = jax.random.fold_in(session.key, TIMING)
    state = eqx.filter_jit(race.begin)(key, jnp.float32(images.rates[0]))
    rows = jax.jit(lambda key: epochs(key, images.n_train, batch_size=images.batch_size, steps=1))(key)
    args = (jnp.float32(images.rates[0]), rows, race.data)
    variants = dict.fromkeys(active for sampler in samplers(images).values() for active in sampler.variants)
    timed: dict[str, Callable[[], Any]] = {}
    for active in variants:
        step = eqx.filter_jit(race.step(active))
        timed[name_of(active)] = lambda step=step: jax.tree.leaves(eqx.filter(step(state, jnp.int32(0), args), eqx.is_array))
    seconds = session.timed("one step", timed, repeats=images.repeats)
    return xr.DataArray(np.stack(list(seconds.values())), dims=("active", "repeat"), coords={"active": list(seconds)}, attrs={"units": "s"})


def compiled_operations(race: Race, session: Session) -> xr.DataArray:
    """Floating-point operations of one step from every start, as XLA counts them in the compiled program."""
    images = race.images
    state = eqx.filter_jit(race.begin)(session.key, jnp.float32(images.rates[0]))
    args = (jnp.float32(images.rates[0]), jnp.zeros((1, images.batch_size), jnp.int32), race.data)
    counts = {}
    for active in uniform_starts(len(images.widths)).variants:
        program: Any = eqx.filter_jit(race.step(active))
        compiled = program.lower(state, jnp.int32(0), args).compile()
        counts[name_of(active)] = float(compiled.compiled.cost_analysis()["flops"])
    return xr.DataArray(list(counts.values()), dims="start", coords={"start": list(counts)}, attrs={"units": "1"})


def name_of(active: tuple[bool, ...]) -> str:
    """The layers that are updated, by their numbers."""
    return "".join(str(i) for i, flag in enumerate(active, 1) if flag) or "none"


def seconds_to_target(images: Images, judged: xr.Dataset, seconds: xr.DataArray) -> xr.DataArray:
    """Seconds of training, by target, arm and seed, until training accuracy is there; inf where it never is.

    The sum of the seconds that the steps drawn for this seed take. Each seed has its own share of the timings, so that their spread
    is in the interval.
    """
    targets = (images.target, images.higher_target)
    result = np.full((len(targets), judged.sizes["arm"], judged.sizes["seed"]), np.inf)
    parts = np.array_split(np.arange(seconds.sizes["repeat"]), judged.sizes["seed"])
    for a, arm in enumerate(judged.arm.values):
        names = [name_of(active) for active in samplers(images)[str(arm)].variants]
        for s in range(judged.sizes["seed"]):
            curve = judged["train"].isel(arm=a, rate=0, seed=s)
            each = np.median(seconds.sel(active=names).isel(repeat=parts[s]).values, axis=1)
            for t, target in enumerate(targets):
                steps = float(time_to_target(curve.values, curve.step.values, target, maximise=True))
                if np.isfinite(steps):
                    result[t, a, s] = each[judged["variant"].values[a, s, : int(steps)]].sum()
    coordinates = {"target": list(targets), "arm": judged.arm, "seed": judged.seed}
    return xr.DataArray(result, dims=("target", "arm", "seed"), coords=coordinates, attrs={"units": "s"})


def race_measures(images: Images, reached: xr.DataArray, seconds: xr.DataArray) -> tuple[dict[str, Measure], dict[str, str]]:
    """C3 and C4 from seconds to the targets, and from those of single steps."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}

    def ratio(part: str, slow: str, fast: str, times: xr.DataArray) -> None:
        for arm in (slow, fast):
            if arm not in images.arms:
                untested[part] = f"{arm} is not among the arms of this run"
                return
            missed = int((~np.isfinite(times.sel(arm=arm))).sum())
            if missed:
                untested[part] = f"{missed} of {times.sizes['seed']} runs of {arm} end below {float(times.target):.4g} % training accuracy"
                return
        measures[part] = Measure.paired(times.sel(arm=slow).values, times.sel(arm=fast).values, "log-ratio")

    first, higher = reached
    ratio("C3.time_to_accuracy_ratio", "muon", "uniform", first)
    ratio("C3.time_to_higher_accuracy_ratio", "muon", "uniform", higher)
    ratio("C4.shift_time_ratio", "muon", "shift", first)
    ratio("C4.deep_heavy_over_shift", "deep", "shift", first)
    if "uniform" in images.arms:
        names = [name_of(active) for active in uniform_starts(len(images.widths)).variants]
        mean = seconds.sel(active=names).mean("active").values
        whole = seconds.sel(active=names[0]).values
        measures["C3.step_time_ratio"] = Measure.paired(mean, whole, "log-ratio")
    else:
        untested["C3.step_time_ratio"] = "uniform is not among the arms of this run"
    return measures, untested
