import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import Forward, Inpainting, image_gradient, image_gradient_adjoint, total_variation, tv_reconstruct

WHOLE = Inpainting(jnp.ones((4, 6), bool))


def test_the_adjoint_of_the_differences():
    random = np.random.default_rng(0)
    x, q = (jax.device_put(random.normal(size=shape).astype(np.float32)) for shape in ((3, 4, 6), (2, 3, 4, 6)))
    forward, back = jax.jit(lambda x, q: (image_gradient(x), image_gradient_adjoint(q)))(x, q)
    np.testing.assert_allclose(np.vdot(forward, q), np.vdot(x, back), atol=1e-4)


def test_two_plateaus_approach_each_other():
    # Each of the four rows: a step of height 1 after the second of six columns; a plateau moves by λ over its length.
    y = np.tile(np.array([0, 0, 1, 1, 1, 1], np.float32), (2, 4, 1))
    found = tv_reconstruct(WHOLE, jax.device_put(y), weight=jnp.array([0.2, 5.0]), n_steps=400)
    x = np.asarray(found.x)
    np.testing.assert_allclose(x[0, 0], [0.1, 0.1, 0.95, 0.95, 0.95, 0.95], atol=1e-3)
    # A large weight leaves the mean.
    np.testing.assert_allclose(x[1], np.full((4, 6), 2 / 3), atol=1e-3)
    np.testing.assert_allclose(jax.jit(total_variation)(x), [0.85 * 4, 0], atol=1e-2)
    assert np.asarray(found.last_change).max() < 1e-3


def test_without_a_weight_it_is_least_squares():
    matrix = jax.device_put(np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32))
    matrix = matrix / jnp.linalg.norm(matrix, 2)
    y = jax.device_put(np.random.default_rng(2).normal(size=20).astype(np.float32))
    found = tv_reconstruct(Forward(lambda image: matrix @ image.ravel(), (2, 3)), y, weight=0.0, n_steps=2000)
    np.testing.assert_allclose(found.x.ravel(), np.linalg.lstsq(matrix, y, rcond=None)[0], atol=1e-3)


def test_a_minimum_is_no_higher_than_its_neighbours():
    random = np.random.default_rng(3)
    seen = Inpainting(jax.device_put(random.uniform(size=(4, 6)) < 0.6))
    y = eqx.filter_jit(seen)(random.normal(size=(4, 6)).astype(np.float32))
    found = np.asarray(tv_reconstruct(seen, y, weight=0.1, n_steps=3000).x)

    @jax.jit
    def energy(x):
        return jnp.sum((seen(x) - y[None]) ** 2, axis=(-2, -1)) / 2 + 0.1 * total_variation(x)

    moved = found + 0.05 * random.normal(size=(50, 4, 6)).astype(np.float32)
    energies = np.asarray(energy(np.append(moved, found[None], axis=0)))
    assert energies[:-1].min() > energies[-1] - 1e-5


def test_steps_are_as_short_as_the_norm_of_the_operator_asks_for():
    image = jax.device_put(np.random.default_rng(4).normal(size=(2, 3)).astype(np.float32))
    tenfold = Forward(lambda image: 10 * image, (2, 3))
    found = tv_reconstruct(tenfold, 10 * image, weight=0.0, n_steps=200, operator_norm=10.0)
    np.testing.assert_allclose(found.x, image, atol=1e-4)


def test_the_last_change_is_relative():
    image = jax.device_put(np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32))
    first, second = (tv_reconstruct(WHOLE, image, weight=0.1, n_steps=n) for n in (1, 2))
    expected = np.linalg.norm(second.x - first.x) / np.linalg.norm(second.x)
    np.testing.assert_allclose([first.last_change, second.last_change], [1, expected], rtol=1e-5)


def test_a_complex_image_turned_by_a_phase_is_the_real_one_turned():
    y = np.tile(np.array([0, 0, 1, 1, 1, 1], np.float32), (4, 1))
    seen = Inpainting(WHOLE.mask, has_complex_images=True)
    for phase in (1, 1j, np.exp(0.7j)):
        found = tv_reconstruct(seen, jnp.asarray(phase * y, jnp.complex64), weight=0.2, n_steps=400)
        np.testing.assert_allclose(found.x[0], phase * np.array([0.1, 0.1, 0.95, 0.95, 0.95, 0.95]), atol=1e-3)
        assert found.last_change < 1e-3
        np.testing.assert_allclose(total_variation(found.x), 0.85 * 4, atol=1e-2)


def test_the_adjoint_of_the_differences_of_complex_images():
    random = np.random.default_rng(0)
    x, q = (jax.device_put((random.normal(size=s) + 1j * random.normal(size=s)).astype(np.complex64)) for s in ((4, 6), (2, 4, 6)))
    np.testing.assert_allclose(np.vdot(image_gradient(x), q), np.vdot(x, image_gradient_adjoint(q)), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1.0}, r"weight must be at least 0, got -1\.0"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"operator_norm": 0.0}, "operator_norm positive"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tv_reconstruct(WHOLE, jnp.zeros((4, 6)), **{"weight": 0.1, **change})
