"""What is read off trained networks: singular values of their flows, dimensions, and the parts of their fields."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.neighbors import NearestNeighbors

from gradatim.lab import Session
from gradatim.landscape import intrinsic_dimension
from gradatim.transport import (
    EmpiricalScore,
    FourierBasis,
    ScoreFlow,
    asymmetry_share,
    flow_jacobian,
    fokker_planck_dimension,
    normal_space_dimension,
    project_on_gradients,
    read_flow_dimension,
    weak_gauge_statistic,
)

from .config import Config
from .fields import PATH, flat_normal, spread_times
from .networks import KINDS, MODELS, SURFACES, Denoiser

N_TIMES = 25
WINDOW = 9
"The last of the times, from which slopes are read: 1 - t from 1e-2 on."
SHOWN = 32
"The first starts of a network, whose singular values a record keeps."
LEVELS = (0.003, 0.03, 0.3)
"1 - t at which fields are decomposed."
SCALES = (0.3, 1.0)
"Lengths of the random potentials."
NEAR = 0.01
"1 - t for dimensions from scores around a datum."
NEIGHBOURS = 20
VARIANCE = 0.05
"Share of the largest variance from which on a direction counts in local principal components (Fukunaga and Olsen 1971)."


def read_networks(
    config: Config, session: Session, key: PRNGKeyArray, networks: dict[int, dict[str, Denoiser]], data: dict[int, np.ndarray]
) -> dict[str, xr.Dataset]:
    """By dimension: trajectories and dimensions, and the parts of fields; each network at starts, data and random potentials of its own."""
    trees: dict[str, xr.Dataset] = {}
    for dim, by_kind in networks.items():
        key_flows, key_parts = jax.random.split(jax.random.fold_in(key, dim))
        if config.learned.starts:
            trees[f"reading_{dim}"] = _read_flows(config, session, key_flows, by_kind, data[dim])
        trees[f"parts_{dim}"] = _read_parts(config, session, key_parts, by_kind, data[dim])
    return trees


def _read_flows(
    config: Config, session: Session, key: PRNGKeyArray, by_kind: dict[str, Denoiser], data: Float[np.ndarray, "surface seed n dim"]
) -> xr.Dataset:
    n, (n_seeds, dim) = config.learned.starts, (data.shape[1], data.shape[3])
    key_starts, key_around = jax.random.split(key)
    starts = flat_normal(key_starts, n_seeds * n, dim, dtype=jnp.float32).reshape(n_seeds, n, dim)
    keys = jax.random.split(key_around, (n_seeds, n))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(by_kind[kind] for kind in KINDS))
    found = session.once(
        f"flows of the networks in {dim} dimensions",
        lambda: {name: np.asarray(value) for name, value in _flows(stacked, starts, jnp.asarray(data[:, :, :n]), keys).items()},
    )
    found["singular_values"] = found["singular_values"][:, :, :, :SHOWN]
    dims = {"singular_values": ("shown", "time", "index"), "ends": ("start", "axis")}
    units = {"units": "1"}
    local, whole = _classical(data, n)
    return xr.Dataset(
        {name: (("kind", "surface", "seed", *dims.get(name, ("start",))), value, units) for name, value in found.items()}
        | {"local_components": (("surface", "seed", "start"), local, units), "nearest_neighbours": (("surface", "seed"), whole, units)},
        {"kind": list(KINDS), "surface": list(SURFACES), "time": spread_times(N_TIMES)},
    )


def _read_parts(
    config: Config, session: Session, key: PRNGKeyArray, by_kind: dict[str, Denoiser], data: Float[np.ndarray, "surface seed n dim"]
) -> xr.Dataset:
    settings = config.learned
    points = jnp.asarray(data, jnp.float64)
    found = session.once(
        f"parts of the fields in {data.shape[3]} dimensions",
        lambda: {
            name: np.asarray(value)
            for name, value in _parts(by_kind, points, key, n=settings.samples, n_features=settings.features).items()
        },
    )
    return xr.Dataset(
        {name: (("surface", "level", "seed", "kind"), value, {"units": "1"}) for name, value in found.items()},
        {"surface": list(SURFACES), "level": list(LEVELS), "kind": list(KINDS)},
    )


class EitherScore(eqx.Module):
    """A network as a gradient where `is_gradient` is one, and as a free field where it is zero: one program for both kinds."""

    network: Denoiser
    is_gradient: Float[Array, ""]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The score at one time and one point."""
        free, gradient = (MODELS[kind](self.network, PATH)(t, x) for kind in KINDS)
        return jnp.where(self.is_gradient > 0, gradient, free)


@jax.jit
def _flows(networks: Denoiser, starts: Array, data: Array, keys: Array) -> dict[str, Array]:
    """By kind, surface, seed and point."""
    times = jnp.asarray(spread_times(N_TIMES), starts.dtype)
    noise = PATH.coefficients(times).m

    def of(score: EitherScore, x: Array, datum: Array, key: Array) -> dict[str, Array]:
        flow = flow_jacobian(ScoreFlow(score, PATH), x, times, rtol=1e-4, atol=1e-5)
        values = flow.singular_values
        found = read_flow_dimension(values[-WINDOW:], noise[-WINDOW:])
        near = jnp.asarray(1 - NEAR, x.dtype)
        return {
            "singular_values": values,
            "ends": flow.x[-1],
            "by_slope": found.by_slope,
            "by_gap": found.by_gap,
            "normal_space": normal_space_dimension(score, PATH, datum, near, key=key),
            "fokker_planck": fokker_planck_dimension(score, PATH, datum, near),
        }

    def of_kind(given: tuple[Array, Denoiser]) -> dict[str, Array]:
        is_gradient, networks = given

        def of_surface(given: tuple[Denoiser, Array]) -> dict[str, Array]:
            def of_network(given: tuple[Denoiser, Array, Array, Array]) -> dict[str, Array]:
                network, starts, data, keys = given
                score = EitherScore(network, is_gradient)
                return jax.vmap(lambda x, datum, key: of(score, x, datum, key))(starts, data, keys)

            networks, data = given
            # A network at a time: all flows of a batch wait for the slowest.
            return jax.lax.map(of_network, (networks, starts, data, keys))

        return jax.lax.map(of_surface, (networks, data))

    return jax.lax.map(of_kind, (jnp.asarray([0.0, 1.0], starts.dtype), networks))


@functools.partial(jax.jit, static_argnames=("n", "n_features"))
def _parts(networks: dict[str, Denoiser], data: Array, key: Array, *, n: int, n_features: int) -> dict[str, Array]:
    """Mean squares of fields and of their parts, in units of the noise, by surface, level, seed and kind; on held-out samples.

    The basis holds the density's own potential, whose gradient is the score that training aims at, and the potential of the gradient
    network of the same seed: what a free network has in common with it is no gauge part.
    """
    dim = data.shape[3]
    networks = jax.tree.map(lambda leaf: leaf.astype(data.dtype), networks)
    keys = jax.random.split(key, data.shape[1])

    def at_level(data: Array, networks: dict[str, Denoiser], t: Array) -> dict[str, Array]:
        v = PATH.coefficients(t).m ** 2

        def of_seed(given: tuple[Array, dict[str, Denoiser], Array]) -> dict[str, Array]:
            data, networks, key = given
            key_rows, key_noise, key_basis = jax.random.split(key, 3)
            rows = jax.random.randint(key_rows, (2 * n,), 0, len(data))
            x = PATH.point(flat_normal(key_noise, 2 * n, dim), data[rows], t)
            bases = [
                FourierBasis(dim, -(-n_features // len(SCALES)), scale=scale, key=jax.random.fold_in(key_basis, i))
                for i, scale in enumerate(SCALES)
            ]
            # Every point sees all data: a few at a time.
            score = jax.lax.map(lambda x: EmpiricalScore(PATH, data)(t, x), x, batch_size=128)
            fixed = jnp.concatenate([jax.vmap(jax.jacfwd(basis))(x) for basis in bases], axis=1)
            fields = {kind: MODELS[kind](networks[kind], PATH) for kind in KINDS}
            values = {kind: jax.vmap(lambda x, kind=kind: fields[kind](t, x))(x) for kind in KINDS}
            basis = jnp.concatenate([score[:, None], values["gradient"][:, None], fixed], axis=1)

            def of(kind: str) -> dict[str, Array]:
                coefficients = project_on_gradients(values[kind][:n], basis[:n])
                whole, exact = values[kind][n:], score[n:]
                conservative = jnp.einsum("nkd,k->nd", basis[n:], coefficients)
                rest = whole - conservative

                def mean(y: Array) -> Array:
                    return v * jnp.mean(jnp.sum(y**2, axis=1))

                return {
                    "field": mean(whole),
                    "remainder": mean(rest),
                    "error": mean(whole - exact),
                    "gradient_error": mean(conservative - exact),
                    "asymmetry": asymmetry_share(fields[kind], t, x[n : n + 512]),
                    "statistic": jnp.sqrt(jnp.mean(weak_gauge_statistic(rest, fixed[n:]) ** 2)),
                }

            found = [of(kind) for kind in KINDS]
            return {name: jnp.stack([part[name] for part in found]) for name in found[0]}

        return jax.lax.map(of_seed, (data, networks, keys))

    times = 1 - jnp.asarray(LEVELS)

    def of_surface(given: tuple[Array, dict[str, Denoiser]]) -> dict[str, Array]:
        return jax.lax.map(lambda t: at_level(given[0], given[1], t), times)

    return jax.lax.map(of_surface, (data, networks))


def _classical(data: Float[np.ndarray, "surface seed n dim"], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Dimensions of the data themselves: local principal components at the first n points, and one from nearest neighbours of all."""
    local = np.zeros((*data.shape[:2], n))
    whole = np.zeros(data.shape[:2])
    for i in np.ndindex(whole.shape):
        points = data[i].astype(np.float64)
        _, rows = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points))).fit(points).kneighbors(points[:n])
        around = points[rows] - points[rows].mean(axis=1, keepdims=True)
        variances = np.linalg.svd(around, compute_uv=False) ** 2
        local[i] = (variances > VARIANCE * variances[:, :1]).sum(axis=1)
        whole[i] = intrinsic_dimension(points)
    return local, whole
