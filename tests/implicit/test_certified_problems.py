import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import signal

from gradatim.implicit import (
    FieldOfExpertsDenoising,
    RidgeLogistic,
    TotalVariationDenoising,
    cosine_filters,
    maid,
    measured_cross_norm,
)
from gradatim.implicit.bilevel_problem import lower_gradient
from gradatim.implicit.bilevel_run import COLD, WARM
from gradatim.implicit.denoising import filtered


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def total_variation(random):
    clean, noise = random.uniform(size=(2, 2, 3, 4))
    return TotalVariationDenoising(jax.device_put(clean), jax.device_put(clean + 0.1 * noise)), (2,)


def field_of_experts(random):
    clean, noise = random.uniform(size=(2, 2, 4, 4))
    return FieldOfExpertsDenoising.of(jax.device_put(clean), jax.device_put(clean + 0.1 * noise), cosine_filters(2)), (7,)


def ridge_logistic(random):
    X, X_upper = random.normal(size=(2, 10, 3))
    labels = np.arange(10) % 3
    return RidgeLogistic.of(jax.device_put(X), labels, jax.device_put(X_upper), labels, classes=3), (3, 3)


@jax.jit
def derivatives(problem, theta, x):
    """H, J and the upper Hessian as matrices, and the constants."""
    flat, unravel = ravel_pytree(x)
    flat_theta, unravel_theta = ravel_pytree(theta)

    def slope(flat, flat_theta):
        return ravel_pytree(jax.grad(problem.lower)(unravel(flat), unravel_theta(flat_theta)))[0]

    matrices = jax.jacfwd(slope, argnums=(0, 1))(flat, flat_theta)
    upper = jax.hessian(lambda flat: problem.upper(unravel(flat)))(flat)
    constants = (
        problem.strong_convexity(theta),
        problem.smoothness(theta),
        problem.upper_smoothness(),
        problem.hessian_lipschitz(theta),
        problem.cross_lipschitz(theta),
        measured_cross_norm(problem, theta, x, iterations=50).value,
    )
    return *matrices, upper, constants


@pytest.mark.parametrize("make", [total_variation, field_of_experts, ridge_logistic])
def test_constants_are_bounds(make):
    random = np.random.default_rng(0)
    problem, shape = make(random)
    tightest = 0.0
    for spread in (0.02, 0.1, 1.0, 3.0):
        theta = random.uniform(-2, 0.5, size=shape)
        x = spread * random.normal(size=jax.tree.leaves(problem)[0].shape if len(shape) == 1 else shape)
        other = x + 1e-3 * random.normal(size=x.shape)
        H, J, upper, (mu, L, L_g, L_H, L_J, norm) = derivatives(problem, theta, x)
        H_other, J_other, _, _ = derivatives(problem, theta, other)
        values, distance = np.linalg.eigvalsh(H), np.linalg.norm(other - x)
        assert mu * (1 - 1e-9) <= values[0] and values[-1] <= L * (1 + 1e-9)
        assert np.linalg.norm(upper, 2) <= L_g * (1 + 1e-9)
        assert np.linalg.norm(H_other - H, 2) <= L_H * distance * (1 + 1e-6)
        assert np.linalg.norm(J_other - J, 2) <= L_J * distance * (1 + 1e-6)
        assert np.linalg.norm(J, 2) <= norm * (1 + 1e-9) <= 1.06 * np.linalg.norm(J, 2)
        tightest = max(tightest, float(values[-1] / L))
    # No bound from afar: some image or weight comes near it.
    assert tightest > 0.3


def test_losses_are_their_formulas():
    random = np.random.default_rng(0)
    problem, _ = total_variation(random)
    clean, noisy, x = np.asarray(problem.clean), np.asarray(problem.noisy), random.normal(size=(2, 3, 4))
    theta = np.array([-0.5, -1.0])

    def variation(image):
        moves = [image[:, 1:] - image[:, :-1], image[1:] - image[:-1]]
        return sum(np.sum(np.sqrt(move**2 + np.exp(2 * theta[1]))) for move in moves)

    lower = np.mean([np.sum((a - b) ** 2) / 2 + np.exp(theta[0]) / 2 * variation(a) for a, b in zip(x, noisy, strict=True)])
    np.testing.assert_allclose(problem.lower(jax.device_put(x), jax.device_put(theta)), lower, rtol=1e-12)
    np.testing.assert_allclose(problem.upper(jax.device_put(x)), np.mean([np.sum((a - b) ** 2) / 2 for a, b in zip(x, clean, strict=True)]))

    problem, _ = field_of_experts(random)
    noisy, x, theta = np.asarray(problem.noisy), random.normal(size=(2, 4, 4)), random.normal(size=7)
    experts = [(np.exp(theta[0] + theta[1 + i]), np.exp(theta[4 + i]), np.asarray(problem.filters[i])) for i in range(3)]

    def energy(image):
        return sum(w * np.sum(np.sqrt(signal.correlate2d(image, kernel, mode="valid") ** 2 + nu**2)) for w, nu, kernel in experts)

    lower = np.mean([np.sum((a - b) ** 2) / 2 + energy(a) for a, b in zip(x, noisy, strict=True)])
    np.testing.assert_allclose(problem.lower(jax.device_put(x), jax.device_put(theta)), lower, rtol=1e-12)

    problem, _ = ridge_logistic(random)
    w, theta = random.normal(size=(2, 3, 3))

    def cross_entropy(X):
        logits = np.asarray(X) @ w
        return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(10), np.arange(10) % 3])

    lower = cross_entropy(problem.X) + np.sum(np.exp(theta) * w**2) / 2
    np.testing.assert_allclose(problem.lower(jax.device_put(w), jax.device_put(theta)), lower, rtol=1e-12)
    np.testing.assert_allclose(problem.upper(jax.device_put(w)), cross_entropy(problem.X_upper), rtol=1e-12)


@pytest.mark.parametrize(("make", "theta"), [(total_variation, np.array([-0.5, -1.0])), (field_of_experts, np.linspace(-1, 0.5, 7))])
def test_all_constants_fall_with_the_number_of_images(make, theta):
    few, _ = make(np.random.default_rng(0))
    names = ("strong_convexity", "smoothness", "hessian_lipschitz", "cross_lipschitz")
    images = [jnp.concatenate([stack] * 3) for stack in (few.clean, few.noisy)]
    many = type(few)(*images) if make is total_variation else type(few).of(*images, few.filters)
    theta = jax.device_put(theta)
    constants = [[*(getattr(one, name)(theta) for name in names), one.upper_smoothness()] for one in (few, many)]
    np.testing.assert_allclose(*(np.array(constants) * [[1], [3]]), rtol=1e-12)


def test_the_strong_convexity_of_a_mean_is_that_of_the_mean():
    # Not 1: two images, of which h takes the mean. A constant image is not curved by its variation.
    problem, _ = total_variation(np.random.default_rng(0))
    H, *_ = derivatives(problem, np.zeros(2), np.zeros((2, 3, 4)))
    np.testing.assert_allclose([problem.strong_convexity(jnp.zeros(2)), np.linalg.eigvalsh(H)[0]], 0.5, rtol=1e-12)


def test_filters_answer_where_they_lie_within_the_image():
    image = np.random.default_rng(0).normal(size=(5, 6))
    filters = cosine_filters(2)
    for answer, kernel in zip(filtered(jax.device_put(image)[None], filters), np.asarray(filters), strict=True):
        np.testing.assert_allclose(answer[0], signal.correlate2d(image, kernel, mode="valid"), atol=1e-12)
    gram = np.asarray(filters).reshape(3, 4) @ np.asarray(filters).reshape(3, 4).T
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(filters.sum((1, 2)), 0, atol=1e-12)


def test_wrong_images_and_parameters_are_refused():
    images = jnp.zeros((2, 4, 4))
    with pytest.raises(ValueError, match=r"images of one shape .* got \(2, 4, 4\) and \(2, 4, 5\)"):
        FieldOfExpertsDenoising.of(images, jnp.zeros((2, 4, 5)), cosine_filters(2))
    with pytest.raises(ValueError, match=r"at least as large as the filters, \(5, 5\), got \(4, 4\)"):
        FieldOfExpertsDenoising.of(images, images, cosine_filters(5))
    with pytest.raises(ValueError, match="side must be at least 2, got 1"):
        cosine_filters(1)
    problem = FieldOfExpertsDenoising.of(images, images, cosine_filters(2))
    with pytest.raises(ValueError, match=r"theta must have shape \(7,\) for 3 filters, got \(6,\)"):
        problem.lower(images, jnp.zeros(6))


@pytest.mark.parametrize("kind", ["total variation", "experts"])
def test_few_warm_power_iterations_with_their_factor_bound_the_cross_norm_along_a_run(kind):
    random = np.random.default_rng(0)
    clean = np.repeat(np.repeat(random.uniform(size=(2, 3, 3)), 4, axis=1), 4, axis=2)
    images = jnp.asarray(clean), jnp.asarray(clean + 0.1 * random.standard_normal(clean.shape))
    if kind == "experts":
        filters = cosine_filters(3)
        problem = FieldOfExpertsDenoising.of(*images, filters)
        theta = jnp.concatenate([jnp.full(1 + len(filters), -3.0), jnp.full(len(filters), -3.5)])
    else:
        problem, theta = TotalVariationDenoising(*images), jnp.array([-5.0, -5.0])

    @jax.jit
    def both(theta, x, vector, iterations):
        jacobian = jax.jacfwd(lambda theta: lower_gradient(problem, x, theta).ravel())(theta)
        found = measured_cross_norm(problem, theta, x, vector, iterations=iterations)
        return found.value, found.vector, jnp.linalg.norm(jacobian, 2)

    steps = []
    maid(problem, theta, problem.noisy, work_limit=3000, max_steps=10**6, callback=steps.append)
    vector, over = jnp.zeros_like(theta), []
    for i, step in enumerate(steps):
        bound, vector, exact = both(step.theta, step.x, vector, WARM if i else COLD)
        over.append(float(bound / exact))
    assert len(over) > 5 and min(over) >= 1


@pytest.mark.parametrize("wrong", [-1, 3])
def test_class_numbers_out_of_range_are_refused(wrong):
    X, labels = jnp.ones((2, 3)), np.array([0, 1])
    for of in (lambda y: RidgeLogistic.of(X, y, X, labels, classes=3), lambda y: RidgeLogistic.of(X, labels, X, y, classes=3)):
        with pytest.raises(ValueError, match=r"labels(_upper)? must be numbers from 0 to 2, got .*\d"):
            of(np.array([0, wrong]))
