"""The character model: noise of its layers, AdamW, Muon, Scion and LANTON on grids of one size, and the time of a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim import datasets
from gradatim.lab import Measure, Session
from gradatim.lab.sweeps import Sweep, choice_by_others, epochs, learning_rate_sweep, take_rows, time_to_target
from gradatim.nets import DecoderLM, norm_groups
from gradatim.optim import lanton, layer_learning_rates, layer_noise, muon, muon_dimension_numbers, noise_report, scion

from .config import ARMS, PER_STEP, TIMED, Language

NAMES = {"adamw": "AdamW", "muon": "Muon", "scion": "Scion, one rate", "lanton": "LANTON"}
ADAM, HIDDEN = 3e-3, 0.02
"Customary rates: of AdamW, which Muon uses for what is no hidden matrix too, and of the hidden matrices."
RADII = {"embed": ADAM / HIDDEN, "vector": ADAM / HIDDEN}
"Signs move an entry as far as Adam does."
NORM_GROUPS = {"queries and keys": ("query", "key"), "values and outputs": ("value", "output"), "feed-forward": ("gate", "up", "down")}
"The article's groups, by the names of their matrices."
DRAWS = 2000
"Of equally noisy layers."
TUNING, JUDGING, REPORT = range(3)
"Folded into the keys, so that the seeds on which rates are chosen are not those on which they are judged."


def loss(model: Any, texts: Any) -> Any:
    """Mean cross-entropy of the next character, nats."""
    texts = texts.astype(jnp.int32)
    logits = jax.vmap(model)(texts[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, texts[:, 1:]).mean()


class Corpus(eqx.Module):
    """Texts of one length, as rows, and the pieces of every training run on them."""

    config: Language = eqx.field(static=True)
    train: Any
    validation: Any
    vocabulary_size: int = eqx.field(static=True)

    @classmethod
    def load(cls, config: Language, session: Session) -> Corpus:
        """Evenly spaced texts of both parts of the corpus."""
        parts = {split: datasets.load_text("shakespeare", split=split) for split in ("train", "validation")}
        session.uses(parts["train"].provenance)
        rows = parts["train"].blocks(config.context + 1)
        step = max(len(rows) // config.n_train, 1)
        train, held_out = rows[::step][: config.n_train], parts["validation"].blocks(config.context + 1, config.n_validation)
        return cls(config, jnp.asarray(train), jnp.asarray(held_out), parts["train"].vocabulary_size)

    def model(self, key: Any) -> DecoderLM:
        """An untrained decoder."""
        c = self.config
        return DecoderLM(self.vocabulary_size, c.width, c.n_layers, c.n_heads, c.context, key=key)

    def groups(self) -> Any:
        """The norm group of every parameter."""
        return norm_groups(jax.eval_shape(lambda: eqx.filter(self.model(jax.random.key(0)), eqx.is_inexact_array)))

    def batches(self, key: Any, steps: int) -> Any:
        """Rows of the batches of a run."""
        return epochs(key, len(self.train), batch_size=self.config.batch_size, steps=steps)

    def start(self, key: Any, purpose: int) -> DecoderLM:
        """The decoder of a seed."""
        return self.model(jax.random.fold_in(key, purpose))

    @property
    def arms(self) -> tuple[str, ...]:
        """The optimisers that are compared, LANTON last."""
        return tuple(arm for arm in ARMS if arm in self.config.arms or arm == "lanton")

    def sweep(self, session: Session, arms: Mapping[str, Any], *, purpose: int, looks: int, **grid: Any) -> Sweep:
        """Training runs of every arm, and how many looks at the works held out after the first."""
        steps = self.config.steps
        return learning_rate_sweep(
            session,
            arms,
            init=lambda key: self.start(key, purpose),
            loss=loss,
            evaluate=lambda model, data: {"loss": loss(model, data["validation"])},
            data={"train": self.train, "validation": self.validation},
            order=lambda key: self.batches(jax.random.fold_in(key, purpose), steps),
            batch=lambda data, rows: take_rows(data["train"], rows),
            steps=steps,
            every=max(steps // looks, 1),
            **grid,
        )


def optimizers(corpus: Corpus, alpha: Mapping[str, float]) -> dict[str, Any]:
    """Each from a factor on its customary rate."""
    steps = corpus.config.steps
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(steps // 20, 1), steps, 0.1)

    def scheduled(rate: Any) -> Any:
        return lambda count: rate * shape(count)

    groups = corpus.groups()
    template = jax.eval_shape(lambda: eqx.filter(corpus.model(jax.random.key(0)), eqx.is_inexact_array))
    dimensions = muon_dimension_numbers(template)
    return {
        "adamw": lambda f: optax.adamw(scheduled(ADAM * f), b2=0.95, weight_decay=0.0),
        "muon": lambda f: muon(
            scheduled(HIDDEN * f), adam_b2=0.95, adam_learning_rate=scheduled(ADAM * f), muon_weight_dimension_numbers=lambda _: dimensions
        ),
        "scion": lambda f: scion(scheduled(HIDDEN * f), groups, radii=RADII),
        "lanton": lambda f: lanton(scheduled(HIDDEN * f), groups, alpha=alpha, radii=RADII),
    }


@eqx.filter_jit
def drawn(corpus: Corpus, key: Any) -> DecoderLM:
    """An untrained decoder, by one program for all that are drawn alone."""
    return corpus.model(key)


@eqx.filter_jit
def report(corpus: Corpus, model: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """The noise of a model's hidden layers, from batches of its own, and the thresholds of all groups."""
    rows = corpus.batches(jax.random.fold_in(key, REPORT), corpus.config.n_batches)
    found = noise_report(loss, model, take_rows(corpus.train, rows), corpus.groups())
    return found.of("hidden"), found.thresholds()


def thresholds(corpus: Corpus, session: Session) -> dict[str, float]:
    """α of each group: the median over its layers of √(E D) = √2 σ, before training, mean over pilots."""
    keys = jax.random.split(jax.random.fold_in(session.key, TUNING), corpus.config.n_pilots)

    def medians() -> Any:
        found = [report(corpus, drawn(corpus, jax.random.fold_in(key, TUNING)), key)[1] for key in keys]
        return {group: np.mean([float(pilot[group]) for pilot in found]) for group in ("hidden", "embed", "vector")}

    alpha = {group: float(value) for group, value in session.once("thresholds", medians).items()}
    session.note("α, the median noise of a group before training: " + ", ".join(f"{group} {value:.3g}" for group, value in alpha.items()))
    return alpha


def compare(corpus: Corpus, session: Session) -> tuple[dict[str, xr.Dataset], dict[str, float], dict[str, float]]:
    """Validation curves of the four optimisers at their best rates; the grid; the factors and thresholds."""
    c = corpus.config
    alpha = thresholds(corpus, session)
    known = {arm: make for arm, make in optimizers(corpus, alpha).items() if arm in corpus.arms}
    short = dataclasses.replace(corpus, config=dataclasses.replace(c, steps=c.tuning_steps))
    trees: dict[str, xr.Dataset] = {}
    factors: dict[str, float] = dict.fromkeys(corpus.arms, c.factors[0])
    if len(c.factors) > 1:
        tried = {arm: make for arm, make in optimizers(short, alpha).items() if arm in known}
        tuning = short.sweep(session, tried, purpose=TUNING, looks=1, rates=c.factors, n_seeds=c.n_pilots, label="choose the rate of")
        factors = {arm: tuning.best_rate(arm, "loss") for arm in known}
        trees["tuning"] = tuning.final[["loss"]].drop_vars("step")
        at_edge = [NAMES[arm] for arm in known if factors[arm] in (min(c.factors), max(c.factors))]
        if at_edge:
            session.note("best rate at an end of the grid: " + ", ".join(at_edge))
    session.note("factors on the customary rates: " + ", ".join(f"{NAMES[arm]} {factor:g}" for arm, factor in factors.items()))
    judged = {arm: lambda factor, arm=arm: known[arm](factor * factors[arm]) for arm in known}
    sweep = corpus.sweep(session, judged, purpose=JUDGING, looks=50, rates=(1.0,), n_seeds=c.n_seeds, label="train with")
    curves = sweep.data[["loss"]].isel(rate=0, drop=True)
    trees["curves"] = curves.assign_coords(tokens=("step", curves.step.values * c.batch_size * c.context))
    return trees, factors, alpha


def token_measures(curves: xr.Dataset, session: Session) -> tuple[dict[str, Measure], dict[str, str]]:
    """C2: tokens of the best baseline, and of one rate, over LANTON's to that baseline's last loss; median over seeds.

    A run that never gets there has a ratio below 1 of which no more is known: it counts as 0, the lowest that there is. Which
    baseline is best for a seed is what the others say.
    """
    last = curves["loss"].isel(step=-1)
    means = {arm: float(last.sel(arm=arm).mean(skipna=False)) for arm in last.arm.values.tolist()}
    session.note("last validation loss: " + ", ".join(f"{NAMES[arm]} {value:.4f}" for arm, value in means.items()))
    baselines = last.sel(arm=[arm for arm in means if arm != "lanton"])
    chosen = baselines.arm.values[choice_by_others(baselines, "arm").values]
    session.note("best baseline by the other seeds: " + ", ".join(NAMES[arm] for arm in chosen))
    rows = curves["loss"].sel(arm="lanton").transpose("seed", "step").values
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    for part, arms, name in (
        ("C2.token_ratio", chosen, "the best baseline"),
        ("C2.token_ratio_to_one_rate", ["scion"] * len(rows), NAMES["scion"]),
    ):
        if not set(arms) <= means.keys():
            untested[part] = f"{name} is not among the optimisers of this run"
            continue
        targets = np.array([float(last.sel(arm=arm).isel(seed=seed)) for seed, arm in enumerate(arms)])
        if not np.isfinite([*targets, means["lanton"]]).all():
            untested[part] = "a run diverged"
            continue
        reached = np.array([float(time_to_target(row, curves.step, target)) for row, target in zip(rows, targets, strict=True)])
        if missed := int(np.isinf(reached).sum()):
            session.note(f"LANTON does not reach the last loss of {name} within its tokens in {missed} runs, counted as 0")
        measures[part] = Measure.median(float(curves.step[-1]) / reached)
    return measures, untested


def follow(corpus: Corpus, factor: float, alpha: Mapping[str, float], session: Session) -> dict[str, xr.Dataset]:
    """LANTON's noise and rates in every layer along its runs, and noise reports before, and at the end of training."""
    c = corpus.config
    optimizer = optimizers(corpus, alpha)["lanton"](factor)
    keys = jax.random.split(jax.random.fold_in(session.key, JUDGING), c.n_seeds)

    seeds = [eqx.partition(drawn(corpus, jax.random.fold_in(key, JUDGING)), eqx.is_array) for key in keys]
    models = eqx.combine(jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *(arrays for arrays, _ in seeds)), seeds[0][1])

    def begin(model: Any, key: Any) -> Any:
        return optimizer.init(eqx.filter(model, eqx.is_inexact_array)), corpus.batches(key, c.steps)

    states, rows = eqx.filter_jit(eqx.filter_vmap(begin))(models, keys)

    def one(model: Any, state: Any, batch: Any) -> Any:
        gradient = eqx.filter_grad(loss)(model, batch)
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    def step(carry: Any, i: Any, args: Any) -> Any:
        rows, train = args
        return eqx.filter_vmap(one)(*carry, train[rows[:, i]])

    def watch(carry: Any, args: Any) -> dict[str, Any]:
        return {"noise": _hidden(layer_noise(carry[1]), groups), "factor": _hidden(layer_learning_rates(carry[1], 1.0), groups)}

    groups = corpus.groups()
    loop = session.loop(
        step,
        (models, states),
        steps=c.steps,
        args=(rows, corpus.train),
        watch=watch,
        every=max(c.steps // 50, 1),
        label="noise along a run",
    )
    names = _names(groups)
    trees = {
        "along": xr.Dataset(
            {name: (("step", "layer", "seed"), loop.history[name]) for name in ("noise", "factor")},
            {"step": loop.history["step"], "layer": names},
        )
    }
    reports = {}
    for when, state in (("before training", models), ("after training", loop.state[0])):
        reports[when] = np.asarray(session.once(f"noise {when}", _reports, corpus, state, keys))
    trees["report"] = xr.Dataset(
        {"sigma": (("when", "seed", "layer", "part"), np.stack(list(reports.values())))},
        {"when": list(reports), "layer": names, "part": ["value", "standard error"]},
    )
    return trees


def _reports(corpus: Corpus, models: Any, keys: Any) -> np.ndarray:
    arrays, static = eqx.partition(models, eqx.is_array)
    arrays = jax.tree.map(np.asarray, arrays)
    seeds = [eqx.combine(jax.tree.map(lambda leaf, s=s: jnp.asarray(leaf[s]), arrays), static) for s in range(len(keys))]
    return np.stack([report(corpus, model, key)[0] for model, key in zip(seeds, keys, strict=True)])


def noise_measures(data: xr.Dataset, session: Session) -> dict[str, Measure]:
    """C1 and C4.noise_sum_over_equal, of the trained models."""
    before, after = (data["sigma"].sel(when=f"{when} training", part="value").transpose("seed", "layer") for when in ("before", "after"))
    classes = np.array([str(layer).rsplit(".", 1)[-1] for layer in after.layer.values])
    sigma = after.values
    for which in dict.fromkeys(classes):
        ends = [float(np.exp(np.log(values[:, classes == which]).mean())) for values in (before.values, sigma)]
        spread = (sigma[:, classes == which].max(1) / sigma[:, classes == which].min(1)).mean()
        session.note(
            f"noise of the {which} matrices: {ends[0]:.3g} before, {ends[1]:.3g} after training, largest over smallest {spread:.2f}"
        )
    measures = {"C1.noise_ratio": Measure.over_seeds(sigma.max(1) / sigma.min(1))}
    spreads = {name: sigma[:, np.isin(classes, members)] for name, members in NORM_GROUPS.items()}
    session.note(
        "largest over smallest noise in the article's groups, every seed: "
        + "; ".join(f"{name} {np.round(of.max(1) / of.min(1), 2).tolist()}" for name, of in spreads.items())
        + f"; a matrix changes in training by a factor of {np.exp(abs(np.log(sigma / before.values)).mean(1)).mean():.2f}, geometric mean"
    )
    errors = data["sigma"].sel(when="after training", part="standard error").transpose("seed", "layer").values / sigma
    ratio = sigma.mean(1) / sigma.max(1)
    session.note(f"sum of the layers' noises over layers times the largest: {ratio.mean():.3f}")
    measures["C4.noise_sum_over_equal"] = Measure.paired(ratio, ratio_of_equals(errors), "log-ratio")
    return measures


def ratio_of_equals(errors: np.ndarray) -> np.ndarray:
    """The mean over the largest of layers that are equally noisy, measured with these relative standard errors, for each seed.

    Errors are taken as independent: those of layers on the same batches go together, and spread the layers less.

    >>> ratio_of_equals(np.zeros((1, 3)))
    array([1.])
    """
    drawn = 1 + errors * np.random.default_rng(0).normal(size=(DRAWS, *errors.shape))
    return (drawn.mean(-1) / drawn.max(-1)).mean(0)


def _hidden(tree: Any, groups: Any) -> Any:
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(groups), strict=True)
    return jnp.stack([leaf for leaf, group in pairs if group == "hidden"])


def _names(groups: Any) -> list[str]:
    found = []
    for path, group in jax.tree_util.tree_leaves_with_path(groups):
        if group == "hidden":
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            found.append(name.removeprefix("blocks.").removesuffix(".weight"))
    return found


def time_steps(corpus: Corpus, session: Session) -> xr.Dataset:
    """Seconds of a whole training step, gradient included, of a wider model: Muon, and LANTON however often and by what it measures."""
    c = corpus.config
    wide = dataclasses.replace(corpus, config=dataclasses.replace(c, width=c.timed_width))
    groups = wide.groups()
    known = {
        "muon": optimizers(wide, dict.fromkeys(("hidden", "embed", "vector"), 1.0))["muon"](1.0),
        "scion": scion(HIDDEN, groups, radii=RADII),
        "quadrature, every step": lanton(HIDDEN, groups, radii=RADII),
    } | {name: lanton(HIDDEN, groups, radii=RADII, nuclear="newton_schulz", every=every) for name, every in PER_STEP.items()}
    arms = {name: known[name] for name in TIMED if name in c.timed or name == "muon" or name in PER_STEP}
    texts = eqx.filter_jit(lambda corpus, key: take_rows(corpus.train, corpus.batches(key, c.timed_steps)))(corpus, session.key)
    model = drawn(wide, jax.random.key(0))

    def several(name: str) -> Any:
        optimizer = arms[name]
        arrays, static = eqx.partition(model, eqx.is_inexact_array)

        def step(carry: Any, batch: Any) -> Any:
            arrays, state = carry
            gradient = jax.grad(lambda arrays: loss(eqx.combine(arrays, static), batch))(arrays)
            updates, state = optimizer.update(gradient, state, arrays)
            return (optax.apply_updates(arrays, updates), state), None

        run = jax.jit(lambda arrays, state, texts: jax.lax.scan(step, (arrays, state), texts)[0])
        state = optimizer.init(arrays)
        return lambda: run(arrays, state, texts)

    seconds = session.timed("steps", {name: several(name) for name in arms}, repeats=c.repeats)
    data = xr.Dataset({"seconds": (("way", "repeat"), np.array(list(seconds.values())) / c.timed_steps)}, {"way": list(seconds)})
    median = data["seconds"].median("repeat")
    session.note("a training step: " + ", ".join(f"{way} {1e3 * float(median.sel(way=way)):.1f} ms" for way in median.way.values))
    return data


def time_measures(data: xr.Dataset) -> dict[str, Measure]:
    """C3."""
    muon_seconds = data["seconds"].sel(way="muon").values
    return {
        f"C3.step_time_every_{every}": Measure.paired(data["seconds"].sel(way=way).values, muon_seconds, "log-ratio")
        for way, every in PER_STEP.items()
    }
