"""Every task by every sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.transport import Denoiser, Krylov, NoiseLevel, Proximal

from .arms import INNER
from .bench import Bench, quality
from .config import Config
from .images import known_head, volumes
from .priors import Known, learn
from .speed import time_samplers
from .tasks import NAMES, Task, measure, projections, quarter_turn, resonance
from .tuning import tune, tune_across

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
    same_number(config)
    keys: dict[str, jax.Array] = dict(zip(("heads", "ellipses", *NAMES), jax.random.split(key, 6), strict=True))
    trees: dict[str, xr.Dataset] = {}
    benches: dict[str, Bench] = {}

    def bench(name: str, known: list[Known], task: Callable[[Known, jax.Array], Task]) -> Bench:
        key_data, key_noise = jax.random.split(keys[name])
        tasks = [task(one, jax.random.fold_in(key_data, i)) for i, one in enumerate(known)]
        benches[name] = Bench(config, tasks, session, key_noise)
        return benches[name]

    def learned(name: str) -> list[Known]:
        known, training = learn(name, config, session, keys[name])
        if training is not None:
            trees[f"training_{name}"] = training
        return known

    resonant = [name for name in ("one coil", "coils") if name in config.tasks]
    if resonant:
        known = learned("heads")
        for name in resonant:

            def scan(one: Known, key: jax.Array, name: str = name) -> Task:
                return resonance(config, name, one.denoiser, one.test, one.validation, key=key)

            _reconstruct(bench(name, known, scan), known)
    if "projections" in config.tasks or "volumes" in config.tasks:
        known = learned("ellipses")
        if "projections" in config.tasks:
            flat = bench("projections", known, lambda one, _: projections(config, one.denoiser, one.test, one.validation))
            _reconstruct(flat, known)
            trees["predictions"] = _predictions(flat)
            trees["known_head"] = _known_head(flat)
        if "volumes" in config.tasks:
            trees["across"] = _reconstruct_volumes(bench("volumes", known, lambda one, key: _quarter_turn(config, one, key)))
    for name, one in benches.items():
        trees[name.replace(" ", "_")] = _told(one)
        session.note(f"Tuned on validation images, {name}: " + ", ".join(one.chosen.values()))
    timed = next((benches[name] for name in ("projections", "coils") if config.with_speed and name in benches), None)
    if timed is not None:
        trees["speed"] = time_samplers(config, session, timed)
    return trees


def same_number(config: Config) -> None:
    """Refuses sets that cannot be shared out evenly."""
    if config.seeds % config.networks:
        raise ValueError(f"seeds must be a multiple of networks, {config.networks}, got {config.seeds}")


def _quarter_turn(config: Config, known: Known, key: jax.Array) -> Task:
    """A volume for each of the network's sets, and one for tuning."""
    counts = {"test": config.seeds // config.networks, "validation": 1}
    test, validation = (volumes(n, config.slices, config.side, part=part, key=key) for part, n in counts.items())
    return quarter_turn(config, known.denoiser, test, validation)


def _reconstruct(bench: Bench, known: list[Known]) -> None:
    config = bench.config
    best = tune(bench)
    networks = len(bench.tasks)

    def fitted(inner: int = INNER) -> list[Krylov] | list[Proximal]:
        if bench.name != "coils":
            return [Krylov(inner)] * networks
        # One weight an image, as in tuning: the same program.
        return [Proximal(jnp.full(len(y), best["gamma"], jnp.float32), inner) for y in bench.data]

    mixtures = [one.mixture for one in known if one.mixture is not None]
    bench.dds("dds", fitted(), config.times)
    bench.variation("variation", best["weight"])
    bench.least_squares("least squares", int(best["steps"]))
    if mixtures:
        bench.dds("dds, mixture", fitted(), config.times, denoisers=mixtures)
    if bench.name == "one coil":
        return
    bench.dds("dds, few", fitted(), config.few_times)
    bench.dds("dds, many", fitted(), config.many_times)
    bench.dps("dps", config.many_times, best["step"])
    bench.dds("projection", bench.projections(best["cutoff"]), config.times, noise_rule="ddim")
    bench.dds("dds, fine", fitted(), config.times, data=bench.fine)
    bench.dps("dps, fine", config.many_times, best["step"], data=bench.fine)
    bench.variation("variation, fine", best["weight"], data=bench.fine)
    bench.least_squares("least squares, fine", int(best["steps"]), data=bench.fine)
    if bench.name == "projections":
        for inner in config.inner_steps:
            if inner != INNER:
                bench.dds(f"dds, {inner} inner", fitted(inner), config.times)
        bench.dds("exploding", fitted(), config.times, exploding=True)


def _reconstruct_volumes(bench: Bench) -> xr.Dataset:
    config, truth = bench.config, bench.truth
    best = tune(bench)
    bench.dds("dds, slice by slice", [Krylov(INNER)] * config.networks, config.times)
    bench.across("dds", *tune_across(bench))
    bench.variation("variation", best["weight"])
    bench.least_squares("least squares", int(best["steps"]))
    bench.dds("projection", bench.projections(best["cutoff"]), config.times, noise_rule="ddim")

    def variation(x: np.ndarray) -> np.ndarray:
        return np.diff(x.reshape(config.seeds, config.slices, config.side, config.side), axis=1)

    errors = {name: np.sqrt(((variation(x) - variation(truth)) ** 2).mean(axis=(1, 2, 3))) for name, x in bench.found.items()}
    return xr.Dataset({"error": (("arm", "set"), np.stack(list(errors.values())), {"units": "1"})}, {"arm": list(errors)})


def _predictions(bench: Bench) -> xr.Dataset:
    """The same denoiser read in three ways: relative differences of what comes out."""
    config = bench.config
    for kind in PREDICTIONS[1:]:
        readings = [Denoiser(Reading(task.denoiser, kind), kind) for task in bench.tasks]  # pyright: ignore[reportArgumentType]
        bench.dds(f"read as {kind}", [Krylov(INNER)] * config.networks, config.times, denoisers=readings)
    ways = [bench.found.get(f"read as {kind}", bench.found["dds"]) for kind in PREDICTIONS]
    size = np.linalg.norm(ways[0], axis=(1, 2))
    gaps = [np.linalg.norm(a - b, axis=(1, 2)) / size for a, b in ((ways[0], ways[1]), (ways[0], ways[2]), (ways[1], ways[2]))]
    return xr.Dataset({"difference": (("pair", "image"), np.stack(gaps), {"units": "1"})})


def _known_head(bench: Bench) -> xr.Dataset:
    """The phantom that everyone knows, which no prior has ever seen, with data on the same grid; from several starts of each."""
    config, pair, n = bench.config, known_head(bench.config.side), len(bench.truth)
    y = jnp.repeat(measure(bench.tasks[0].operator, pair.coarse), n // config.networks, axis=0)
    bench.dds("known head", [Krylov(INNER)] * config.networks, config.times, data=[y] * config.networks)
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
    first = bench.tasks[0]
    scores = bench.scores()
    arms = list(scores)
    tree = xr.Dataset(
        {
            "ratio": (("arm", "set", "image"), np.stack([scores[arm][0] for arm in arms]), {"units": "dB"}),
            "similarity": (("arm", "set", "image"), np.stack([scores[arm][1] for arm in arms]), {"units": "1"}),
            "shown": (("arm", "row", "column"), np.stack([bench.found[arm][0] for arm in arms]), {"units": "1"}),
            "truth": (("row", "column"), bench.truth[0], {"units": "1"}),
            "back": (("row", "column"), np.asarray(first.operator.adjoint(first.y[:1])[0]), {"units": "1"}),
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
