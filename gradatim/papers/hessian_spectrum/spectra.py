"""Spectra of all repetitions, and what is read off them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from gradatim.landscape import count_outliers, hessian_spectrum, permuted_edge
from gradatim.numerics import GaussNewtonOperator, HessianOperator, ResidualOperator, dense_matrix

from .training import Problem, cross_entropy

NEAR_ZERO = 1e-3
"Below this share of λmax an eigenvalue counts as near zero."
RULES = ("above 20 %", "above 10 %", "largest gap", "bulk edge")


@eqx.filter_jit
def dense_spectra(problem: Problem, params: PyTree, max_size: int) -> dict[str, Array]:
    """All eigenvalues of H, G and R = H - G for each repetition, largest first, and the loss."""

    def one(args: tuple[PyTree, Array, Array]) -> dict[str, Array]:
        params, inputs, labels = args
        h = dense_matrix(HessianOperator(problem.loss, params, (inputs, labels)), max_size=max_size)
        composed = (problem.outputs, cross_entropy, params, (inputs, labels))
        g = dense_matrix(GaussNewtonOperator(*composed), max_size=max_size)
        values = {"hessian": h, "gauss_newton": g, "residual": dense_matrix(ResidualOperator(*composed), max_size=max_size)}
        return {name: jnp.linalg.eigvalsh(matrix)[::-1] for name, matrix in values.items()}

    return {**jax.lax.map(one, (params, problem.inputs, problem.labels)), "loss": problem.losses(params)}


@eqx.filter_jit
def lanczos_tops(problem: Problem, params: PyTree, key: PRNGKeyArray, steps: int) -> dict[str, Array]:
    """The twenty largest Ritz values of H and the largest of G for each repetition, and the loss."""

    def one(args: tuple[PyTree, Array, Array]) -> dict[str, Array]:
        params, inputs, labels = args
        hessian = HessianOperator(problem.loss, params, (inputs, labels))
        gauss_newton = GaussNewtonOperator(problem.outputs, cross_entropy, params, (inputs, labels))
        h, g = (hessian_spectrum(operator, key=key, steps=steps).eigenvalues for operator in (hessian, gauss_newton))
        return {"hessian": h[: min(20, steps)], "gauss_newton": g[0]}

    return {**jax.lax.map(one, (params, problem.inputs, problem.labels)), "loss": problem.losses(params)}


@eqx.filter_jit
def null_models(problem: Problem, params: PyTree, key: PRNGKeyArray, steps: int) -> dict[str, Array]:
    """For each repetition: the largest eigenvalue of G with its gradients permuted, the bulk's edge, and of H with its labels permuted."""

    def one(args: tuple[PyTree, Array, Array]) -> dict[str, Array]:
        params, inputs, labels = args
        hessian = HessianOperator(problem.loss, params, (inputs, jax.random.permutation(key, labels)))
        top = hessian_spectrum(hessian, key=key, steps=steps).eigenvalues[0]
        return {"edge": permuted_edge(gradient_rows(problem, params, inputs), key=key), "labels_permuted": top}

    return jax.lax.map(one, (params, problem.inputs, problem.labels))


def gradient_rows(problem: Problem, params: PyTree, inputs: Float[Array, "n features"]) -> Float[Array, "rows parameters"]:
    """X with G = XᵀX: √(p/n) (∇f - Σ p ∇f) for each class of each example, p the network's probabilities."""
    flat, unravel = ravel_pytree(params)
    jacobians = jax.vmap(lambda x: jax.jacrev(lambda flat: problem.outputs(unravel(flat), x[None])[0])(flat))(inputs)
    p = jax.nn.softmax(problem.outputs(params, inputs))
    mean = jnp.einsum("nk,nkm->nm", p, jacobians)
    return (jnp.sqrt(p / len(inputs))[..., None] * (jacobians - mean[:, None])).reshape(-1, flat.size)


def outlier_counts(values: dict[str, np.ndarray], edges: np.ndarray, classes: int) -> np.ndarray:
    """Outliers of H by each rule, for each seed."""
    return np.asarray(_outlier_counts(jnp.asarray(values["hessian"]), jnp.asarray(edges), classes))


@eqx.filter_jit
def _outlier_counts(hessian: Array, edges: Array, classes: int) -> Array:
    def one(h: Array, edge: Array) -> Array:
        by_rule = [
            count_outliers(h, fraction=0.2),
            count_outliers(h, fraction=0.1),
            count_outliers(h, "gap", n_classes=classes),
            count_outliers(h, "edge", edge=edge),
        ]
        return jnp.stack(by_rule)

    return jax.vmap(one, out_axes=1)(hessian, edges)


def near_zero_share(values: np.ndarray) -> np.ndarray:
    """The share of eigenvalues near zero in each row, largest first."""
    return (np.abs(values) < NEAR_ZERO * values[:, :1]).mean(axis=1)


def spectral_norm(values: np.ndarray) -> np.ndarray:
    """The largest eigenvalue of each row in size."""
    return np.abs(values).max(axis=1)


def as_numpy(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of JAX as arrays of NumPy."""
    return {name: np.asarray(value) for name, value in values.items()}


def labelled(variables: dict[str, Any], coordinates: dict[str, Any], *, unit: str) -> xr.Dataset:
    """A dataset whose variables carry their unit."""
    data = xr.Dataset(variables, {name: (name, values) for name, values in coordinates.items()})
    for name in data.data_vars:
        data[name].attrs["units"] = "" if str(name).startswith("count") else unit
    return data
