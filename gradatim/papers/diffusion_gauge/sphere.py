"""The sphere and its exact score: singular values, dimensions and samples, with gauge fields of several kinds and without."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from scipy.integrate import solve_ivp

from gradatim.lab import Session
from gradatim.transport import (
    ScoreFlow,
    flow_jacobian,
    read_flow_dimension,
    sample_flow_adaptively,
    sample_reverse_diffusion,
    sliced_distance,
)

from .config import Config
from .fields import LAST, PATH, SPHERE_FIELDS, STRENGTHS, flat_normal, over_pairs, sphere_field, spread_times

N_TIMES = 25
WINDOW = 9
"The last of the times, from which slopes are read: 1 - t from 1e-2 on."


def run_sphere(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Singular values in each dimension, and samples in three."""
    key_starts, key_samples = jax.random.split(key)
    times = spread_times(N_TIMES)
    trees: dict[str, xr.Dataset] = {}
    for dim in config.exact.dims:
        starts = flat_normal(key_starts, config.exact.starts, dim)
        found = session.once(f"flows to a sphere in {dim} dimensions", lambda dim=dim, starts=starts: _host(_flows(dim, starts)))
        units = {"units": "1"}
        trees[f"sphere_{dim}"] = xr.Dataset(
            {
                "singular_values": (("field", "start", "time", "index"), found["singular_values"], units),
                "by_slope": (("field", "start"), found["by_slope"], units),
                "by_gap": (("field", "start"), found["by_gap"], units),
                "expected": (("start", "time", "index"), expected_singular_values(np.asarray(starts), times), units),
                "radius": (("field", "start"), found["radius"], units),
            },
            {"field": list(SPHERE_FIELDS), "time": times},
        )
    trees["samples"] = _samples(config, session, key_samples)
    return trees


def expected_singular_values(starts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """ρₜ/ρ twice along the sphere, dρₜ/dρ across it and mₜ/m for each coordinate beyond three: (start, time, index), descending.

    The radius and its derivative by one equation each, from formulas of their own, with SciPy's integrator of order eight.
    """
    rho = np.linalg.norm(starts[:, :3], axis=1)

    def rates(t: float, state: np.ndarray) -> np.ndarray:
        radius, slope = state.reshape(2, -1)
        tau = 1 - t
        rate = PATH.beta_min + (PATH.beta_max - PATH.beta_min) * tau
        integral = tau * (PATH.beta_min + rate) / 2
        a, v = np.exp(-integral / 2), -np.expm1(-integral)
        kappa = a * radius / v
        langevin = 1 / np.tanh(kappa) - 1 / kappa
        # 1/κ² - 1/sinh²κ, where the second is nothing for large κ.
        bent = 1 / kappa**2 - 1 / np.sinh(np.minimum(kappa, 300)) ** 2
        drift = rate / 2 * (radius + (a * langevin - radius) / v)
        return np.concatenate([drift, rate / 2 * slope * (1 + (a**2 / v * bent - 1) / v)])

    start = np.concatenate([rho, np.ones_like(rho)])
    solution = solve_ivp(rates, (times[0], times[-1]), start, "DOP853", times, rtol=1e-10, atol=1e-12)
    radius, slope = np.moveaxis(solution.y.reshape(2, len(rho), -1), 2, 1)
    noise = np.asarray(PATH.coefficients(jnp.asarray(times)).m)
    along = radius / rho[None]
    others = [np.broadcast_to((noise / noise[0])[:, None], along.shape)] * (starts.shape[1] - 3)
    values = np.stack([along, along, np.abs(slope), *others], axis=-1)
    return np.sort(np.swapaxes(values, 0, 1), axis=-1)[..., ::-1]


def _host(found: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in found.items()}


@functools.partial(jax.jit, static_argnums=0)
def _flows(dim: int, starts: Array) -> dict[str, Array]:
    times = jnp.asarray(spread_times(N_TIMES))
    noise = PATH.coefficients(times).m

    def of(strengths: Array, x: Array) -> dict[str, Array]:
        flow = flow_jacobian(ScoreFlow(sphere_field(dim, strengths), PATH), x, times, rtol=1e-8, atol=1e-10)
        values = flow.singular_values
        found = read_flow_dimension(values[-WINDOW:], noise[-WINDOW:])
        radius = jnp.linalg.norm(flow.x[-1, :3])
        return {"singular_values": values, "by_slope": found.by_slope, "by_gap": found.by_gap, "radius": radius}

    return over_pairs(of, jnp.asarray(STRENGTHS), starts)


def _samples(config: Config, session: Session, key: jax.Array) -> xr.Dataset:
    settings = config.exact
    key_noise, key_data, key_floor, key_steps, key_directions = jax.random.split(key, 5)
    shape = (settings.replicates, settings.samples, 3)
    noise = flat_normal(key_noise, *shape)
    ends = session.once(
        "samples of a sphere",
        lambda: {
            "flow": np.asarray(_flow_ends(noise)),
            "diffusion": np.asarray(_diffusion_ends(noise, key_steps, jnp.asarray(1 - np.geomspace(1, LAST, settings.steps + 1)))),
        },
    )
    directions = np.asarray(flat_normal(key_directions, settings.directions, 3))
    directions = directions / np.linalg.norm(directions, axis=1)[:, None]
    data, other = (_noisy_sphere(key, shape) for key in (key_data, key_floor))
    units = {"units": "1"}
    distances = np.full((len(ends), len(SPHERE_FIELDS), settings.replicates), np.nan)
    for row, found in zip(distances, ends.values(), strict=True):
        row[: len(found)] = sliced_distance(found, data[None], directions)
    return xr.Dataset(
        {
            "distance": (("way", "field", "replicate"), distances, units),
            "data_distance": ("replicate", sliced_distance(other, data, directions), units),
        },
        {"way": list(ends), "field": list(SPHERE_FIELDS)},
    )


def _noisy_sphere(key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """Data as they are at the last time."""
    numbers = np.asarray(flat_normal(key, 2, *shape))
    c = jax.jit(PATH.coefficients)(1 - LAST)
    return float(c.a) * numbers[0] / np.linalg.norm(numbers[0], axis=-1, keepdims=True) + float(c.m) * numbers[1]


@jax.jit
def _flow_ends(noise: Array) -> Array:
    def of(strengths: Array, x: Array) -> Array:
        velocity = ScoreFlow(sphere_field(3, strengths), PATH)
        return sample_flow_adaptively(velocity, x, rtol=1e-5, atol=1e-6, end=1 - LAST).x

    def each(strengths: Array) -> Array:
        # A replicate at a time: all wait for the slowest.
        return jax.lax.map(lambda x: jax.vmap(lambda x: of(strengths, x))(x), noise)

    return jax.lax.map(each, jnp.asarray(STRENGTHS))


@jax.jit
def _diffusion_ends(noise: Array, key: Array, times: Array) -> Array:
    keys = jax.random.split(key, noise.shape[:2])

    def of(strengths: Array, x: Array, key: Array) -> Array:
        return sample_reverse_diffusion(sphere_field(3, strengths), PATH, x, times, key=key)

    def each(strengths: Array) -> Array:
        return jax.lax.map(lambda given: jax.vmap(lambda x, key: of(strengths, x, key))(*given), (noise, keys))

    # Not along saddles as strong as 1/m²: what Euler's steps then add to the radius hides the rest.
    return jax.lax.map(each, jnp.asarray(STRENGTHS[:-1]))
