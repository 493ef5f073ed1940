import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax
import pytest
from jax.flatten_util import ravel_pytree

from gradatim.numerics import GaussNewtonOperator, HessianOperator, ResidualOperator, dense_matrix

pytestmark = pytest.mark.usefixtures("double")
# Round-off of a few hundred operations on numbers of order one.
ROUND_OFF = 1e-12


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()


def square(outputs, targets):
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=1).mean()


def network(key, activation=jnp.tanh, sizes=(4, 6, 3)):
    model = eqx.nn.MLP(sizes[0], sizes[2], sizes[1], 1, activation, key=key)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    return params, lambda p, x: jax.vmap(eqx.combine(p, static))(x)


def operators(getkey, *, n=17, batch_size=None, activation=jnp.tanh):
    params, model = network(getkey(), activation)
    batch = jax.random.normal(getkey(), (n, 4)), jax.random.randint(getkey(), (n,), 0, 3)
    hessian = HessianOperator(lambda p, b: cross_entropy(model(p, b[0]), b[1]), params, batch, batch_size=batch_size)
    rest = [kind(model, cross_entropy, params, batch, batch_size=batch_size) for kind in (GaussNewtonOperator, ResidualOperator)]
    return hessian, *rest


def random_like(operator, key):
    flat, unravel = ravel_pytree(operator.params)
    return unravel(jax.random.normal(key, flat.shape))


def test_o1_softmax_regression_is_gauss_newton_with_the_null_space_of_the_shift(getkey):
    inputs, labels = jax.random.normal(getkey(), (200, 5)), jax.random.randint(getkey(), (200,), 0, 3)
    params = (jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3,)))

    def model(p, x):
        return x @ p[0] + p[1][None]

    h = dense_matrix(HessianOperator(lambda p, b: cross_entropy(model(p, b[0]), b[1]), params, (inputs, labels)))
    g = dense_matrix(GaussNewtonOperator(model, cross_entropy, params, (inputs, labels)))
    assert jnp.allclose(h, g, atol=ROUND_OFF)
    values = jnp.linalg.eigvalsh(h)
    assert h.shape == (18, 18) and jnp.sum(jnp.abs(values) < ROUND_OFF) == 6 and values[6] > 1e-4


@pytest.mark.parametrize(("weights", "outlier"), [((1.0, 1.0, 1.0, 1.0), 4.0), ((2.0, 0.5, 1.0, 1.0), 6.25)])
def test_o2_scalar_deep_linear_net_at_a_minimum_has_one_outlier(weights, outlier):
    h = dense_matrix(HessianOperator(lambda w, _: 0.5 * (jnp.prod(w) - 1) ** 2, jnp.array(weights), None))
    assert jnp.allclose(jnp.linalg.eigvalsh(h), jnp.array([0, 0, 0, outlier]), atol=ROUND_OFF)


@pytest.mark.parametrize(("depth", "expected"), [(2, (-1.0, 1.0)), (3, (0.0, 0.0, 0.0)), (4, (0.0, 0.0, 0.0, 0.0))])
def test_o2_scalar_deep_linear_net_at_zero_is_a_saddle_of_depth_two_and_flat_beyond(depth, expected):
    h = dense_matrix(HessianOperator(lambda w, _: 0.5 * (jnp.prod(w) - 1) ** 2, jnp.zeros(depth), None))
    assert jnp.allclose(jnp.linalg.eigvalsh(h), jnp.array(expected), atol=ROUND_OFF)


def test_o3_interpolation_has_the_spectrum_of_the_tangent_kernel(getkey):
    params, model = network(getkey(), sizes=(4, 20, 2))
    inputs = jax.random.normal(getkey(), (7, 4))
    batch = inputs, model(params, inputs)
    h = dense_matrix(HessianOperator(lambda p, b: square(model(p, b[0]), b[1]), params, batch))
    assert jnp.allclose(h, dense_matrix(GaussNewtonOperator(model, square, params, batch)), atol=ROUND_OFF)
    flat, unravel = ravel_pytree(params)
    jacobian = jax.jacobian(lambda w: model(unravel(w), inputs).ravel())(flat)
    kernel = jnp.linalg.eigvalsh(jacobian @ jacobian.T / 7)
    values = jnp.linalg.eigvalsh(h)
    assert jnp.allclose(values[-14:], kernel, atol=ROUND_OFF) and jnp.all(jnp.abs(values[:-14]) < ROUND_OFF)


def test_o4_rescaling_two_relu_layers_is_a_zero_mode_as_the_gradient_vanishes(getkey):
    inputs = jax.random.normal(getkey(), (20, 3))
    params = {"first": jax.random.normal(getkey(), (3, 5)), "second": jax.random.normal(getkey(), (5, 2))}

    def model(p, x):
        return jax.nn.relu(x @ p["first"]) @ p["second"]

    # Along (aW₁, W₂/a) the loss is constant, so H v = -(second derivative of the curve) · ∇L: |H v| = O(|∇L|), and H v ≠ 0 off the minimum.
    direction = {"first": params["first"], "second": -params["second"]}
    sizes = []
    for offset in (1e-1, 1e-3, 0.0):
        targets = model(params, inputs) + offset

        def loss(p, b):
            return square(model(p, b[0]), b[1])

        gradient = ravel_pytree(jax.grad(loss)(params, (inputs, targets)))[0]
        product = ravel_pytree(HessianOperator(loss, params, (inputs, targets)).mv(direction))[0]
        assert jnp.linalg.norm(product) <= 1.001 * jnp.linalg.norm(gradient) + ROUND_OFF
        sizes.append(float(jnp.linalg.norm(product)))
    assert sizes[0] > 1e-3 and sizes[2] < ROUND_OFF


def test_o7_product_is_linear_symmetric_and_equals_the_dense_matrix(getkey):
    for operator in operators(getkey):
        u, v = (random_like(operator, getkey()) for _ in range(2))
        hu, hv = operator.mv(u), operator.mv(v)

        def dot(a, b):
            return ravel_pytree(a)[0] @ ravel_pytree(b)[0]

        assert abs(dot(u, hv) - dot(v, hu)) < ROUND_OFF
        both = operator.mv(jax.tree.map(lambda a, b: 2 * a - 3 * b, u, v))
        assert jnp.allclose(ravel_pytree(both)[0], 2 * ravel_pytree(hu)[0] - 3 * ravel_pytree(hv)[0], atol=ROUND_OFF)
        assert jnp.allclose(ravel_pytree(hu)[0], dense_matrix(operator) @ ravel_pytree(u)[0], atol=ROUND_OFF)
    hessian = operators(getkey)[0]
    flat, unravel = ravel_pytree(hessian.params)
    reference = jax.hessian(lambda w: hessian.loss(unravel(w), hessian.batch))(flat)
    assert jnp.allclose(dense_matrix(hessian, chunk=5), reference, atol=ROUND_OFF)
    assert jnp.allclose(hessian.as_matrix(), reference, atol=ROUND_OFF)


def test_o8_the_parts_add_up_and_hidden_units_may_be_permuted(getkey):
    hessian, gauss_newton, residual = operators(getkey)
    h = dense_matrix(hessian)
    assert jnp.allclose(dense_matrix(gauss_newton) + dense_matrix(residual), h, atol=ROUND_OFF)
    assert jnp.linalg.norm(dense_matrix(residual)) > 1e-3
    order = jax.random.permutation(getkey(), 6)
    first, second = hessian.params.layers

    def where(p):
        return (p.layers[0].weight, p.layers[0].bias, p.layers[1].weight)

    permuted = eqx.tree_at(where, hessian.params, (first.weight[order], first.bias[order], second.weight[:, order]))
    values = jnp.linalg.eigvalsh(dense_matrix(HessianOperator(hessian.loss, permuted, hessian.batch)))
    assert jnp.allclose(values, jnp.linalg.eigvalsh(h), atol=ROUND_OFF)


@pytest.mark.parametrize("batch_size", [1, 5, 17, 100])
def test_t3_chunks_give_the_hessian_of_all_examples(getkey, batch_size):
    # 17 = 3 · 5 + 2: the last chunk is smaller, and weighs less.
    for whole in operators(getkey):
        functions = (whole.loss,) if isinstance(whole, HessianOperator) else (whole.model, whole.loss)
        chunked = type(whole)(*functions, whole.params, whole.batch, batch_size=batch_size)
        v = random_like(whole, getkey())
        expected, found = (ravel_pytree(op.mv(v))[0] for op in (whole, chunked))
        assert jnp.allclose(expected, found, atol=ROUND_OFF)
        minibatch = type(whole)(*functions, whole.params, jax.tree.map(lambda x: x[:5], whole.batch))
        assert not jnp.allclose(expected, ravel_pytree(minibatch.mv(v))[0], atol=1e-4)


def test_t4_kinks_carry_no_curvature_smooth_units_do():
    # Along a line across a kink of relu(w)² the slope jumps; its second derivative there is one-sided: 2 on the right, 0 on the left.
    def second(w):
        return dense_matrix(HessianOperator(lambda p, _: jax.nn.relu(p[0] * 3.0), jnp.array([w]), None))[0, 0]

    assert second(1e-9) == 0 and second(-1e-9) == 0

    def smooth(w):
        return jax.nn.softplus(3.0 * w)

    found = dense_matrix(HessianOperator(lambda p, _: smooth(p[0]), jnp.array([0.1]), None))[0, 0]
    step = 1e-4
    assert jnp.allclose(found, (smooth(0.1 + step) - 2 * smooth(0.1) + smooth(0.1 - step)) / step**2, rtol=1e-5)


def test_t5_a_clipped_loss_has_no_curvature_where_the_clip_bites():
    def clipped(w, _):
        return -jnp.log(jnp.clip(jax.nn.sigmoid(w[0]), 1e-15, 1 - 1e-15))

    def exact(w, _):
        return jax.nn.softplus(-w[0])

    at = jnp.array([-36.0])
    assert jax.grad(clipped)(at, None)[0] == 0 and jax.grad(exact)(at, None)[0] < -0.99


def test_t8_weight_decay_shifts_every_eigenvalue(getkey):
    hessian = operators(getkey)[0]

    def decayed(p, b):
        return hessian.loss(p, b) + 0.05 * ravel_pytree(p)[0] @ ravel_pytree(p)[0]

    shifted = dense_matrix(HessianOperator(decayed, hessian.params, hessian.batch))
    assert jnp.allclose(jnp.linalg.eigvalsh(shifted), jnp.linalg.eigvalsh(dense_matrix(hessian)) + 0.1, atol=ROUND_OFF)


def test_operators_are_lineax_operators(getkey):
    hessian, gauss_newton, _ = operators(getkey)
    damped = gauss_newton + 0.1 * lx.IdentityLinearOperator(gauss_newton.in_structure())
    v = random_like(hessian, getkey())
    solved = lx.linear_solve(lx.TaggedLinearOperator(damped, lx.positive_semidefinite_tag), v, lx.CG(rtol=1e-12, atol=1e-12)).value
    assert jnp.allclose(ravel_pytree(damped.mv(solved))[0], ravel_pytree(v)[0], atol=1e-9)
    assert lx.is_symmetric(hessian) and hessian.T is hessian
    assert jnp.allclose(lx.linearise(hessian).as_matrix(), dense_matrix(hessian), atol=ROUND_OFF)
    assert jnp.allclose(lx.diagonal(hessian), jnp.diagonal(dense_matrix(hessian)), atol=ROUND_OFF)


def test_products_are_jit_and_vmap_safe_and_do_not_compile_twice(getkey):
    hessian = operators(getkey)[0]
    v = random_like(hessian, getkey())
    n_traces = 0

    @eqx.filter_jit
    def product(operator, vector):
        nonlocal n_traces
        n_traces += 1
        return ravel_pytree(operator.mv(vector))[0]

    expected = ravel_pytree(hessian.mv(v))[0]
    assert jnp.allclose(product(hessian, v), expected, atol=ROUND_OFF)
    moved = HessianOperator(hessian.loss, jax.tree.map(lambda x: x + 1, hessian.params), hessian.batch)
    assert not jnp.allclose(product(moved, v), expected, atol=1e-3) and n_traces == 1
    both = jax.tree.map(lambda x: jnp.stack([x, x + 1]), hessian.params)
    batched = jax.vmap(lambda p: ravel_pytree(HessianOperator(hessian.loss, p, hessian.batch).mv(v))[0])(both)
    assert jnp.allclose(batched[0], expected, atol=ROUND_OFF) and jnp.allclose(batched[1], product(moved, v), atol=ROUND_OFF)


def test_dtype_is_kept(getkey):
    hessian = operators(getkey)[0]
    single = jax.tree.map(lambda x: x.astype(jnp.float32), hessian.params)
    inputs, labels = hessian.batch
    operator = HessianOperator(hessian.loss, single, (inputs.astype(jnp.float32), labels))
    assert {leaf.dtype for leaf in jax.tree.leaves(operator.mv(single))} == {jnp.dtype(jnp.float32)}


def test_bad_input(getkey):
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"loss must return a scalar .* got shape \(3,\)"):
        HessianOperator(lambda w, _: w**2, x, None)
    with pytest.raises(TypeError, match=r"floating-point arrays only, got int32 at \['count'\]; .*eqx.partition"):
        HessianOperator(lambda w, _: jnp.sum(w["x"]), {"x": x, "count": jnp.array(1, jnp.int32)}, None)
    with pytest.raises(TypeError, match="floating-point arrays only, got custom_jvp at"):
        HessianOperator(lambda w, _: jnp.sum(w[0]), (x, jax.nn.relu), None)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        HessianOperator(lambda w, b: jnp.sum(w) * jnp.sum(b), x, x, batch_size=0)
    with pytest.raises(ValueError, match="one number of examples along axis 0"):
        HessianOperator(lambda w, b: jnp.sum(w), x, (x, jnp.ones(4)), batch_size=2)
    with pytest.raises(ValueError, match="must be a pair"):
        GaussNewtonOperator(lambda w, b: w, lambda f, y: jnp.sum(f), x, (x, x, x))
    with pytest.raises(ValueError, match="at most max_size=10 columns to be made dense, got 51"):
        dense_matrix(operators(getkey)[0], max_size=10)
