import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import divergence, hutchinson_asymmetry, hutchinson_divergence, jacobian_asymmetry

pytestmark = pytest.mark.usefixtures("double")
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(5, 5))
SYMMETRIC, ANTISYMMETRIC = (MATRIX + MATRIX.T) / 2, (MATRIX - MATRIX.T) / 2
# Field and product of one structure for the whole file: a pytree of two leaves, one of them a matrix.
POINT = {"a": jnp.array([0.3]), "b": jnp.array([[0.1, -0.4], [0.7, 0.2]])}


def apply(matrix, v):
    flat = matrix @ jnp.concatenate([v["a"], v["b"].ravel()])
    return {"a": flat[:1], "b": flat[1:].reshape(2, 2)}


def field(matrix, v):
    return jax.tree.map(jnp.tanh, apply(matrix, v))


@jax.jit
def measure(matrix, key):
    return {
        "divergence": divergence(lambda v: field(matrix, v), POINT),
        "asymmetry": jacobian_asymmetry(lambda v: field(matrix, v), POINT),
        "signs": hutchinson_divergence(lambda v: field(matrix, v), POINT, key, n_probes=20_000),
        "normal": hutchinson_asymmetry(lambda v: apply(matrix, v), POINT, key, n_probes=20_000, distribution="gaussian"),
        "one": hutchinson_asymmetry(lambda v: apply(matrix, v), POINT, key),
    }


@pytest.fixture(scope="module")
def measured():
    # The `double` of each test is not there yet.
    with jax.enable_x64(True):
        return {
            name: measure(jnp.asarray(matrix), jax.random.key(0))
            for name, matrix in (("any", MATRIX), ("symmetric", SYMMETRIC), ("antisymmetric", ANTISYMMETRIC))
        }


def jacobian(matrix):
    x = np.concatenate([np.asarray(POINT["a"]), np.asarray(POINT["b"]).ravel()])
    return (1 - np.tanh(matrix @ x) ** 2)[:, None] * matrix


@pytest.mark.parametrize(("name", "matrix"), [("any", MATRIX), ("symmetric", SYMMETRIC), ("antisymmetric", ANTISYMMETRIC)])
def test_exact_values_are_those_of_the_dense_jacobian(measured, name, matrix):
    J = jacobian(matrix)
    np.testing.assert_allclose(measured[name]["divergence"], np.trace(J), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(measured[name]["asymmetry"], np.sum(((J - J.T) / 2) ** 2), rtol=1e-12)


@pytest.mark.parametrize(("name", "matrix"), [("any", MATRIX), ("antisymmetric", ANTISYMMETRIC)])
def test_estimates_are_unbiased(measured, name, matrix):
    J, A = jacobian(matrix), (matrix - matrix.T) / 2
    S = (J + J.T) / 2
    # Five standard errors: the variance of signs is 2 Σ_{i≠j} S²ᵢⱼ, that of normal probes 2 ‖sym(JᵀJ - J²)‖²_F / 4.
    error = np.sqrt(2 * (np.sum(S**2) - np.sum(np.diag(S) ** 2)) / 20_000)
    assert abs(measured[name]["signs"] - np.trace(J)) < 5 * error
    M = matrix.T @ matrix - matrix @ matrix
    error = np.sqrt(2 * np.sum(((M + M.T) / 2) ** 2) / 4 / 20_000)
    assert abs(measured[name]["normal"] - np.sum(A**2)) < 5 * error


def test_asymmetry_of_a_symmetric_map_is_zero_for_every_probe(measured):
    assert abs(measured["symmetric"]["one"]) < 1e-13
    assert measured["any"]["one"] != 0


def test_estimates_can_be_differentiated():
    def loss(matrix):
        return hutchinson_asymmetry(lambda v: matrix @ v, jnp.zeros(5), jax.random.key(0), n_probes=4)

    gradient = jax.jit(jax.grad(loss))(jnp.asarray(SYMMETRIC))
    # ½(‖Jε‖² - εᵀJ²ε) has the slope ½(2 Jεεᵀ - Jᵀεεᵀ - εεᵀJᵀ), which only E[εεᵀ] = I makes vanish.
    draw = jax.random.rademacher(jax.random.key(0), (20,), jnp.float64).reshape(4, 5)
    outer = np.mean([np.outer(e, e) for e in draw], axis=0)
    np.testing.assert_allclose(gradient, SYMMETRIC @ outer - (SYMMETRIC @ outer + outer @ SYMMETRIC) / 2, atol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="n_probes must be at least 1, got 0"):
        hutchinson_divergence(lambda x: x, jnp.zeros(2), jax.random.key(0), n_probes=0)
    with pytest.raises(ValueError, match="size of the point, 2, got 3"):
        divergence(lambda x: jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match="size of the point, 2, got 1"):
        hutchinson_asymmetry(lambda v: v[:1], jnp.zeros(2), jax.random.key(0))
    # TypeError where types are checked, as they are in these tests.
    with pytest.raises((ValueError, TypeError), match="distribution"):
        hutchinson_divergence(lambda x: x, jnp.zeros(2), jax.random.key(0), distribution="other")  # pyright: ignore[reportArgumentType]


def test_single_normal_probes_scatter_as_they_should():
    n = 20_000

    def draw(key):
        return hutchinson_divergence(lambda v: jnp.asarray(MATRIX) @ v, jnp.zeros(5), key, distribution="gaussian")

    values = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), n)))
    variance = 2 * np.sum(SYMMETRIC**2)
    assert abs(values.mean() - np.trace(MATRIX)) < 5 * np.sqrt(variance / n) and abs(values.var() / variance - 1) < 0.1
