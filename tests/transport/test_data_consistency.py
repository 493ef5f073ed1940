import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    AcrossSlices,
    CartesianMRI,
    Forward,
    Inpainting,
    Krylov,
    Proximal,
    RangeNullSpace,
    SlicesState,
    cartesian_mask,
    coil_sensitivities,
    krylov_data_consistency,
    proximal_data_consistency,
    slice_difference,
    slice_difference_adjoint,
    soft_threshold,
)

SIDE, BATCH, MEASURED = 4, 2, 6
DOUBLE = 1e-9
MATRIX = np.random.default_rng(0).normal(size=(MEASURED, SIDE * SIDE))


@pytest.fixture(scope="module", autouse=True)
def _in_double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def dense():
    """A small matrix as an operator, measurements and images."""
    random = np.random.default_rng(1)
    matrix = jax.device_put(MATRIX)
    operator = Forward(lambda image: matrix @ image.ravel(), (SIDE, SIDE))
    return operator, jax.device_put(random.normal(size=(BATCH, MEASURED))), jax.device_put(random.normal(size=(BATCH, SIDE, SIDE)))


krylov = jax.jit(krylov_data_consistency, static_argnames=("n_steps", "tolerance", "operator"))
proximal = jax.jit(proximal_data_consistency, static_argnames=("n_steps", "tolerance", "operator"))


def test_oracle_1_enough_steps_project_on_the_measurement(dense):
    operator, y, x = dense
    flat = np.asarray(x).reshape(BATCH, -1)
    expected = flat - (flat @ MATRIX.T - np.asarray(y)) @ np.linalg.pinv(MATRIX).T
    found = np.asarray(krylov(operator, y, x, n_steps=MEASURED, tolerance=1e-13))
    np.testing.assert_allclose(found.reshape(BATCH, -1), expected, atol=DOUBLE)
    # So does the pseudo-inverse.
    inverse = RangeNullSpace.of(operator, cutoff=1e-6)
    np.testing.assert_allclose(jax.jit(lambda y, x: inverse(operator, y, x, None)[0])(y, x), found, atol=DOUBLE)


@eqx.filter_jit
def _one_step_and_more(operator, truth, x):
    y = operator(truth)
    steps = [krylov_data_consistency(operator, y, x, n_steps=n) for n in (1, 5)]
    return operator.adjoint(y - operator(x)), *steps, *(proximal_data_consistency(operator, y, x, gamma, n_steps=1) for gamma in (0.3, 5.0))


@pytest.mark.parametrize("is_complex", [False, True])
def test_oracle_2_one_step_is_exact_where_the_operator_projects(is_complex):
    random = np.random.default_rng(2)
    # Real images see each frequency twice, so that both must be measured or neither.
    mask = cartesian_mask(8, 2, seed=0)
    mask = mask if is_complex else mask | np.roll(mask[:, ::-1], 1, axis=1)
    operator = CartesianMRI(jax.device_put(mask), has_complex_images=is_complex)
    real = random.normal(size=(2, 2, BATCH, 8, 8))
    truth, x = (jax.device_put(part[0] + 1j * part[1] if is_complex else part[0]) for part in real)
    direction, one, many, weak, strong = _one_step_and_more(operator, truth, x)
    np.testing.assert_allclose(one, x + direction, atol=DOUBLE)
    # Steps after it change nothing.
    np.testing.assert_allclose(many, x + direction, atol=1e-6)
    for found, gamma in ((weak, 0.3), (strong, 5.0)):
        np.testing.assert_allclose(found, x + gamma / (1 + gamma) * direction, atol=DOUBLE)


def test_oracle_4_gamma_goes_from_the_estimate_to_the_measurement(dense):
    operator, y, x = dense
    np.testing.assert_allclose(proximal(operator, y, x, 1e-10, n_steps=5, tolerance=0.0), x, atol=1e-7)
    whole = krylov(operator, y, x, n_steps=MEASURED, tolerance=1e-13)
    np.testing.assert_allclose(proximal(operator, y, x, 1e9, n_steps=20, tolerance=0.0), whole, atol=1e-4)
    flat, inverse = x.reshape(BATCH, -1), np.linalg.inv(np.eye(SIDE * SIDE) + 2 * MATRIX.T @ MATRIX)
    expected = (flat + 2 * y @ MATRIX) @ inverse
    np.testing.assert_allclose(proximal(operator, y, x, 2.0, n_steps=20, tolerance=0.0).reshape(BATCH, -1), expected, atol=DOUBLE)


def test_trap_a_complex_measurement_is_not_added_to_both_parts():
    # Several coils and noise: the balance of misfit and distance, over complex images.
    random = np.random.default_rng(3)
    operator = CartesianMRI(
        jax.device_put(cartesian_mask(SIDE, 2, seed=1)), jax.device_put(coil_sensitivities(SIDE, 3)), has_complex_images=True
    )
    matrix = np.asarray(eqx.filter_jit(operator)(jnp.eye(SIDE**2, dtype=complex).reshape(-1, SIDE, SIDE))).reshape(SIDE**2, -1).T
    y = random.normal(size=(1, 3, SIDE, SIDE)) + 1j * random.normal(size=(1, 3, SIDE, SIDE))
    x = random.normal(size=(1, SIDE, SIDE)) + 1j * random.normal(size=(1, SIDE, SIDE))
    solve = eqx.filter_jit(lambda y, x: proximal_data_consistency(operator, y, x, 3.0, n_steps=30, tolerance=1e-13))
    found = solve(jax.device_put(y), jax.device_put(x))
    normal = np.eye(SIDE**2) + 3 * matrix.conj().T @ matrix
    expected = np.linalg.solve(normal, x.ravel() + 3 * matrix.conj().T @ y.ravel())
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-8)


def test_oracle_9_differences_across_slices(dense):
    n = 6
    basis = np.eye(n).reshape(n, n, 1, 1)
    matrix = np.asarray(slice_difference(jax.device_put(basis)))[..., 0, 0].T
    np.testing.assert_allclose(np.asarray(slice_difference_adjoint(jnp.asarray(basis)))[..., 0, 0].T, matrix.T)
    expected = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(matrix.T @ matrix)), expected, atol=1e-12)
    x, threshold = np.asarray(dense[2]), jax.jit(soft_threshold)
    np.testing.assert_array_equal(threshold(x, 0.0), x)
    np.testing.assert_allclose(threshold(x + 1j * x, 0.1), (1 + 1j) * np.asarray(threshold(x, 0.1 / np.sqrt(2))), atol=1e-12)


def test_oracle_9_without_a_penalty_a_sweep_is_a_quadratic_one():
    random = np.random.default_rng(4)
    seen = jax.device_put(random.uniform(size=(SIDE, SIDE)) < 0.5)
    operator = Inpainting(seen)
    y, x = jax.device_put(random.normal(size=(5, SIDE, SIDE))) * seen[None], jax.device_put(random.normal(size=(5, SIDE, SIDE)))
    rho, n = 0.7, 5
    step = AcrossSlices(rho, 0.0, n_steps=200)
    found, state = jax.jit(lambda y, x: step(operator, y, x, step.init(x)))(y, x)
    difference = np.roll(np.eye(n), 1, axis=1) - np.eye(n)
    for i, j in ((0, 0), (1, 2)):
        normal = float(seen[i, j]) * np.eye(n) + rho * difference.T @ difference
        if seen[i, j]:
            np.testing.assert_allclose(found[:, i, j], np.linalg.solve(normal, y[:, i, j]), atol=1e-4)
    # z takes up all of the difference, and nothing is left for u.
    np.testing.assert_allclose(state.dual, 0, atol=1e-12)
    np.testing.assert_allclose(state.split, slice_difference(found), atol=1e-12)


@pytest.mark.parametrize("rho", [0.5, 1.0, 2.0])
def test_sweeps_that_remember_end_in_the_minimum(rho):
    # One pixel over six slices, all seen: a signal of two levels, whose plateaus move by 2 λ / their length.
    signal = jnp.asarray([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape(6, 1, 1)
    operator = Inpainting(jnp.ones((1, 1), bool))
    step = AcrossSlices(rho, 0.15, n_steps=8)

    def sweep(carry, _):
        x, state = step(operator, signal, carry[0], carry[1])
        return (x, state), None

    (x, state), _ = jax.jit(lambda: jax.lax.scan(sweep, (signal, step.init(signal)), length=200))()
    np.testing.assert_allclose(x.ravel(), [0.1] * 3 + [0.9] * 3, atol=1e-4)
    assert isinstance(state, SlicesState) and rho * np.abs(state.dual).max() <= 0.15 + 1e-12


def test_each_image_has_a_gamma_of_its_own(dense):
    operator, y, x = dense
    gamma = np.array([0.3, 5.0])
    found = eqx.filter_jit(Proximal(jax.device_put(gamma), n_steps=20))(operator, y, x, None)[0]
    normal = np.eye(SIDE**2)[None] + gamma[:, None, None] * (MATRIX.T @ MATRIX)[None]
    target = np.asarray(x).reshape(BATCH, -1) + gamma[:, None] * (np.asarray(y) @ MATRIX)
    np.testing.assert_allclose(found.reshape(BATCH, -1), np.linalg.solve(normal, target[..., None])[..., 0], atol=1e-4)


def test_each_volume_has_weights_and_step_lengths_of_its_own():
    random = np.random.default_rng(7)
    operator = Inpainting(jax.device_put(random.uniform(size=(SIDE, SIDE)) < 0.5))
    x, y, split, dual = jax.device_put(random.normal(size=(4, BATCH, 3, SIDE, SIDE)) * np.array([1.0, 30.0])[None, :, None, None, None])
    rho, weight = np.array([0.5, 2.0]), np.array([0.2, 3.0])

    @eqx.filter_jit
    def sweep(rho, weight, *given):
        return AcrossSlices(rho, weight, n_steps=2)(operator, *given[:2], SlicesState(*given[2:]))

    together = sweep(jax.device_put(rho), jax.device_put(weight), y, x, split, dual)
    for i in range(BATCH):
        apart = sweep(rho[i], weight[i], *(part[i] for part in (y, x, split, dual)))
        jax.tree.map(lambda whole, one, i=i: np.testing.assert_allclose(whole[i], one, rtol=1e-9, atol=1e-9), together, apart)


def test_several_cutoffs_are_several_pseudo_inverses(dense):
    largest = np.linalg.norm(MATRIX, 2)
    middle = np.linalg.svd(MATRIX, compute_uv=False)[2:4].mean() / largest
    found = RangeNullSpace.of(dense[0], cutoff=np.array([1e-6, middle])).inverse
    for one, cutoff, rank in zip(found, (1e-6, middle), (MEASURED, 3), strict=True):
        inverse = np.linalg.pinv(MATRIX, rcond=cutoff)
        assert np.linalg.matrix_rank(inverse) == rank
        np.testing.assert_allclose(one, inverse @ inverse.T, atol=DOUBLE)


def test_trap_each_image_has_a_step_length_of_its_own(dense):
    operator, y, x = dense
    y, x = np.asarray(y) * np.array([[1.0], [100.0]]), np.asarray(x)
    together = krylov(operator, y, x, n_steps=2, tolerance=0.0)
    apart = [krylov(operator, y[i : i + 1], x[i : i + 1], n_steps=2, tolerance=0.0) for i in (0, 1)]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=DOUBLE)


def test_a_pseudo_inverse_of_real_images_from_complex_measurements():
    operator = CartesianMRI(jax.device_put(cartesian_mask(SIDE, 2, seed=1)), jax.device_put(coil_sensitivities(SIDE, 3)))
    random = np.random.default_rng(5)
    truth, x = (jax.device_put(random.normal(size=(1, SIDE, SIDE))) for _ in range(2))
    inverse = RangeNullSpace.of(operator, cutoff=1e-6)

    @jax.jit
    def measured(truth, x):
        y = operator(truth)
        return operator(inverse(operator, y, x, None)[0]), y

    np.testing.assert_allclose(*measured(truth, x), atol=1e-8)


def test_trap_small_singular_values_are_told_from_rounding_in_single_precision():
    random = np.random.default_rng(6)
    rows, columns = (np.linalg.qr(random.normal(size=(n, n)))[0] for n in (MEASURED, SIDE**2))
    values = np.array([1, 1e-1, 1e-2, 1e-3, 1e-5, 1e-5])
    with jax.enable_x64(False):
        matrix = jnp.asarray((rows * values) @ columns[:, :MEASURED].T)
        inverse = RangeNullSpace.of(Forward(lambda image: matrix @ image.ravel(), (SIDE, SIDE)), cutoff=1e-4).inverse
        assert inverse.dtype == jnp.float32
    expected = (columns[:, :4] / values[:4] ** 2) @ columns[:, :4].T
    np.testing.assert_allclose(np.asarray(inverse, np.float64), expected, atol=1e-2 * np.abs(expected).max())


def test_a_pseudo_inverse_of_complex_images():
    mask = cartesian_mask(SIDE, 2, seed=1)
    operator = CartesianMRI(jax.device_put(mask), jax.device_put(coil_sensitivities(SIDE, 3)), has_complex_images=True)
    random = np.random.default_rng(5).normal(size=(2, 2, 1, SIDE, SIDE))
    truth, x = (jax.device_put(part[0] + 1j * part[1]) for part in random)
    inverse = RangeNullSpace.of(operator, cutoff=1e-6)

    @jax.jit
    def measured(truth, x):
        y = operator(truth)
        return operator(inverse(operator, y, x, None)[0]), y

    np.testing.assert_allclose(*measured(truth, x), atol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda d: krylov_data_consistency(d[0], d[1][:1], d[2]),
            r"y must have shape \(2, 6\) for images of shape \(2, 4, 4\), got \(1, 6\)",
        ),
        (lambda d: proximal_data_consistency(d[0], d[1], d[2], 0.0), r"gamma must be positive, got 0\.0"),
        (lambda d: Proximal(-1.0), r"gamma must be positive, got -1\.0"),
        (lambda d: Krylov(-1)(d[0], d[1], d[2], None), "n_steps must be at least 0, got -1"),
        (lambda d: AcrossSlices(0.0, 1.0), r"rho must be positive and weight at least 0, got 0\.0 and 1\.0"),
        (lambda d: AcrossSlices(1.0, 1.0).init(jnp.zeros((4, 4))), r"x must have an axis of slices before its height and width"),
        (lambda d: RangeNullSpace.of(d[0], cutoff=1.0), r"cutoff must lie in \(0, 1\), got 1\.0"),
    ],
)
def test_what_does_not_fit_is_refused(dense, make, message):
    with pytest.raises(ValueError, match=message):
        make(dense)
