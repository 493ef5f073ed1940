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
matrices = arrays(np.float32, (4, 5), elements=st.floats(-10, 10, width=32))


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def matrix(request):
    return jax.random.normal(jax.random.key(sum(request.param)), request.param)


def transposed(x):
    return jnp.swapaxes(x, -1, -2)


def test_o1_newton_schulz_maps_each_singular_value(matrix):
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    length = jnp.sqrt((matrix**2).sum((-2, -1)))
    mapped = newton_schulz_singular_map(s / length[..., None])
    assert jnp.allclose(fast(matrix), (u * mapped[..., None, :]) @ vt, atol=SINGLE)


def test_o2_singular_map_values(double):
    x = jnp.array(list(MAP))
    assert jnp.allclose(newton_schulz_singular_map(x), jnp.array(list(MAP.values())), atol=1e-6)
    assert np.isclose(jax.grad(newton_schulz_singular_map)(0.0), 484.876, atol=1e-3)
    repelling = jnp.array(0.868026)
    assert jnp.allclose(newton_schulz_singular_map(repelling, steps=1), repelling, atol=1e-5)


def test_o2_range_of_the_singular_map(double):
    y = newton_schulz_singular_map(jnp.linspace(0.01, 1, 200_001))
    assert np.isclose(y.min(), 0.681831, atol=1e-6) and np.isclose(y.max(), 1.134357, atol=1e-6)
    assert np.isclose(newton_schulz_singular_map(jnp.linspace(0.001, 1, 200_001)).max(), 1.202369, atol=1e-6)


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
    matrix, steps = jax.random.normal(jax.random.key(sum(shape)), shape), {"cubic": 30, "quintic": 20, "polar_express": 8}
    factors = jax.jit(lambda m: [polar_factor(m, coefficients=name, steps=n) for name, n in steps.items()])
    for factor in factors(matrix):
        np.testing.assert_allclose(factor, exact(matrix), atol=SINGLE)


def test_polar_express_is_exact_from_a_thousandth_on(double):
    y = newton_schulz_singular_map(jnp.linspace(1e-3, 1, 10_001), coefficients="polar_express")
    assert jnp.allclose(y, 1, atol=1e-6)


def test_o3_svd_factor_is_orthogonal(matrix):
    u = exact(matrix)
    u = u if u.shape[-2] >= u.shape[-1] else transposed(u)
    assert jnp.allclose(transposed(u) @ u, jnp.broadcast_to(jnp.eye(u.shape[-1]), (*u.shape[:-2], u.shape[-1], u.shape[-1])), atol=SINGLE)


def test_o3_svd_factor_of_a_deficient_matrix_is_orthogonal_on_the_range(getkey):
    matrix = jax.random.normal(getkey(), (6, 2)) @ jax.random.normal(getkey(), (2, 5))
    values = jnp.linalg.svd(exact(matrix), compute_uv=False)
    assert jnp.allclose(values, jnp.array([1.0, 1, 0, 0, 0]), atol=SINGLE)


@pytest.mark.parametrize("factor", [fast, exact], ids=["newton_schulz", "svd"])
def test_o3_scale_invariance_and_equivariance(factor, getkey):
    matrix = jax.random.normal(getkey(), (5, 5))
    q, r = (jnp.linalg.qr(jax.random.normal(getkey(), (5, 5)))[0] for _ in range(2))
    for c in (1e-30, 3.0, 1e30):
        assert jnp.allclose(factor(c * matrix), factor(matrix), atol=SINGLE)
    assert jnp.allclose(factor(q @ matrix @ r), q @ factor(matrix) @ r, atol=SINGLE)
    assert jnp.allclose(factor(matrix.T), factor(matrix).T, atol=SINGLE)


def test_o3_inner_product_is_the_nuclear_norm(matrix):
    inner = (matrix * exact(matrix)).sum((-2, -1))
    assert jnp.allclose(inner, nuclear_norm(matrix, method="svd"), rtol=SINGLE)


@pytest.mark.parametrize("method", ["newton_schulz", "svd"])
def test_o3_zero_gives_zero(method):
    zero = jnp.zeros((2, 3, 4))

    @jax.jit
    def every(zero):
        steps = [(sharp(zero, norm, method=method), lmo(zero, 1.0, norm, method=method)) for norm in NORMS]
        return polar_factor(zero, method=method), nuclear_norm(zero, method=method), steps

    assert not any(leaf.any() for leaf in jax.tree.leaves(every(zero)))
    assert fast(jnp.zeros((0, 3)), method=method).shape == (0, 3)


def test_gradient_is_finite_at_zero_and_right_elsewhere(getkey, double):
    assert jnp.isfinite(jax.jit(jax.grad(lambda m: polar_factor(m).sum()))(jnp.zeros((3, 4)))).all()
    check_grads(jax.jit(lambda m: polar_factor(jnp.asarray(m), eps=1e-3)), (jax.random.normal(getkey(), (3, 4)),), order=1, modes=["rev"])


def test_nuclear_norm_by_newton_schulz_is_within_the_range_of_the_map(getkey):
    matrix = jax.random.normal(getkey(), (3, 8, 12)).at[2].set(jnp.outer(jnp.arange(1.0, 9), jnp.ones(12)))
    norms = jax.jit(lambda m: [nuclear_norm(m), nuclear_norm(m, method="svd"), nuclear_norm(m, coefficients="polar_express")])(matrix)
    ratio = norms[0] / norms[1]
    assert (ratio > 0.68).all() and (ratio < 1.1344).all()
    assert jnp.allclose(ratio[2], 0.696436, rtol=SINGLE)  # of rank one
    assert jnp.allclose(norms[2][:2], norms[1][:2], rtol=SINGLE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_keeps_the_dtype_and_computes_in_single_precision(dtype, getkey):
    matrix = jax.random.normal(getkey(), (5, 6)).astype(dtype)
    ours = fast(matrix)
    assert ours.dtype == matrix.dtype
    assert jnp.array_equal(ours, fast(matrix.astype(jnp.float32)).astype(dtype))
    shapes = jax.eval_shape(lambda m: [(sharp(m, norm), lmo(m, 0.1, norm)) for norm in NORMS], matrix)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {matrix.dtype}


def test_complex_and_double(getkey, double):
    matrix = jax.random.normal(getkey(), (4, 6), jnp.complex128)
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    mapped = newton_schulz_singular_map(s / jnp.sqrt((s**2).sum()))
    assert jnp.allclose(polar_factor(matrix), (u * mapped[None]) @ vt, atol=1e-12)
    assert jnp.allclose(polar_factor(matrix, method="svd"), u @ vt, atol=1e-12)


def test_vmap_is_a_batch(getkey):
    batch = jax.random.normal(getkey(), (3, 4, 5))
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

    return every(jax.random.normal(jax.random.key(0), (6, 4)))


@pytest.mark.parametrize("norm", NORMS)
def test_o4_sharp_identities(norm, steepest_steps):
    gradient, steepest, size, dual, step, as_far = steepest_steps[norm]
    assert jnp.allclose(size, dual, rtol=SINGLE)
    assert jnp.allclose((gradient * steepest).sum(), dual**2, rtol=SINGLE)
    assert jnp.allclose(step, -0.3 / dual * steepest, rtol=SINGLE, atol=1e-7)
    assert jnp.allclose(-0.1 * steepest, as_far, rtol=SINGLE, atol=1e-7)


def test_o4_sharp_of_the_spectral_norm_carries_the_nuclear_norm(getkey):
    gradient = jax.random.normal(getkey(), (6, 4))
    nuclear = jnp.linalg.svd(gradient, compute_uv=False).sum()
    assert jnp.allclose(jnp.linalg.norm(sharp(gradient, "spectral", method="svd"), 2), nuclear, rtol=SINGLE)
    assert jnp.allclose(sharp(gradient, "frobenius"), gradient, rtol=SINGLE)
    assert jnp.allclose(sharp(gradient, "sign"), jnp.abs(gradient).sum() * jnp.sign(gradient), rtol=SINGLE)


def test_o4_adaptive_in_optax_is_the_sharp_operator_by_newton_schulz(getkey):
    gradient = jax.random.normal(getkey(), (6, 4))
    dimensions = optax.contrib.MuonDimensionNumbers()
    transformation = optax.contrib.scale_by_muon(adaptive=True, nesterov=False, weight_dimension_numbers=dimensions)
    theirs, _ = transformation.update(gradient, transformation.init(gradient))
    assert jnp.allclose(sharp(gradient, "spectral"), theirs, rtol=1e-4)


def test_rms_to_rms_is_the_operator_norm_between_mean_squares(getkey):
    weights = jax.random.normal(getkey(), (6, 4))
    inputs = jax.random.normal(getkey(), (1000, 4))
    gain = jnp.sqrt(((inputs @ weights.T) ** 2).mean(1) / (inputs**2).mean(1))
    right = jnp.linalg.svd(weights)[2][0]
    best = jnp.sqrt(((weights @ right) ** 2).mean() / (right**2).mean())
    assert gain.max() <= primal_norm(weights, "rms_to_rms") and jnp.allclose(primal_norm(weights, "rms_to_rms"), best, rtol=SINGLE)


@functools.partial(jax.jit, static_argnames="norm")
def sizes(gradient, weights, norm):
    return dual_norm(gradient, norm, method="svd"), primal_norm(weights, norm)


@given(gradient=matrices, weights=matrices, norm=st.sampled_from(NORMS))
def test_hoelder(gradient, weights, norm):
    dual, primal = sizes(jnp.asarray(gradient), jnp.asarray(weights), norm)
    inner = np.abs((gradient * weights).sum(-1 if norm == "rms" else None))
    assert (inner <= np.asarray(dual * primal) * (1 + SINGLE) + 1e-4).all()


SEMI_ORTHOGONAL = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 5, 5)))[0][:, :4]


@given(gradient=matrices)
def test_t4_no_semi_orthogonal_matrix_is_nearer(gradient):
    nearest = np.linalg.norm(gradient - np.asarray(exact(jnp.asarray(gradient))))
    if np.linalg.svd(gradient, compute_uv=False)[-1] > 1e-3:
        assert (np.sqrt(((gradient[None] - SEMI_ORTHOGONAL) ** 2).sum((1, 2))) >= nearest - 1e-4).all()


def test_t3_nothing_in_the_spectral_ball_descends_further(getkey):
    gradient = jax.random.normal(getkey(), (6, 4))
    rivals = jax.random.normal(getkey(), (1000, 6, 4))
    rivals = rivals / primal_norm(rivals, "spectral")[:, None, None]
    best = (gradient * lmo(gradient, 1.0, "spectral", method="svd")).sum()
    assert jnp.allclose(best, -nuclear_norm(gradient, method="svd"), rtol=SINGLE)
    assert ((rivals * gradient[None]).sum((1, 2)) >= best * (1 + SINGLE)).all()


def test_not_a_number_stays_one():
    bad = jnp.array([[1.0, jnp.nan], [0.0, 1.0]])
    assert all(jnp.isnan(step).any() for step in jax.jit(lambda bad: [sharp(bad, norm) for norm in NORMS])(bad))


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
