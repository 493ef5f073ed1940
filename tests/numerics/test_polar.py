import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.test_util import check_grads
from optax.contrib._muon import orthogonalize_via_newton_schulz

from gradatim.numerics import (
    NEWTON_SCHULZ,
    NORMS,
    dual_norm,
    lmo,
    newton_schulz_singular_map,
    nuclear_norm,
    nuclear_norm_by_quadrature,
    nuclear_norm_by_sketch,
    polar_factor,
    primal_norm,
    sharp,
)

SINGLE = 1e-5  # five products of matrices in float32
MAP = {  # five steps of the default coefficients, by hand in double precision
    0.001: 0.470544, 0.003: 1.110357, 0.01: 0.698917, 0.03: 1.122332, 0.05: 0.758120,
    0.1: 0.712120, 0.3: 1.079592, 0.5: 0.765439, 0.9: 0.682011, 1.0: 0.696436,
}  # fmt: skip
SHAPES = {"square": (6, 6), "tall": (9, 4), "wide": (3, 8), "batched": (2, 5, 7)}

fast = jax.jit(polar_factor, static_argnames=("method", "steps", "coefficients"))
exact = functools.partial(fast, method="svd")
singular_map = jax.jit(newton_schulz_singular_map, static_argnames=("steps", "coefficients"))
matrices = arrays(np.float32, (4, 5), elements=st.floats(-10, 10, width=32))


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def matrix(request):
    return jnp.asarray(normal(*request.param))


def test_o1_newton_schulz_maps_each_singular_value(matrix):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    length = np.sqrt((np.asarray(matrix) ** 2).sum((-2, -1)))
    mapped = np.asarray(singular_map(s / length[..., None]))
    assert np.allclose(fast(matrix), (u * mapped[..., None, :]) @ vt, atol=SINGLE)


def test_o2_singular_map_values(double):
    assert np.allclose(singular_map(jnp.array(list(MAP))), list(MAP.values()), atol=1e-6)
    assert np.isclose(jax.jit(jax.grad(newton_schulz_singular_map))(0.0), 484.876, atol=1e-3)
    assert np.allclose(singular_map(jnp.array(0.868026), steps=1), 0.868026, atol=1e-5)


def test_o2_range_of_the_singular_map(double):
    y, further = (np.asarray(singular_map(np.linspace(least, 1, 200_001))) for least in (0.01, 0.001))
    assert np.isclose(y.min(), 0.681831, atol=1e-6) and np.isclose(y.max(), 1.134357, atol=1e-6)
    assert np.isclose(further.max(), 1.202369, atol=1e-6)


def test_agrees_with_optax(matrix):
    dimensions = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    names = [name for name in NEWTON_SCHULZ if name != "cubic"]

    @jax.jit
    def factors(matrix):
        ours = [polar_factor(matrix, coefficients=name, eps=1e-8) for name in names]
        theirs = [
            orthogonalize_via_newton_schulz(matrix, jnp.array(NEWTON_SCHULZ[name]), eps=1e-8, dimension_numbers=dimensions)
            for name in names
        ]
        return ours, theirs

    for name, one, other in zip(names, *factors(matrix), strict=True):
        np.testing.assert_allclose(one, other, atol=SINGLE, err_msg=name)


@pytest.mark.parametrize("shape", [SHAPES["tall"], SHAPES["batched"]])
def test_coefficients_that_converge_reach_the_factor(shape):
    matrix, steps = jnp.asarray(normal(*shape)), {"cubic": 30, "quintic": 20, "polar_express": 8}
    factors = jax.jit(lambda m: [polar_factor(m, coefficients=name, steps=n) for name, n in steps.items()])
    for factor in factors(matrix):
        np.testing.assert_allclose(factor, exact(matrix), atol=SINGLE)


def test_polar_express_is_exact_from_a_thousandth_on(double):
    y = singular_map(np.linspace(1e-3, 1, 10_001), coefficients="polar_express")
    assert np.allclose(y, 1, atol=1e-6)


def test_o3_svd_factor_is_orthogonal(matrix):
    u = np.asarray(exact(matrix))
    u = u if u.shape[-2] >= u.shape[-1] else u.swapaxes(-1, -2)
    assert np.allclose(u.swapaxes(-1, -2) @ u, np.eye(u.shape[-1]), atol=SINGLE)


def test_o3_svd_factor_of_a_deficient_matrix_is_orthogonal_on_the_range():
    values = np.linalg.svd(exact(jnp.asarray(normal(6, 2) @ normal(2, 5))), compute_uv=False)
    assert np.allclose(values, [1.0, 1, 0, 0, 0], atol=SINGLE)


@pytest.mark.parametrize("factor", [fast, exact], ids=["newton_schulz", "svd"])
def test_o3_scale_invariance_and_equivariance(factor):
    matrix = normal(5, 5)
    q, r = (np.linalg.qr(other)[0] for other in normal(2, 5, 5))
    of_one = np.asarray(factor(matrix))
    for c in np.array([1e-30, 3.0, 1e30], np.float32):
        assert np.allclose(factor(c * matrix), of_one, atol=SINGLE)
    assert np.allclose(factor(q @ matrix @ r), q @ of_one @ r, atol=SINGLE)
    assert np.allclose(factor(matrix.T), of_one.T, atol=SINGLE)


def test_o3_inner_product_is_the_nuclear_norm(matrix):
    inner = (np.asarray(matrix) * np.asarray(exact(matrix))).sum((-2, -1))
    assert np.allclose(inner, nuclear_norm(matrix, method="svd"), rtol=SINGLE)


@pytest.mark.parametrize("method", ["newton_schulz", "svd"])
def test_o3_zero_gives_zero(method):
    zero = jnp.zeros((2, 3, 4))

    @jax.jit
    def every(zero):
        steps = [(sharp(zero, norm, method=method), lmo(zero, 1.0, norm, method=method)) for norm in NORMS]
        return polar_factor(zero, method=method), nuclear_norm(zero, method=method), steps

    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(every(zero)))
    assert fast(jnp.zeros((0, 3)), method=method).shape == (0, 3)


def test_gradient_is_finite_at_zero_and_right_elsewhere(double):
    assert np.isfinite(jax.jit(jax.grad(lambda m: polar_factor(m).sum()))(jnp.zeros((3, 4)))).all()
    matrix = np.random.default_rng(0).normal(size=(3, 4))
    check_grads(jax.jit(lambda m: polar_factor(jnp.asarray(m), eps=1e-3)), (matrix,), order=1, modes=["rev"])


def test_nuclear_norm_by_newton_schulz_is_within_the_range_of_the_map():
    matrix = normal(3, 8, 12)
    matrix[2] = np.arange(1.0, 9)[:, None]
    of = jax.jit(lambda m: [nuclear_norm(m), nuclear_norm(m, method="svd"), nuclear_norm(m, coefficients="polar_express")])
    norms = list(map(np.asarray, of(matrix)))
    ratio = norms[0] / norms[1]
    assert (ratio > 0.68).all() and (ratio < 1.1344).all()
    assert np.allclose(ratio[2], 0.696436, rtol=SINGLE)  # of rank one
    assert np.allclose(norms[2][:2], norms[1][:2], rtol=SINGLE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_keeps_the_dtype_and_computes_in_single_precision(dtype):
    matrix = normal(5, 6).astype(jnp.dtype(dtype))
    ours = fast(matrix)
    assert ours.dtype == matrix.dtype
    assert np.array_equal(ours, np.asarray(fast(matrix.astype(np.float32))).astype(matrix.dtype))
    shapes = jax.eval_shape(lambda m: [(sharp(m, norm), lmo(m, 0.1, norm)) for norm in NORMS], matrix)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {matrix.dtype}


def test_complex_and_double(double):
    real, imaginary = np.random.default_rng(0).normal(size=(2, 4, 6))
    matrix = real + 1j * imaginary
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    mapped = np.asarray(singular_map(s / np.sqrt((s**2).sum())))
    assert np.allclose(fast(matrix), (u * mapped[None]) @ vt, atol=1e-12)
    assert np.allclose(exact(matrix), u @ vt, atol=1e-12)


def test_products_in_halves_are_the_same(double, monkeypatch):
    monkeypatch.setattr("gradatim.numerics.polar.HALVED_FROM", 4)
    real, imaginary = np.random.default_rng(0).normal(size=(2, 3, 5, 7))
    for matrix in (real, real + 1j * imaginary):
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        mapped = np.asarray(singular_map(s / np.sqrt((s**2).sum(-1, keepdims=True))))
        np.testing.assert_allclose(jax.jit(lambda m: polar_factor(m))(matrix), (u * mapped[:, None]) @ vt, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_o4_sharp_identities_of_complex_matrices(norm, double):
    real, imaginary = np.random.default_rng(0).normal(size=(2, 3, 4))
    gradient = jnp.asarray(real + 1j * imaginary)
    gradient = gradient.ravel() if norm == "rms" else gradient
    steepest, dual = jax.jit(lambda g: (sharp(g, norm, method="svd"), dual_norm(g, norm, method="svd")))(gradient)
    inner = np.vdot(gradient, steepest)
    np.testing.assert_allclose((inner.real, inner.imag), (dual**2, 0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(primal_norm(steepest, norm), dual, rtol=1e-10)


def test_nuclear_norms_of_complex_matrices(double):
    """Phases of rows and columns change no singular value, and with unit vectors for probes no bidiagonalisation."""
    matrix = np.random.default_rng(0).normal(size=(5, 8))
    rows, columns = (np.exp(1j * np.random.default_rng(n).uniform(0, 6, n)) for n in (5, 8))
    key = jax.random.key(0)

    @jax.jit
    def estimates(m):
        return nuclear_norm_by_quadrature(m, key=key, n_steps=3), nuclear_norm_by_sketch(m, key=key, rank=2), nuclear_norm(m)

    matrix = matrix[:, :2] @ matrix[:2]
    plain, turned = estimates(matrix + 0j), estimates(rows[:, None] * matrix * columns)
    np.testing.assert_allclose(turned, plain, rtol=1e-10)
    np.testing.assert_allclose(plain[1], np.linalg.svd(matrix, compute_uv=False).sum(), rtol=1e-10)


def test_vmap_is_a_batch():
    batch = normal(3, 4, 5)
    of_all = lambda g: [(sharp(g, norm), dual_norm(g, norm)) for norm in NORMS]  # noqa: E731
    mapped, at_once = jax.jit(lambda batch: (jax.vmap(of_all)(batch), of_all(batch)))(batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=SINGLE, atol=SINGLE), mapped, at_once)


@pytest.fixture(scope="module")
def steepest_steps():
    """For every norm: a gradient, its sharp operator and the size of that, its dual norm, and two linear minimisations."""

    @jax.jit
    def every(matrix):
        found = {}
        for norm in NORMS:
            g = matrix if norm != "rms" else matrix.ravel()
            steepest, dual = sharp(g, norm, method="svd"), dual_norm(g, norm, method="svd")
            steps = [lmo(g, radius, norm, method="svd") for radius in (0.3, 0.1 * dual)]
            found[norm] = g, steepest, primal_norm(steepest, norm), dual, *steps
        return found

    return jax.tree.map(np.asarray, every(normal(6, 4)))


@pytest.mark.parametrize("norm", NORMS)
def test_o4_sharp_identities(norm, steepest_steps):
    gradient, steepest, size, dual, step, as_far = steepest_steps[norm]
    assert np.allclose(size, dual, rtol=SINGLE)
    assert np.allclose((gradient * steepest).sum(), dual**2, rtol=SINGLE)
    assert np.allclose(step, -0.3 / dual * steepest, rtol=SINGLE, atol=1e-7)
    assert np.allclose(-0.1 * steepest, as_far, rtol=SINGLE, atol=1e-7)


def test_o4_sharp_of_the_spectral_norm_carries_the_nuclear_norm():
    gradient = normal(6, 4)
    nuclear = np.linalg.svd(gradient, compute_uv=False).sum()
    spectral, frobenius, sign = jax.jit(lambda g: [sharp(g, norm, method="svd") for norm in ("spectral", "frobenius", "sign")])(gradient)
    assert np.allclose(np.linalg.norm(spectral, 2), nuclear, rtol=SINGLE)
    assert np.allclose(frobenius, gradient, rtol=SINGLE)
    assert np.allclose(sign, np.abs(gradient).sum() * np.sign(gradient), rtol=SINGLE)


def test_o4_adaptive_in_optax_is_the_sharp_operator_by_newton_schulz():
    gradient = normal(6, 4)
    dimensions = optax.contrib.MuonDimensionNumbers()
    transformation = optax.contrib.scale_by_muon(adaptive=True, nesterov=False, weight_dimension_numbers=dimensions)
    theirs, ours = jax.jit(lambda g: (transformation.update(g, transformation.init(g))[0], sharp(g, "spectral")))(gradient)
    assert np.allclose(ours, theirs, rtol=1e-4)


def test_rms_to_rms_is_the_operator_norm_between_mean_squares():
    weights, inputs = normal(6, 4), normal(1000, 4)
    gain = np.sqrt(((inputs @ weights.T) ** 2).mean(1) / (inputs**2).mean(1))
    right = np.linalg.svd(weights)[2][0]
    best = np.sqrt(((weights @ right) ** 2).mean() / (right**2).mean())
    norm = primal_norm(jnp.asarray(weights), "rms_to_rms")
    assert gain.max() <= norm and np.allclose(norm, best, rtol=SINGLE)


@functools.partial(jax.jit, static_argnames="norm")
def sizes(gradient, weights, norm):
    return dual_norm(gradient, norm, method="svd"), primal_norm(weights, norm)


@given(gradient=matrices, weights=matrices, norm=st.sampled_from(NORMS))
def test_hoelder(gradient, weights, norm):
    dual, primal = sizes(jnp.asarray(gradient), jnp.asarray(weights), norm)
    inner = np.abs((gradient * weights).sum(-1 if norm == "rms" else None))
    assert (inner <= np.asarray(dual) * np.asarray(primal) * (1 + SINGLE) + 1e-4).all()


SEMI_ORTHOGONAL = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 5, 5)))[0][:, :4]


@given(gradient=matrices)
def test_t4_no_semi_orthogonal_matrix_is_nearer(gradient):
    nearest = np.linalg.norm(gradient - np.asarray(exact(jnp.asarray(gradient))))
    if np.linalg.svd(gradient, compute_uv=False)[-1] > 1e-3:
        assert (np.sqrt(((gradient[None] - SEMI_ORTHOGONAL) ** 2).sum((1, 2))) >= nearest - 1e-4).all()


def test_t3_nothing_in_the_spectral_ball_descends_further():
    gradient, rivals = normal(6, 4), normal(1000, 6, 4)
    rivals = rivals / np.linalg.norm(rivals, 2, axis=(1, 2))[:, None, None]
    step, nuclear = jax.jit(lambda g: (lmo(g, 1.0, "spectral", method="svd"), nuclear_norm(g, method="svd")))(gradient)
    best = (gradient * np.asarray(step)).sum()
    assert np.allclose(best, -np.asarray(nuclear), rtol=SINGLE)
    assert ((rivals * gradient[None]).sum((1, 2)) >= best * (1 + SINGLE)).all()


def test_not_a_number_stays_one():
    bad = jnp.array([[1.0, jnp.nan], [0.0, 1.0]])
    assert all(np.isnan(step).any() for step in jax.jit(lambda bad: [sharp(bad, norm) for norm in NORMS])(bad))


@pytest.mark.parametrize("norm", ["spectral", "rms_to_rms", "column", "row"])
def test_matrix_norms_refuse_vectors(norm):
    for function in (dual_norm, sharp, primal_norm):
        with pytest.raises(ValueError, match=rf"norm '{norm}' is one of matrices, got an array of shape \(3,\): take 'rms'"):
            function(jnp.ones(3), norm)


def test_bad_names_and_numbers():
    with pytest.raises(ValueError, match=r"norm must be one of 'spectral', .*, got 'spectrl'; did you mean 'spectral'\?"):
        sharp(jnp.eye(2), "spectrl")
    with pytest.raises(ValueError, match=r"method must be one of 'newton_schulz', 'svd', got 'qr'$"):
        polar_factor(jnp.eye(2), method="qr")
    with pytest.raises(ValueError, match=r"coefficients must be one of .*, got 'jordn'; did you mean 'jordan'\?"):
        polar_factor(jnp.eye(2), coefficients="jordn")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        polar_factor(jnp.eye(2), steps=0)
    with pytest.raises(ValueError, match="at least one triple, got none"):
        newton_schulz_singular_map(jnp.ones(2), coefficients=())
