import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.sciml import (
    PoissonSystem,
    box_with_ball,
    direction_loss,
    fit_direction_network,
    ritz_vectors,
    spectral_right_hand_sides,
    spectral_weights,
)

SIDE, STEPS = 8, 20
FLUID = box_with_ball((SIDE, SIDE), radius=0.2)
SYSTEM = PoissonSystem(FLUID)
MATRIX = SYSTEM.as_csr().toarray()
EIGENVALUES = np.linalg.eigvalsh(MATRIX)


@pytest.fixture(scope="module")
def basis():
    with jax.enable_x64(True):
        return ritz_vectors(SYSTEM.operator(), STEPS, key=jax.random.key(0))


def vector(seed):
    return SYSTEM.extend(np.random.default_rng(seed).normal(size=len(MATRIX)))


@jax.jit
def loss_and_gradient(q, b):
    return jax.value_and_grad(lambda q: direction_loss(SYSTEM, q, b))(q)


def test_oracle_ritz_values_lie_in_the_spectrum_and_interlace(basis, double):
    values = np.asarray(basis.values)
    assert len(values) == STEPS and (np.diff(values) > 0).all()
    assert EIGENVALUES[0] - 1e-12 <= values[0] and values[-1] <= EIGENVALUES[-1] + 1e-12
    # The j-th smallest of a matrix on a subspace is no smaller than that of the whole, from below and from above.
    assert (values >= EIGENVALUES[:STEPS] - 1e-10).all() and (values <= EIGENVALUES[-STEPS:] + 1e-10).all()


def test_oracle_ritz_vectors_are_orthonormal_and_out_of_solid_cells(basis, double):
    vectors = np.asarray(basis.vectors)
    flat = vectors.reshape(STEPS, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(STEPS), atol=1e-10)
    assert np.abs(vectors[:, ~FLUID]).max() < 1e-12
    inside = np.stack([SYSTEM.restrict(one) for one in vectors])
    np.testing.assert_allclose(np.einsum("ji,ik,jk->j", inside, MATRIX, inside), basis.values, atol=1e-10)


def test_ritz_values_below_the_threshold_are_left_out(basis, double):
    kept = ritz_vectors(SYSTEM.operator(), STEPS, key=jax.random.key(0), threshold=1.0)
    np.testing.assert_allclose(kept.values, basis.values[basis.values >= 1])
    assert kept.vectors.shape == (len(kept.values), SIDE, SIDE)


def test_oracle_share_of_the_energy_at_the_low_end(basis, double):
    weights = spectral_weights(10_000)
    low = 81 * 5500 / (81 * 5500 + 4500)
    assert abs((weights[:5500] ** 2).sum() / (weights**2).sum() - low) < 1e-12 and low > 0.99 - 1e-4
    b = np.asarray(spectral_right_hand_sides(basis, 4000, key=jax.random.key(1)))
    np.testing.assert_allclose((b**2).sum((1, 2)), 1, atol=1e-10)
    energy = ((b.reshape(4000, -1) @ np.asarray(basis.vectors).reshape(STEPS, -1).T) ** 2).mean(0)
    # Of eleven and nine vectors, with the noise of so many draws.
    assert abs(energy[:11].sum() - 81 * 11 / (81 * 11 + 9)) < 5e-3
    assert energy[:11].min() > 30 * energy[11:].max()


def test_weights_alike_use_the_same_numbers(basis, double):
    one, other = (np.asarray(spectral_right_hand_sides(basis, 4000, key=jax.random.key(1), boost=boost)) for boost in (9.0, 1.0))
    share = [(b.reshape(4000, -1) @ np.asarray(basis.vectors).reshape(STEPS, -1).T) for b in (one, other)]
    weights = spectral_weights(STEPS)
    np.testing.assert_allclose(share[0] / weights / np.linalg.norm(share[0] / weights, axis=1, keepdims=True), share[1], atol=1e-9)


def test_oracle_loss_is_zero_for_the_solution_and_for_nothing_else(double):
    b = vector(0)
    solution = SYSTEM.extend(np.linalg.solve(MATRIX, SYSTEM.restrict(b)))
    assert loss_and_gradient(-3 * solution, b)[0] < 1e-24
    assert loss_and_gradient(solution + 0.1 * vector(1), b)[0] > 1e-3
    zero, gradient = loss_and_gradient(np.zeros_like(b), b)
    np.testing.assert_allclose(zero, (b**2).sum())
    assert np.isfinite(gradient).all()


def test_oracle_loss_of_the_identity(double):
    b = vector(2)
    b = b / np.sqrt((b**2).sum())
    image = SYSTEM.extend(MATRIX @ SYSTEM.restrict(b))
    expected = (image**2).sum() / (b * image).sum() ** 2 - 1
    np.testing.assert_allclose(loss_and_gradient(b, b)[0], expected, rtol=1e-10)


@given(st.sampled_from([-1.0, 1.0]), st.floats(-6, 6))
def test_oracle_scale_does_not_matter_and_the_gradient_is_orthogonal(sign, exponent):
    with jax.enable_x64(True):
        q, b = vector(3), vector(4)
        scale = sign * 10.0**exponent
        (loss, gradient), (scaled, other) = loss_and_gradient(q, b), loss_and_gradient(scale * q, b)
        np.testing.assert_allclose(scaled, loss, rtol=1e-9)
        np.testing.assert_allclose(scale * other, gradient, atol=1e-9 * np.abs(gradient).max())
        assert abs((gradient * q).sum()) < 1e-10 * np.linalg.norm(gradient) * np.linalg.norm(q)


class Weighing(eqx.Module):
    """A direction that is the right-hand side, cell by cell times what is learned."""

    weights: jax.Array

    def __call__(self, b):
        return self.weights * b


def test_training_lowers_the_loss(basis):
    scales = jnp.geomspace(1.0, 10.0, SIDE**2, dtype=jnp.float32).reshape(SIDE, SIDE)
    b = jax.device_put(np.random.default_rng(5).normal(size=(64, SIDE, SIDE)).astype(np.float32)) / SIDE
    before = Weighing(jnp.ones((SIDE, SIDE), jnp.float32))
    settings = {"optimizer": optax.adam(5e-2), "steps": 40, "batch_size": 16, "key": jax.random.key(1)}
    trained, losses = fit_direction_network(before, lambda x: scales * x, b, forward=Weighing.__call__, **settings)
    assert losses[-5:].mean() < 0.3 * losses[:5].mean()
    # What was given is still there.
    assert (before.weights == 1).all() and trained.weights[0, 0] > 2 * trained.weights[-1, -1]


def test_bad_inputs_are_refused(basis):
    with pytest.raises(ValueError, match=r"low_fraction must lie in \[0, 1\], got 1\.5"):
        spectral_weights(4, low_fraction=1.5)
    with pytest.raises(ValueError, match=r"boost must be positive, got 0\.0"):
        spectral_weights(4, boost=0.0)
    with pytest.raises(ValueError, match="steps and batch_size must be at least 1, got 0 and 4"):
        fit_direction_network(
            lambda b: b, SYSTEM, jnp.ones((4, SIDE, SIDE)), optimizer=optax.sgd(1.0), steps=0, batch_size=4, key=jax.random.key(0)
        )


def test_products_that_are_not_finite_are_refused():
    operator = lx.FunctionLinearOperator(lambda x: jnp.nan * x, jax.ShapeDtypeStruct((4,), jnp.float32), lx.positive_semidefinite_tag)
    with pytest.raises(ValueError, match="operator must give finite products, got Ritz values that are not"):
        ritz_vectors(operator, 2, key=jax.random.key(0))
