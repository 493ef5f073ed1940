"""Every task by every sampler."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.transport import Denoiser, Krylov, NoiseLevel, Proximal, RangeNullSpace

from .arms import INNER, Bench, quality, same_length
from .config import Config
from .images import Pair, known_head, phantoms, slices, volumes
from .priors import mixture, train
from .tasks import NAMES, Task, measure, projections, quarter_turn, resonance

PREDICTIONS = ("image", "noise", "score")


class Reading(eqx.Module):
    """A denoiser's answer as another kind of prediction."""

    denoiser: Denoiser
    kind: str = eqx.field(static=True)

    def __call__(self, level: NoiseLevel, x: Any) -> Any:
        """What a network of that kind would have said."""
        found = self.denoiser(level, x)
        return {"image": found.image, "noise": found.noise, "score": -found.noise / level.m}[self.kind]


def run_tasks(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Training, tuning, reconstruction and timing."""
    same_length(config)
    keys: dict[str, jax.Array] = dict(zip(("heads", "ellipses", *NAMES), jax.random.split(key, 6), strict=True))
    trees: dict[str, xr.Dataset] = {}
    benches: dict[str, Bench] = {}
    resonant = [name for name in ("one coil", "coils") if name in config.tasks]
    if resonant:
        training, validation, test = (_resonance_images(config, part, session) for part in ("training", "validation", "test"))
        network, other = _priors("heads", config, session, keys["heads"], training, validation, trees)
        for name in resonant:
            task = resonance(config, name, network, test, validation, key=keys[name])
            benches[name] = Bench(config, task, session, keys[name])
            _reconstruct(benches[name], other)
    if "projections" in config.tasks or "volumes" in config.tasks:
        training, validation, test = (phantoms(_count(config, part), config.side, part=part) for part in ("training", "validation", "test"))
        network, other = _priors("ellipses", config, session, keys["ellipses"], training, validation, trees)
        if "projections" in config.tasks:
            benches["projections"] = Bench(config, projections(config, network, test, validation), session, keys["projections"])
            _reconstruct(benches["projections"], other)
            trees["predictions"] = _predictions(benches["projections"])
            trees["known_head"] = _known_head(benches["projections"])
        if "volumes" in config.tasks:
            many, one = (volumes(n, config.slices, config.side, part=part) for n, part in ((config.seeds, "test"), (1, "validation")))
            benches["volumes"] = Bench(config, quarter_turn(config, network, many, one), session, keys["volumes"])
            trees["across"] = _reconstruct_volumes(benches["volumes"])
    for name, bench in benches.items():
        trees[name.replace(" ", "_")] = _told(bench)
        session.note(f"Tuned on validation images, {name}: " + ", ".join(bench.chosen.values()))
    timed = next((benches[name] for name in ("projections", "coils") if config.with_speed and name in benches), None)
    if timed is not None:
        trees["speed"] = _speed(config, session, timed)
    return trees


def _count(config: Config, part: str) -> int:
    return {"training": config.prior.images, "validation": config.images, "test": config.seeds * config.images}[part]


def _resonance_images(config: Config, part: str, session: Session) -> Pair:
    n = _count(config, part)
    if config.resonance_images == "phantoms":
        return phantoms(n, config.side, part=part)
    return slices(n, config.side, part=part, session=session)


def _priors(
    name: str, config: Config, session: Session, key: jax.Array, training: Pair, validation: Pair, trees: dict[str, xr.Dataset]
) -> tuple[Denoiser, Denoiser | None]:
    """The prior, and the mixture where it is another one."""
    other = mixture(config.prior, training.coarse)
    if not config.prior.with_network:
        return other, None
    network, trees[f"training_{name}"] = train(name, config.prior, session, key, training.coarse, validation.coarse)
    return Denoiser(network, "image"), other


def _reconstruct(bench: Bench, other: Denoiser | None) -> None:
    config, task = bench.config, bench.task
    best = bench.tune()
    n = len(task.truth)

    def fitted(inner: int = INNER) -> Any:
        # One weight an image, as in tuning: the same program.
        return Proximal(jnp.full(n, best["gamma"], jnp.float32), inner) if task.name == "coils" else Krylov(inner)

    bench.dds("dds", fitted(), config.times)
    bench.variation("variation", best["weight"])
    bench.least_squares("least squares", int(best["steps"]))
    if other is not None:
        bench.dds("dds, mixture", fitted(), config.times, denoiser=other)
    if task.name == "one coil":
        return
    bench.dds("dds, few", fitted(), config.few_times)
    bench.dds("dds, many", fitted(), config.many_times)
    bench.dps("dps", config.many_times, best["step"])
    bench.dds("projection", RangeNullSpace.of(task.operator, cutoff=best["cutoff"]), config.times, noise_rule="ddim")
    bench.dds("dds, fine", fitted(), config.times, data=task.y_fine)
    bench.dps("dps, fine", config.many_times, best["step"], data=task.y_fine)
    bench.variation("variation, fine", best["weight"], data=task.y_fine)
    bench.least_squares("least squares, fine", int(best["steps"]), data=task.y_fine)
    if task.name == "projections":
        for inner in config.inner_steps:
            if inner != INNER:
                bench.dds(f"dds, {inner} inner", fitted(inner), config.times)
        bench.dds("exploding", fitted(), config.times, exploding=True)


def _reconstruct_volumes(bench: Bench) -> xr.Dataset:
    config, task, truth = bench.config, bench.task, bench.task.truth
    best = bench.tune()
    bench.dds("dds, slice by slice", Krylov(INNER), config.times)
    bench.across("dds", *bench.tune_across())
    bench.variation("variation", best["weight"])
    bench.least_squares("least squares", int(best["steps"]))
    bench.dds("projection", RangeNullSpace.of(task.operator, cutoff=best["cutoff"]), config.times, noise_rule="ddim")

    def variation(x: np.ndarray) -> np.ndarray:
        return np.diff(x.reshape(config.seeds, config.slices, config.side, config.side), axis=1)

    errors = {name: np.sqrt(((variation(x) - variation(truth)) ** 2).mean(axis=(1, 2, 3))) for name, x in bench.found.items()}
    return xr.Dataset({"error": (("arm", "set"), np.stack(list(errors.values())), {"units": "1"})}, {"arm": list(errors)})


def _predictions(bench: Bench) -> xr.Dataset:
    """The same denoiser read in three ways: relative differences of what comes out."""
    config, first = bench.config, bench.task.denoiser
    for kind in PREDICTIONS[1:]:
        bench.dds(f"read as {kind}", Krylov(INNER), config.times, denoiser=Denoiser(Reading(first, kind), kind))  # pyright: ignore[reportArgumentType]
    ways = [bench.found.get(f"read as {kind}", bench.found["dds"]) for kind in PREDICTIONS]
    size = np.linalg.norm(ways[0], axis=(1, 2))
    gaps = [np.linalg.norm(a - b, axis=(1, 2)) / size for a, b in ((ways[0], ways[1]), (ways[0], ways[2]), (ways[1], ways[2]))]
    return xr.Dataset({"difference": (("pair", "image"), np.stack(gaps), {"units": "1"})})


def _known_head(bench: Bench) -> xr.Dataset:
    """The phantom that everyone knows, which the prior has never seen, with data on the same grid; from several starts."""
    pair, n = known_head(bench.config.side), len(bench.task.truth)
    y = jnp.repeat(measure(bench.task.operator, pair.coarse), n, axis=0)
    bench.dds("known head", Krylov(INNER), bench.config.times, data=y)
    x = bench.found.pop("known head")
    found = np.asarray(quality(jnp.asarray(x), jnp.asarray(np.repeat(pair.coarse, n, axis=0)))[0])
    units = {"units": "1"}
    return xr.Dataset(
        {
            "ratio": ("start", found, {"units": "dB"}),
            "image": (("row", "column"), x[0], units),
            "truth": (("row", "column"), pair.coarse[0], units),
        }
    )


def _told(bench: Bench) -> xr.Dataset:
    """Scores, misfits and the first images."""
    scores = bench.scores()
    arms = list(scores)
    tree = xr.Dataset(
        {
            "ratio": (("arm", "set", "image"), np.stack([scores[arm][0] for arm in arms]), {"units": "dB"}),
            "similarity": (("arm", "set", "image"), np.stack([scores[arm][1] for arm in arms]), {"units": "1"}),
            "shown": (("arm", "row", "column"), np.stack([bench.found[arm][0] for arm in arms]), {"units": "1"}),
            "truth": (("row", "column"), bench.task.truth[0], {"units": "1"}),
            "back": (("row", "column"), np.asarray(bench.task.operator.adjoint(bench.task.y[:1])[0]), {"units": "1"}),
            "network_calls": ("arm", np.array([bench.work[arm][0] for arm in arms]), {"units": "1"}),
            "products": ("arm", np.array([bench.work[arm][1] for arm in arms]), {"units": "1"}),
        },
        {"arm": arms},
    )
    for arm in ("dds", "dds, 1 inner", "dps", "projection", "dds, slice by slice"):
        if arm in bench.misfits:
            curve = bench.misfits[arm].mean(axis=1)
            tree[f"misfit of {arm}"] = (f"levels of {arm}", curve, {"units": "1"})
    for word, (grid, values) in bench.tuning.items():
        tree[f"tuned {word}"] = (f"grid of {word}", values, {"units": "dB"})
        tree[f"values of {word}"] = (f"grid of {word}", grid, {"units": "1"})
    return tree


def _speed(config: Config, session: Session, bench: Bench) -> xr.Dataset:
    """One set's images by three samplers in turns, compiled and warm, all with the same network."""
    task, n = bench.task, config.images
    y, shape = task.y[:n], (n, *task.operator.shape)
    small = Bench(
        config,
        Task(task.name, task.operator, task.denoiser, task.truth[:n], y, None, task.validation, task.y_validation),
        session,
        bench.key,
    )
    steps = jnp.full(n, 0.1, jnp.float32)
    pairs = min(config.timed_pairs, config.pairs)
    seconds = session.timed(
        "samplers",
        {
            "dds": lambda: small.sampled(Krylov(INNER), y, config.times),
            "dps": lambda: small.propagated(y, config.many_times, steps),
            "pairs": lambda: small.predictor_corrector(y, shape, pairs),
        },
        repeats=config.repeats,
    )
    quality_pairs = session.once("pairs", lambda: np.asarray(small.predictor_corrector(y, shape, pairs * 5)))
    ratio = np.asarray(quality(jnp.asarray(quality_pairs), jnp.asarray(task.truth[:n]))[0])
    return xr.Dataset(
        {
            "seconds": (("sampler", "repeat"), np.stack([seconds[name] for name in ("dds", "dps", "pairs")]), {"units": "s"}),
            "pairs_ratio": ("image", ratio, {"units": "dB"}),
        },
        {"sampler": ["dds", "dps", "pairs"]},
        {"task": task.name, "timed_pairs": pairs, "pairs": config.pairs, "images": n, "quality_pairs": pairs * 5},
    )
