"""What is known in closed form: the motion, both samplers with the exact score, mirrored Langevin dynamics, losses and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from scipy import special

from gradatim.lab import Session, host_generator
from gradatim.transport import (
    ENTROPY,
    GeometricBrownianMotion,
    LogNormal,
    LogNormalScore,
    dale_langevin_step,
    explicit_multiplicative_loss,
    mirrored_langevin_step,
    multiplicative_score_matching,
    nonnegative_score_matching,
    sample_dale_langevin,
    sample_multiplicative,
    stein_from_point_score,
)

from .config import Config

EIGHTHS = 8
TIMES = (0.125, 0.25, 0.5, 1.0)
"At which the motion is compared with its law, eighths of its way."
DATA_STD = 0.24
"Of the logarithm of log-normal data, near that of handwritten digits."
KEPT = 4000
"Paths that are kept for a figure."


class Mixture(eqx.Module):
    """Log-normal data of several clusters: closed under the motion, with a score that is not linear."""

    parts: LogNormal  # stacked
    weights: Float[Array, " parts"]

    def log_density(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Of one point."""
        return jax.nn.logsumexp(jax.vmap(lambda part: part.log_density(x))(self.parts), b=self.weights)

    def score(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Of one point, times the point: those of the clusters, by how likely each is."""
        logits = jax.vmap(lambda part: part.log_density(x))(self.parts) + jnp.log(self.weights)
        return jax.nn.softmax(logits) @ jax.vmap(lambda part: part.score(x))(self.parts)


def mixture(dim: int) -> Mixture:
    """Three clusters, apart by several of their widths."""
    centres = jnp.array([-0.8, 0.1, 0.9])[:, None] + 0.1 * jnp.arange(dim)[None]
    return Mixture(LogNormal(centres, jnp.full((3, dim), DATA_STD)), jnp.array([0.5, 0.2, 0.3]))


def run_exact(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """All of it."""
    key_paths, key_samplers, key_mirror, key_losses = jax.random.split(key, 4)
    motion = GeometricBrownianMotion(config.sigma)
    return {
        "motion": _motion(config, session, motion, key_paths),
        "samplers": _samplers(config, session, motion, key_samplers),
        "recursion": _recursion(config, motion),
        "mirror": _mirror(config, session, motion, key_mirror),
        "losses": _losses(config, session, motion, key_losses),
        "identity": _identity(config, jax.random.fold_in(key, 4)),
    }


def _motion(config: Config, session: Session, motion: GeometricBrownianMotion, key: jax.Array) -> xr.Dataset:
    """Logarithms of simulated paths at several times, and the Kolmogorov–Smirnov test of each."""
    settings = config.exact

    dt, part = 1 / settings.path_steps, settings.path_steps // EIGHTHS

    @jax.jit
    def simulate(key: Array) -> Array:
        def step(i: Array, x: Array) -> Array:
            rates = motion.rates(i * dt)
            noise = jax.random.normal(jax.random.fold_in(key, i), x.shape)
            # In the space itself: the closed form is nowhere used.
            return x * (1 + rates.drift * dt + jnp.sqrt(rates.variance * dt) * noise)

        def eighth(x: Array, k: Array) -> tuple[Array, Array]:
            x = jax.lax.fori_loop(k * part, (k + 1) * part, step, x)
            return x, x

        xs = jax.lax.scan(eighth, jnp.ones(settings.paths), jnp.arange(EIGHTHS))[1]
        return jnp.log(xs[jnp.asarray([round(EIGHTHS * t) - 1 for t in TIMES])].T)

    logs = session.once("paths of the motion", lambda: np.asarray(simulate(key)))
    shift, variance = (np.asarray(part) for part in motion.log_transition(jnp.asarray(TIMES)))
    p_values = [kolmogorov_smirnov((column - m) / v**0.5) for column, m, v in zip(logs.T, shift, variance, strict=True)]
    return xr.Dataset(
        {
            "log": (("path", "time"), logs[:KEPT], {"units": "1"}),
            "p_value": ("time", p_values, {"units": "1"}),
            "mean": ("time", shift, {"units": "1"}),
            "variance": ("time", variance, {"units": "1"}),
        },
        coords={"time": list(TIMES)},
    )


def kolmogorov_smirnov(standardised: np.ndarray) -> float:
    """The p-value of numbers that should be standard normal, by the asymptotic law with Stephens' correction for their count."""
    n = len(standardised)
    law = special.ndtr(np.sort(standardised))
    steps = np.arange(n + 1) / n
    distance = max((steps[1:] - law).max(), (law - steps[:-1]).max())
    return float(special.kolmogorov((n**0.5 + 0.12 + 0.11 / n**0.5) * distance))


def _samplers(config: Config, session: Session, motion: GeometricBrownianMotion, key: jax.Array) -> xr.Dataset:
    """Log-variances and changes of sign at several counts of steps."""
    n = config.exact.samples
    data = LogNormal(jnp.zeros(n), jnp.full(n, DATA_STD))
    score = LogNormalScore(motion, data)

    @jax.jit
    def draw(key: Array, times: Array) -> dict[str, Array]:
        key_start, key = jax.random.split(key)
        start = data.after(motion, 1.0).sample(key_start)
        log = sample_dale_langevin(score, motion, start, times, key=key)
        end = sample_multiplicative(score, motion, start, times, key=key)
        found = {"log_crossings": jnp.sum(~(log > 0)), "space_crossings": end.crossings}
        for name, x in (("log", log), ("space", jnp.abs(end.x))):
            y = jnp.log(x)
            found[f"{name}_variance"] = y.var()
            found[f"{name}_error"] = jnp.sqrt(jnp.var((y - y.mean()) ** 2) / n)
        return found

    rows: dict[str, list[float]] = {}
    for i, steps in enumerate(config.exact.sampler_steps):
        times = jnp.linspace(1, 0, steps + 1)
        found = session.once(f"both samplers in {steps} steps", lambda times=times, i=i: draw(jax.random.fold_in(key, i), times))
        for name, value in found.items():
            rows.setdefault(name, []).append(float(value))
    counts = {steps: f"{share:.2%}" for steps, share in zip(config.exact.sampler_steps, np.array(rows["space_crossings"]) / n, strict=True)}
    session.note(f"C2: changes of sign of the sampler in the space itself, a sample, by steps: {counts}; of the one in the logarithm: none")
    return xr.Dataset(
        {name: ("steps", values, {"units": "1"}) for name, values in rows.items()},
        coords={"steps": list(config.exact.sampler_steps)},
        attrs={"samples": n},
    )


def _recursion(config: Config, motion: GeometricBrownianMotion) -> xr.Dataset:
    """The exact log-variance after all steps: of log-normal data, a step is affine in the logarithm and in the noise."""
    score = LogNormalScore(motion, LogNormal(jnp.zeros(1), jnp.full(1, DATA_STD)))

    @jax.jit
    def coefficients(t: Array, after: Array) -> tuple[Array, Array]:
        drift, variance = (part - other for part, other in zip(motion.integrals(t), motion.integrals(after), strict=True))

        def moved(y: float, z: float) -> Array:
            x = jnp.full((len(t), 1), jnp.exp(y))
            step = jax.vmap(lambda x, t, m, v: dale_langevin_step(x, score(t, x), jnp.full(1, z), m, v))
            return jnp.log(step(x, t, drift, variance))[:, 0]

        still = moved(0.0, 0.0)
        return moved(1.0, 0.0) - still, moved(0.0, 1.0) - still

    counts = config.exact.recursion_steps
    grids = [np.linspace(1, 0, n + 1) for n in counts]
    both = coefficients(*(jnp.asarray(np.concatenate([grid[part] for grid in grids])) for part in (slice(-1), slice(1, None))))
    start = DATA_STD**2 + float(motion.integrals(1.0).variance)
    ends = []
    for a, b in zip(*(np.split(np.asarray(part), np.cumsum(counts)[:-1]) for part in both), strict=True):
        value = start
        for one, two in zip(a, b, strict=True):
            value = one**2 * value + two**2
        ends.append(value)
    errors = np.array(ends) - DATA_STD**2
    return xr.Dataset({"error": ("count", errors, {"units": "1"})}, coords={"count": list(counts)})


def _mirror(config: Config, session: Session, motion: GeometricBrownianMotion, key: jax.Array) -> xr.Dataset:
    """A path of the sampler and one of mirrored Langevin dynamics, which knows the density alone, with the same noise."""
    dim, steps = 4, config.exact.mirror_steps
    data = mixture(dim)

    def at(t: Array) -> Mixture:
        return Mixture(jax.vmap(lambda part: part.after(motion, t))(data.parts), data.weights)

    @jax.jit
    def walk(key: Array, times: Array) -> dict[str, Array]:
        noise = jax.random.normal(key, ((steps + 1) * dim,)).reshape(steps + 1, dim)
        drift, variance = (-jnp.diff(part) for part in motion.integrals(times))

        def step(state: Any, given: Any) -> Any:
            ours, mirrored = state
            t, z, m, v = given
            density = at(t)
            after = dale_langevin_step(ours, density.score(ours), z, m, v)
            stein = jax.grad(density.log_density)(mirrored)
            mirrored = mirrored_langevin_step(ENTROPY, mirrored, stein, z, v, temperature=0.5)
            # Without noise: the factor of exponentiated gradient descent on -log p of the logarithm.
            still = dale_langevin_step(ours, density.score(ours), jnp.zeros(dim), m, v)
            slope = jax.grad(lambda y: density.log_density(jnp.exp(y)) + jnp.sum(y))(jnp.log(ours))
            exponentiated = ours * jnp.exp(v * slope)
            return (after, mirrored), (after, jnp.abs(mirrored / after - 1), jnp.abs(exponentiated / still - 1))

        start = jnp.exp(jnp.sqrt(motion.integrals(1.0).variance) * noise[0])
        paths, apart, from_descent = jax.lax.scan(step, (start, start), (times[:-1], noise[1:], drift, variance))[1]
        return {"path": paths, "difference": apart.max(axis=1), "descent_difference": from_descent.max(axis=1)}

    found = session.once("mirrored Langevin dynamics", lambda: walk(key, jnp.linspace(1, 0, steps + 1)))
    session.note(
        "C3: mirrored Langevin dynamics at temperature ½, for the reverse of a diffusion drifts twice as fast as Langevin dynamics with "
        "its noise. Without noise the step is one of exponentiated gradient descent, largest relative difference "
        f"{float(np.max(found['descent_difference'])):.1g}, whose gradient is that of -log p of the logarithm along the logarithm: the "
        "gradient of -log p along x itself lacks a factor x"
    )
    return xr.Dataset(
        {
            "path": (("step", "coordinate"), np.asarray(found["path"]), {"units": "1"}),
            "difference": ("step", np.asarray(found["difference"]), {"units": "1"}),
        },
        coords={"step": np.arange(1, steps + 1)},
    )


def random_model(coefficients: Float[Array, " 4"]) -> Callable[[Any, Array], Array]:
    """A smooth model of the score, neither linear nor near the truth."""
    a, b, c, d = coefficients
    return lambda t, x: -1 - a * jnp.log(x) + b * jnp.sin(c * jnp.log(x) + d + t)


def _losses(config: Config, session: Session, motion: GeometricBrownianMotion, key: jax.Array) -> xr.Dataset:
    """For neighbouring pairs of random models: how far their denoising losses differ otherwise than their explicit ones."""
    settings = config.exact
    exact = LogNormalScore(motion, LogNormal(jnp.zeros(1), jnp.full(1, DATA_STD)))

    @jax.jit
    def values(key: Array) -> tuple[Array, Array]:
        key_models, key_points = jax.random.split(key)
        models = jax.random.normal(key_models, (4 * settings.models,)).reshape(settings.models, 4)
        normal = jax.random.normal(key_points, (2 * settings.loss_samples,)).reshape(2, -1, 1, 1)
        t = 0.1 + 0.9 * jax.random.uniform(jax.random.fold_in(key_points, 1), (settings.loss_samples, 1))

        def of(model: Array) -> tuple[Array, Array]:
            score = random_model(model)

            def one(x0: Array, noise: Array, t: Array) -> tuple[Array, Array]:
                denoising = multiplicative_score_matching(score, motion, x0, noise, t, weighting="score")
                return denoising, 2 * explicit_multiplicative_loss(score, exact, motion.point(x0, noise, t), t)

            return jax.vmap(one)(jnp.exp(DATA_STD * normal[0]), normal[1], t)

        return jax.vmap(of)(models)

    def differences() -> dict[str, np.ndarray]:
        denoising, explicit = (np.asarray(part) for part in values(key))
        other = denoising - explicit
        apart = other - np.roll(other, 1, axis=0)
        error = apart.std(axis=1, ddof=1) / settings.loss_samples**0.5
        return {"difference": apart.mean(axis=1), "error": error, "denoising": denoising.mean(axis=1), "explicit": explicit.mean(axis=1)}

    found = session.once("losses of random models", differences)
    return xr.Dataset({name: ("model", value, {"units": "1"}) for name, value in found.items()})


def _identity(config: Config, key: jax.Array) -> xr.Dataset:
    """Both sides of the integration by parts for random models, mean scores and scaling, by quadrature along the logarithm."""
    y = jnp.linspace(-12, 12, 4001)
    models = jnp.asarray(host_generator(key).normal(size=(config.exact.models, 4)))
    scales = jnp.asarray([1e-3, 0.1, 7.0, 1e3])
    data = mixture(1)

    @jax.jit
    def quadrature() -> dict[str, Array]:
        x = jnp.exp(y)[:, None]
        density = jnp.exp(jax.vmap(data.log_density)(x) + y) * (y[1] - y[0])
        truth = jax.vmap(data.score)(x)[:, 0]

        def of(model: Array) -> tuple[Array, Array]:
            def h(x: Array) -> Array:
                return random_model(model)(0.0, x)

            def stein(x: Array) -> Array:
                return stein_from_point_score(h(x), x)

            def hyvarinen(x: Array) -> Array:
                psi, slope = jax.jvp(stein, (x,), (jnp.ones_like(x),))
                return (2 * x * psi + x**2 * slope + x**2 * psi**2 / 2)[0]

            explicit = density @ (jax.vmap(h)(x)[:, 0] - truth) ** 2 / 2
            constant = density @ truth**2 / 2
            by_points = density @ jax.vmap(lambda x: nonnegative_score_matching(h, x[None]))(x)
            by_gradient = density @ jax.vmap(hyvarinen)(x)
            return explicit - constant, jnp.stack([by_points, by_gradient])

        left, right = jax.vmap(of)(models)
        return {"left": left, "right": right, **_mean_scores(y), **_scaling(data, scales)}

    found = {name: np.asarray(value) for name, value in quadrature().items()}
    dims = {"left": ("model",), "right": ("model", "form"), "mean_score": ("density",)}
    return xr.Dataset(
        {name: (dims.get(name, ("scale",)), value, {"units": "1"}) for name, value in found.items()},
        coords={"form": ["times the point", "gradient"], "density": list(DENSITIES), "scale": np.asarray(scales)},
    )


DENSITIES: dict[str, Callable[[Array], Array]] = {
    "log-normal": lambda x: -(jnp.log(x) ** 2) / 2 - jnp.log(x),
    "gamma": lambda x: 2 * jnp.log(x) - x,
    "Weibull": lambda x: jnp.log(x) - x**2,
    "inverse gamma": lambda x: -4 * jnp.log(x) - 1 / x,
    "two clusters": lambda x: jnp.log(jnp.exp(-8 * jnp.log(x) ** 2) + jnp.exp(-8 * jnp.log(x / 5) ** 2)) - jnp.log(x),
}
"Logarithms of densities up to a constant, with x p zero at both ends."


def _mean_scores(y: Array) -> dict[str, Array]:
    # Half as far: where double precision still sees both clusters.
    x = jnp.exp(y / 2)
    means = []
    for log_density in DENSITIES.values():
        weights = jax.nn.softmax(log_density(x) + jnp.log(x))
        means.append(weights @ (x * jax.vmap(jax.grad(log_density))(x)))
    return {"mean_score": jnp.stack(means)}


def _scaling(data: Mixture, scales: Array) -> dict[str, Array]:
    x = jnp.exp(jnp.linspace(-1.5, 1.5, 61))[:, None]
    here = jax.vmap(data.score)(x)

    def at(c: Array) -> tuple[Array, Array]:
        # c X, by the gradient of its log-density.
        gradient = jax.vmap(jax.grad(lambda x: data.log_density(x / c)))(c * x)
        there = c * x * gradient
        apart = jnp.max(jnp.abs(there - here) / (1 + jnp.abs(here)))
        return apart, jnp.max(jnp.abs(gradient)) / jnp.max(jnp.abs(here / x))

    apart, ratio = jax.vmap(at)(scales)
    return {"scale_error": apart, "gradient_ratio": ratio}
