"""Approximate Hessians of a network: equinox modules go in as their arrays, what is static stays in the arguments."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from jax.flatten_util import ravel_pytree

from gradatim.optim import EmpiricalFisher, ExactHessian, GaussNewton, GradientNormalizedNewton

pytestmark = pytest.mark.usefixtures("double")


def logits(params, args):
    static, x, _ = args
    return jax.vmap(eqx.combine(params, static))(x)


def losses(params, args):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, args), args[2])


def objective(params, args):
    return losses(params, args).mean()


def cross_entropy(scores, args):
    return optax.softmax_cross_entropy_with_integer_labels(scores, args[2]).mean()


HESSIANS = {"exact": ExactHessian(), "Gauss-Newton": GaussNewton(logits, cross_entropy), "Fisher": EmpiricalFisher(losses)}


@pytest.fixture
def network(getkey):
    """A small perceptron, and three noisy classes."""
    params, static = eqx.partition(eqx.nn.MLP(2, 3, 5, 1, activation=jax.nn.tanh, key=getkey()), eqx.is_array)
    y = jnp.arange(60) % 3
    centres = jnp.array([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])
    return params, (static, centres[y] + 0.5 * jax.random.normal(getkey(), (60, 2)), y)


def test_matrices_of_a_network(network):
    params, args = network

    @eqx.filter_jit
    def matrices(params, args):
        flat, unravel = ravel_pytree(params)
        rows = jax.jacrev(lambda flat: losses(unravel(flat), args))(flat)
        jacobian = jax.jacrev(lambda flat: logits(unravel(flat), args))(flat)
        chances = jax.nn.softmax(logits(params, args))
        inner = jax.vmap(jnp.diag)(chances) - chances[:, :, None] * chances[:, None, :]
        expected = {
            "exact": jax.hessian(lambda flat: objective(unravel(flat), args))(flat),
            "Fisher": rows.T @ rows / len(rows),
            "Gauss-Newton": jnp.einsum("nca,ncd,ndb->ab", jacobian, inner, jacobian) / len(rows),
        }
        return {name: h(objective, params, args).as_matrix() for name, h in HESSIANS.items()}, expected

    found, expected = matrices(params, args)
    for name, matrix in found.items():
        np.testing.assert_allclose(matrix, expected[name], atol=1e-12)
    least = {name: np.linalg.eigvalsh(matrix)[0] for name, matrix in found.items()}
    assert least["exact"] < -1e-3 and min(least["Gauss-Newton"], least["Fisher"]) > -1e-12


@pytest.mark.parametrize("name", ["Gauss-Newton", "Fisher"])
def test_a_network_is_trained(network, name):
    params, args = network
    solver = GradientNormalizedNewton(1e-4, 1e-6, hessian=HESSIANS[name])

    @eqx.filter_jit
    def train(params, args):
        return optx.minimise(objective, solver, params, args, max_steps=40, throw=False)

    solution = train(params, args)
    model = eqx.combine(solution.value, args[0])
    assert objective(solution.value, args) < 0.5 * objective(params, args)
    assert jnp.mean(jax.vmap(model)(args[1]).argmax(axis=1) == args[2]) > 0.8
