"""diffGrad (arXiv:1909.11015): what its friction does that Adam at half the learning rate does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

from gradatim import datasets
from gradatim.lab import Between, Findings, Measure, OneOf, Session, plots
from gradatim.lab.sweeps import Sweep, epochs, learning_rate_sweep, take_rows
from gradatim.nets import ResNet
from gradatim.optim import diffgrad, diffgrad_friction, notched_valley, ramp_to_waves, scale_by_diffgrad, two_parabolas

PRECISION = "single"

OBJECTIVES = {"f1": two_parabolas, "f2": ramp_to_waves, "f3": notched_valley}
# Each optimiser from its customary rate times a factor; the sweep's grid is one of factors, so that all get the same.
OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgdm": lambda factor: optax.sgd(0.01 * factor, momentum=0.9),
    "adagrad": lambda factor: optax.adagrad(0.01 * factor),
    "adadelta": lambda factor: optax.adadelta(1.0 * factor),
    "rmsprop": lambda factor: optax.rmsprop(0.001 * factor, decay=0.99),
    "amsgrad": lambda factor: optax.amsgrad(0.001 * factor),
    "adam": lambda factor: optax.adam(0.001 * factor),
    "adam_half": lambda factor: optax.adam(0.0005 * factor),
    "diffgrad": lambda factor: diffgrad(0.001 * factor),
}
NAMES = {
    "sgdm": "SGD, momentum",
    "adagrad": "AdaGrad",
    "adadelta": "AdaDelta",
    "rmsprop": "RMSProp",
    "amsgrad": "AMSGrad",
    "adam": "Adam",
    "adam_half": "Adam at half the rate",
    "diffgrad": "diffGrad",
}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": jax.nn.gelu,
}
COLOURS = {"adam": plots.COLOURS[0], "diffgrad": plots.COLOURS[1], "adam_half": plots.COLOURS[2]}
AT_MINIMUM = 0.1
"Distance within which an end point counts as at the global minimum: less than half the way to any other minimum."
TUNING, JUDGING, ACTIVATION, FRICTION = range(4)
"Folded into the keys, so that the seeds on which rates are chosen are not those on which they are judged."


@dataclass(frozen=True)
class Images:
    """The training comparison on images.

    At laptop scale the choice of rates has two epochs, one seed and images of its own, and the judged runs six epochs and three
    fresh seeds: the whole grid with every seed would take 120 runs of full length instead of 24.
    """

    dataset: Annotated[str, OneOf("fashion-mnist", "mnist-5k", "digits")] = "fashion-mnist"
    "Images to classify."
    n_train: Annotated[int, Between(64, 60_000)] = 8000
    "Training images."
    n_validation: Annotated[int, Between(16, 10_000)] = 1000
    "Of these, kept back while rates are chosen."
    n_test: Annotated[int, Between(16, 10_000)] = 2000
    "Test images."
    pool: Annotated[int, Between(4, 28)] = 14
    "Pixels a side after averaging."
    widths: Annotated[tuple[int, ...], Between(4, 1024)] = (16, 32, 64)
    "Channels of each stage, multiples of 4."
    n_blocks: Annotated[int, Between(1, 100)] = 1
    "Residual blocks a stage."
    stem_stride: Annotated[int, Between(1, 4)] = 2
    "Stride of the first convolution; 2 makes a step about three times cheaper."
    batch_size: Annotated[int, Between(1, 4096)] = 128
    "Images a step."
    optimizers: Annotated[tuple[str, ...], OneOf(*OPTIMIZERS)] = tuple(OPTIMIZERS)
    "Optimisers to compare."
    factors: Annotated[tuple[float, ...], Between(1e-4, 1e4)] = (0.1, 0.3, 1.0, 3.0, 10.0)
    "Grid of rates, as multiples of each optimiser's customary one; with a single one there is nothing to choose."
    tuning_epochs: Annotated[int, Between(1, 1000)] = 2
    "Epochs of the runs that choose a rate, one seed, judged on the images kept back."
    epochs: Annotated[int, Between(1, 1000)] = 6
    "Epochs of the runs that are judged."
    activations: Annotated[tuple[str, ...], OneOf(*ACTIVATIONS)] = tuple(ACTIVATIONS)
    "Activation functions to compare."
    activation_epochs: Annotated[int, Between(1, 1000)] = 2
    "Epochs of the runs with other activations."
    n_seeds: Annotated[int, Between(3, 100)] = 3
    "Paired seeds of every judged run."


@dataclass(frozen=True)
class Config:
    """One-dimensional functions, online losses, images."""

    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (0.1, 0.075, 0.06, 0.05, 0.03)
    "Learning rates on the one-dimensional functions; the first is the paper's."
    n_starts: Annotated[int, Between(3, 1_000_001)] = 2001
    "Starting points, evenly spaced in [-1, 1]."
    descent_steps: Annotated[int, Between(10, 1_000_000)] = 299
    "Steps from each starting point."
    online_rounds: Annotated[int, Between(1000, 10_000_000)] = 100_000
    "Rounds of the online problems, 100 being the first that counts."
    online_rate: Annotated[float, Between(1e-4, 10.0)] = 0.1
    "Learning rate of round 1; it falls with the square root of the round."
    counterexample: Annotated[float, Between(2.1, 100.0)] = 3.0
    "The large slope C of the periodic losses."
    images: Images = field(default_factory=Images)
    "The training comparison on images."


SCALES = {
    "smoke": Config(
        n_starts=201,
        online_rounds=1000,
        images=Images(
            "digits", 512, 64, 256, 8, (8,), stem_stride=1, batch_size=128, optimizers=("adam", "adam_half", "diffgrad"),
            factors=(10.0,), epochs=6, activations=("elu",), activation_epochs=1,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        images=Images(
            n_train=60_000, n_validation=5000, n_test=10_000, pool=28, n_blocks=3, stem_stride=1,
            tuning_epochs=10, epochs=100, activation_epochs=100, n_seeds=5,
        ),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: the images; six maps a block of a training batch, or four at a time of all test images; a map as in the first stage."""
    images = config.images
    a_map = 4 * images.widths[0] * (images.pool // images.stem_stride) ** 2
    maps = max(images.batch_size * 6 * images.n_blocks * len(images.widths), images.n_test * 4)
    descent = 8 * 9 * 5 * len(config.rates) * config.n_starts
    return 4 * (images.n_train + images.n_test) * images.pool**2 + maps * a_map + descent


def run(config: Config, session: Session) -> Findings:
    """Measures the factor itself, descents in one dimension, online regret, and training on images."""
    measures = _factor(session)
    trees: dict[str, xr.Dataset] = {}
    # Double for what is cheap: in single precision round-off moves the end at the kink of F3 by as much as there is to see.
    with jax.enable_x64(True):
        trees["descent"] = descent = _descend(config, session)
        trees["regret"] = regret = _play(config, session)
    measures |= _descent_measures(descent) | _regret_measures(regret)
    untested: dict[str, str] = {}
    images = _Images.load(config.images, session)
    factors, tuning = _tune(images, session)
    if tuning is not None:
        trees["tuning"] = tuning
    trees["accuracy"] = accuracy = _compare(images, factors, session).data
    trees["activations"] = activations = _activations(images, factors["diffgrad"], session)
    trees["friction"] = friction = _friction(images, factors["diffgrad"], session)
    final = accuracy["accuracy"].isel(step=-1, rate=0)
    for control in OPTIMIZERS:
        part = "C4.over_adam_at_half_rate" if control == "adam_half" else f"C4.over_{control}"
        if control in config.images.optimizers and control != "diffgrad":
            _judge(part, (final.sel(arm="diffgrad"), final.sel(arm=control)), measures, untested)
        elif control != "diffgrad":
            untested[part] = f"{NAMES[control]} is not among the optimisers of this run"
    reached = activations["accuracy"]
    spread = reached.max("activation", skipna=False) - reached.min("activation", skipna=False)
    _judge("C5.spread", (spread.sel(arm="diffgrad"),), measures, untested)
    _judge("C5.spread_beyond_adam", (spread.sel(arm="diffgrad"), spread.sel(arm="adam_half")), measures, untested)
    there = descent["at_global_minimum"].mean(["function", "rate", "start"])
    session.note("starts that end at the global minimum: " + ", ".join(f"{NAMES[arm]} {float(there.sel(arm=arm)):.4f}" for arm in COLOURS))
    ends = descent["x"].isel(step=-1)
    for arm in COLOURS:
        session.note(f"ends on F1, F2, F3 from -1: {NAMES[arm]} " + ", ".join(f"{float(x):.4f}" for x in ends.sel(arm=arm)))
    last = friction["friction"].isel(step=-1)
    session.note(
        f"mean friction of the layers after training: {float(last.min()):.4f} to {float(last.max()):.4f} "
        "(0.5 throughout would be Adam at half the rate)"
    )
    units = {"accuracy": "%", "loss": "nat", "friction": "1", "x": "1", "regret": "1", "at_global_minimum": "1"}
    for data in trees.values():
        for name, unit in units.items():
            if name in data:
                data[name].attrs["units"] = unit
    return Findings(measures, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)


def _judge(part: str, values: tuple[xr.DataArray, ...], measures: dict[str, Measure], untested: dict[str, str]) -> None:
    if all(np.isfinite(value).all() for value in values):
        measures[part] = Measure.over_seeds(values[0].values) if len(values) == 1 else Measure.paired(values[0].values, values[1].values)
    else:
        untested[part] = "a run diverged"


def _factor(session: Session) -> dict[str, Measure]:
    """C1: a parameter whose gradient was 1 and is 1 + change, against Adam after the same two gradients."""
    with jax.enable_x64(True):
        change = jnp.array([0.0, 0.5, 1.0, 2.0, 4.0, 20.0])

        def last_step(optimizer: Any) -> Any:
            _, state = optimizer.update(jnp.ones_like(change), optimizer.init(change))
            return optimizer.update(1 + change, state)[0]

        ratio = session.once("factor", lambda: last_step(scale_by_diffgrad()) / last_step(optax.scale_by_adam())).tolist()
    round_off = 1e-12
    exact = [Measure.exact(value, round_off) for value in ratio]
    return {"C1.repeated_gradient": exact[0], "C1.growing_changes": Measure.sequence(exact[:-1]), "C1.large_change": exact[-1]}


def _descend(config: Config, session: Session) -> xr.Dataset:
    """Every optimiser from every start at every rate, all at once: the optimisers are element-wise."""
    starts = jnp.linspace(-1.0, 1.0, config.n_starts)
    rates = jnp.asarray(config.rates)[:, None]
    adam, ours = optax.scale_by_adam(b1=0.95, b2=0.999), scale_by_diffgrad(b1=0.95, b2=0.999)
    arms: dict[str, tuple[Any, Any]] = {"adam": (adam, rates), "diffgrad": (ours, rates), "adam_half": (adam, rates / 2)}
    gradients = {name: jax.vmap(jax.vmap(jax.grad(objective))) for name, objective in OBJECTIVES.items()}
    first = jnp.broadcast_to(starts, (len(config.rates), config.n_starts))
    state: dict[str, Any] = {arm: {name: (first, optimizer.init(first)) for name in OBJECTIVES} for arm, (optimizer, _) in arms.items()}
    # Of the first start at the first rate, every step: kept in the state, for a look at each step would take longer than the step.
    state["path"] = jnp.full((len(arms), len(OBJECTIVES), config.descent_steps + 1), starts[0])

    def step(state: Any, i: Any, args: Any) -> Any:
        moved: dict[str, Any] = {}
        for arm, (optimizer, rate) in arms.items():
            moved[arm] = {}
            for name, gradient in gradients.items():
                x, inner = state[arm][name]
                direction, inner = optimizer.update(gradient(x), inner)
                moved[arm][name] = (x - rate * direction, inner)
        now = jnp.stack([jnp.stack([moved[arm][name][0][0, 0] for name in OBJECTIVES]) for arm in arms])
        return moved | {"path": state["path"].at[:, :, i + 1].set(now)}

    loop = session.loop(step, state, steps=config.descent_steps, every=config.descent_steps, label="descent in one dimension")
    end = [[np.asarray(loop.state[arm][name][0]) for name in OBJECTIVES] for arm in arms]
    there = [[abs(x - objective.minima[0]) < AT_MINIMUM for x, objective in zip(row, OBJECTIVES.values(), strict=True)] for row in end]
    return xr.Dataset(
        {
            "x": (("arm", "function", "step"), np.asarray(loop.state["path"])),
            "at_global_minimum": (("arm", "function", "rate", "start"), np.array(there).astype(np.float64)),
        },
        {
            "arm": list(arms),
            "function": list(OBJECTIVES),
            "rate": list(config.rates),
            "start": np.asarray(starts),
            "step": np.arange(config.descent_steps + 1),
        },
    )


def _descent_measures(data: xr.Dataset) -> dict[str, Measure]:
    measures = {}
    for name in OBJECTIVES:
        x = data["x"].sel(function=name)
        measures[f"C2.end_{name}"] = Measure.exact(float(x.sel(arm="diffgrad").isel(step=-1)), 1e-8)
        farthest = x.max("step")
        measures[f"C2.overshoot_{name}"] = Measure.exact(float(farthest.sel(arm="adam") - farthest.sel(arm="diffgrad")), 1e-8)
    there = data["at_global_minimum"]
    fraction = there.mean(["function", "rate", "start"])
    # Starts are a grid, not a sample: each end of a basin of attraction lies somewhere in its cell, half a cell from the middle.
    ends = abs(there.diff("start")).sum("start") / (2 * (there.sizes["start"] - 1))
    error = ends.mean(["function", "rate"]).sel(arm=["diffgrad", "adam_half"]).sum()
    advantage = fraction.sel(arm="diffgrad") - fraction.sel(arm="adam_half")
    measures["C2.advantage_over_adam_at_half_rate"] = Measure.exact(float(advantage), float(error))
    return measures


N_GROUPS, GROUP = 8, 32
"Sequences of random losses: the logarithm is taken of means over a group, since a single regret may be negative."


def _play(config: Config, session: Session) -> xr.Dataset:
    """The regret of Adam and diffGrad against the best fixed point of [-1, 1], at rounds evenly spaced on a logarithmic scale.

    Column 0 is the periodic problem, C x every third round and -x else, for which b₁ = 0 and b₂ = 1 / (1 + C²); the others are
    random ones, |x - z| with z = ±1.
    """
    rounds = np.unique(np.geomspace(100, config.online_rounds, 31).round().astype(int))
    big = config.counterexample
    make: dict[str, Any] = {"adam": optax.scale_by_adam, "diffgrad": scale_by_diffgrad}
    arms = {name: (transformation(0.0, 1 / (1 + big**2)), transformation()) for name, transformation in make.items()}
    n = N_GROUPS * GROUP

    def begin(arm: Any) -> Any:
        return [(jnp.zeros(m), optimizer.init(jnp.zeros(m)), jnp.zeros(m)) for optimizer, m in zip(arm, (1, n), strict=True)]

    def step(state: Any, i: Any, args: Any) -> Any:
        key, marks = args
        now = i + 1
        periodic = jnp.where(now % 3 == 1, big, -1.0)
        slopes = (jnp.full(1, periodic), -jax.random.rademacher(jax.random.fold_in(key, i), (n,), jnp.float64))
        total = state["total"] + jnp.concatenate(slopes)
        moved: dict[str, Any] = {"total": total, "regret": {}}
        for name, arm in arms.items():
            moved[name] = []
            for optimizer, slope, (x, inner, paid) in zip(arm, slopes, state[name], strict=True):
                paid = paid + slope * x
                direction, inner = optimizer.update(slope, inner)
                x = jnp.clip(x - config.online_rate / jnp.sqrt(now) * direction, -1.0, 1.0)
                moved[name].append((x, inner, paid))
            # All losses are lines (|x - z| = 1 - z x), so the best fixed point is an end of the domain.
            regret = jnp.concatenate([paid for _, _, paid in moved[name]]) + abs(total)
            moved["regret"][name] = jnp.where((marks == now)[:, None], regret[None], state["regret"][name])
        return moved

    state = {name: begin(arm) for name, arm in arms.items()}
    state |= {"total": jnp.zeros(1 + n), "regret": {name: jnp.zeros((len(rounds), 1 + n)) for name in arms}}
    args = (jax.random.fold_in(session.key, 1), jnp.asarray(rounds))
    every = max(config.online_rounds // 20, 1)
    loop = session.loop(step, state, steps=config.online_rounds, args=args, every=every, label="online losses")
    regret = np.stack([np.asarray(loop.state["regret"][name]) for name in arms])
    groups = regret[..., 1:].reshape(len(arms), len(rounds), N_GROUPS, GROUP).mean(-1)
    return xr.Dataset(
        {"random_losses": (("arm", "round", "group"), groups), "periodic_losses": (("arm", "round"), regret[..., 0])},
        {"arm": list(arms), "round": rounds},
    )


def _regret_measures(data: xr.Dataset) -> dict[str, Measure]:
    ours = data.sel(arm="diffgrad")
    logs = np.log(np.maximum(ours["random_losses"].values, np.finfo(float).tiny))
    slopes = np.polyfit(np.log(ours["round"].values), logs, 1)[0]
    periodic = np.maximum(ours["periodic_losses"].values, np.finfo(float).tiny)
    slope, error = _slope(np.log(ours["round"].values), np.log(periodic))
    return {"C3.random_losses": Measure.over_seeds(slopes), "C3.periodic_losses": Measure.exact(slope, error)}


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The slope of a straight line and twice its standard error."""
    coefficients, covariance = np.polyfit(x, y, 1, cov=True)
    return float(coefficients[0]), 2 * float(np.sqrt(covariance[0, 0]))


@dataclass(frozen=True)
class _Images:
    """The data and the pieces of every training run on them."""

    config: Images
    train: tuple[Any, Any]
    test: tuple[Any, Any]

    @classmethod
    def load(cls, config: Images, session: Session) -> _Images:
        pairs = []
        for split, n in (("train", config.n_train), ("test", config.n_test)):
            data = datasets.load(config.dataset, split=split, n=n, pool=config.pool)
            session.uses(data.provenance)
            pairs.append((jnp.asarray(data.images), jnp.asarray(data.labels)))
        return cls(config, *pairs)

    @property
    def tuning(self) -> dict[str, Any]:
        kept = self.config.n_validation
        return {"train": jax.tree.map(lambda a: a[:-kept], self.train), "test": jax.tree.map(lambda a: a[-kept:], self.train)}

    @property
    def judging(self) -> dict[str, Any]:
        return {"train": self.train, "test": self.test}

    def net(self, key: Any, activation: str = "relu") -> ResNet:
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


def _tune(images: _Images, session: Session) -> tuple[dict[str, float], xr.Dataset | None]:
    """The factor of the grid at which each optimiser does best on images kept back."""
    c = images.config
    if len(c.factors) == 1:
        return dict.fromkeys(OPTIMIZERS, c.factors[0]), None
    arms = {name: OPTIMIZERS[name] for name in dict.fromkeys((*c.optimizers, "diffgrad"))}
    sweep = images.sweep(
        session, arms, images.tuning, purpose=TUNING, n_epochs=c.tuning_epochs, rates=c.factors, n_seeds=1, label="choose the rate of"
    )
    return {name: sweep.best_rate(name, "accuracy", maximise=True) for name in arms}, sweep.data


def _compare(images: _Images, factors: Mapping[str, float], session: Session) -> Sweep:
    c = images.config
    arms = {name: _scaled(OPTIMIZERS[name], factors[name]) for name in dict.fromkeys((*c.optimizers, "diffgrad"))}
    return images.sweep(
        session, arms, images.judging, purpose=JUDGING, n_epochs=c.epochs, rates=(1.0,), n_seeds=c.n_seeds, label="train with"
    )


def _activations(images: _Images, factor: float, session: Session) -> xr.Dataset:
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


def _friction(images: _Images, factor: float, session: Session) -> xr.Dataset:
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


def draw(findings: Findings) -> dict[str, Figure]:
    """Paths and basins in one dimension, regret, accuracy by optimiser, by rate and by activation, friction by layer."""
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    with plots.style():
        figures = {
            "descent": _draw_descent(data["descent"]),
            "basins": _draw_basins(data["descent"]),
            "regret": _draw_regret(data["regret"]),
            "accuracy": _draw_accuracy(data["accuracy"]),
            "activations": _draw_activations(data["activations"]),
            "friction": _draw_friction(data["friction"]),
        }
        if "tuning" in data:
            figures["rates"] = _draw_rates(data["tuning"])
    return figures


def _draw_descent(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3)
    for ax, (name, objective) in zip(axes[0], OBJECTIVES.items(), strict=True):
        for minimum in objective.minima:
            ax.axhline(minimum, color="black", linewidth=0.8, linestyle="--" if minimum == objective.minima[0] else ":")
        for arm in data.arm.values:
            ax.plot(data.step, data["x"].sel(arm=arm, function=name), color=COLOURS[arm], label=NAMES[arm])
        plots.label(ax, "step", "x", title=f"{name.upper()} (dashed: global minimum)")
    axes[0, 0].legend()
    return fig


def _draw_basins(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, sharey=True)
    fraction = data["at_global_minimum"].mean("start")
    places = np.arange(data.sizes["rate"])
    for ax, name in zip(axes[0], OBJECTIVES, strict=True):
        for shift, arm in enumerate(("adam", "diffgrad", "adam_half")):
            ax.bar(places + 0.27 * (shift - 1), fraction.sel(arm=arm, function=name), 0.25, color=COLOURS[arm], label=NAMES[arm])
        ax.set_xticks(places, [f"{rate:g}" for rate in data.rate.values])
        plots.label(ax, "learning rate", "starts that end at the global minimum" if name == "f1" else "", title=name.upper())
        ax.set_ylim(0, 1)
    axes[0, 1].legend(loc="upper right")
    return fig


def _draw_regret(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    titles = {"random_losses": "|x - z|, z = ±1 at random", "periodic_losses": "C x every third round, -x else"}
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        for arm, line in (("adam", "-"), ("diffgrad", "--")):
            curve = data[name].sel(arm=arm)
            curve = curve.mean("group") if "group" in curve.dims else curve
            ax.loglog(data["round"], curve, line, color=COLOURS[arm], label=NAMES[arm])
        ax.loglog(data["round"], np.sqrt(data["round"]), color="black", linewidth=0.8, linestyle=":", label="√T")
        plots.label(ax, "round T", "regret", title=title)
    axes[0, 0].legend()
    return fig


def _draw_accuracy(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(5.2, 3.6))
    curves = data["accuracy"].isel(rate=0).dropna("step", how="all")
    final = curves.isel(step=-1)
    order = final.mean("seed").sortby(final.mean("seed")).arm.values
    for place, arm in enumerate(order):
        values = final.sel(arm=arm).values
        _dots(axes[0, 0], place, values, COLOURS.get(arm, "#777777"))
    axes[0, 0].set_yticks(range(len(order)), [NAMES[arm] for arm in order])
    plots.label(axes[0, 0], "test accuracy after the last epoch", "", x_unit="%", title="Seeds as dots, mean and 95 % interval")
    colours = iter(plots.COLOURS[3:] * 2)
    for arm in order[::-1]:
        colour = COLOURS.get(arm) or next(colours)
        plots.interval(axes[0, 1], curves.step.values, curves.sel(arm=arm).transpose("seed", "step").values, name=NAMES[arm], colour=colour)
    low, high = float(curves.isel(step=slice(1, None)).min()), float(curves.max())
    axes[0, 1].set_ylim(low - 2, high + 2)
    axes[0, 1].legend(fontsize="small", ncols=2)
    plots.label(axes[0, 1], "step", "test accuracy", y_unit="%", title="Each optimiser at its best rate")
    return fig


def _dots(ax: Any, place: float, values: np.ndarray, colour: str) -> None:
    if np.isfinite(values).all():
        measure = Measure.over_seeds(values)
        ax.plot([measure.low, measure.high], [place, place], color=colour, linewidth=2, alpha=0.5)
        ax.plot(measure.value, place, "|", color=colour, markersize=12, markeredgewidth=2)
    ax.plot(values, np.full(len(values), place), "o", color=colour, markersize=4)


def _draw_rates(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.6, 3.8))
    colours = iter(plots.COLOURS[3:] * 2)
    final = data["accuracy"].isel(step=-1).mean("seed", skipna=False)
    for arm, marker in zip(data.arm.values, plots.MARKERS, strict=False):
        axes[0, 0].semilogx(data.rate, final.sel(arm=arm), marker=marker, label=NAMES[arm], color=COLOURS.get(arm) or next(colours))
    plots.label(axes[0, 0], "rate over the optimiser's customary rate", "validation accuracy", y_unit="%", title="The choice of rates")
    axes[0, 0].legend(fontsize="small")
    return fig


def _draw_activations(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.2, 3.4))
    names = data.activation.values
    for shift, arm in ((-0.14, "diffgrad"), (0.14, "adam_half")):
        for place, name in enumerate(names):
            _dots(axes[0, 0], place + shift, data["accuracy"].sel(arm=arm, activation=name).values, COLOURS[arm])
        axes[0, 0].plot([], [], "o", color=COLOURS[arm], label=NAMES[arm])
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].legend()
    plots.label(axes[0, 0], "test accuracy after the last epoch", "", x_unit="%", title="diffGrad's rate, and half of it for Adam")
    return fig


def _draw_friction(data: xr.Dataset) -> Figure:
    from matplotlib import colormaps

    fig, axes = plots.figure(panel=(6.4, 3.6))
    shades = colormaps["cividis"](np.linspace(0, 0.9, data.sizes["layer"]))
    for layer, shade in zip(data.layer.values, shades, strict=True):
        axes[0, 0].plot(data.step, data["friction"].sel(layer=layer), color=shade, label=str(layer), linewidth=1.2)
    axes[0, 0].axhline(0.5, color="black", linestyle="--", linewidth=0.8)
    axes[0, 0].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.label(axes[0, 0], "step", "mean friction ξ", title="Dashed: Adam at half the rate")
    return fig
