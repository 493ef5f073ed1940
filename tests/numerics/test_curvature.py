import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from gradatim.numerics import GaussNewtonOperator, HessianOperator, ResidualOperator, dense_matrix

pytestmark = pytest.mark.usefixtures("double")
# Round-off of a few hundred operations on numbers of order one.
ROUND_OFF = 1e-12
CHUNKS = (1, 5, 17, 100)


def is_shape(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct)


# One network and one loss for the whole file, so that equal shapes are compiled once.
SHAPES, REST = eqx.partition(eqx.filter_eval_shape(eqx.nn.MLP, 4, 3, 6, 1, jnp.tanh, key=jax.random.key(0)), is_shape)
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_whichever_test_ran_before():
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()


def square(outputs, targets):
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=1).mean()


def model(params, inputs):
    return jax.vmap(eqx.combine(params, REST))(inputs)


def loss(params, batch):
    return cross_entropy(model(params, batch[0]), batch[1])


def normal(*shape, scale=1.0):
    return jnp.asarray(scale * RANDOM.normal(size=shape))


def operators(n=17):
    params = jax.tree.map(lambda leaf: normal(*leaf.shape, scale=0.5), SHAPES)
    batch = normal(n, 4), jnp.asarray(RANDOM.integers(0, 3, n))
    rest = [kind(model, cross_entropy, params, batch) for kind in (GaussNewtonOperator, ResidualOperator)]
    return HessianOperator(loss, params, batch), *rest


def random_like(operator):
    return jax.tree.map(lambda leaf: normal(*leaf.shape), operator.params)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@eqx.filter_jit
def product(operator, vector):
    return operator.mv(vector)


def test_o1_softmax_regression_is_gauss_newton_with_the_null_space_of_the_shift():
    inputs, labels = normal(200, 5), jnp.asarray(RANDOM.integers(0, 3, 200))
    params = (normal(5, 3), normal(3))

    def model(p, x):
        return x @ p[0] + p[1][None]

    h = dense_matrix(HessianOperator(lambda p, b: cross_entropy(model(p, b[0]), b[1]), params, (inputs, labels)))
    g = dense_matrix(GaussNewtonOperator(model, cross_entropy, params, (inputs, labels)))
    assert np.allclose(h, g, atol=ROUND_OFF)
    values = np.linalg.eigvalsh(h)
    assert h.shape == (18, 18) and np.sum(np.abs(values) < ROUND_OFF) == 6 and values[6] > 1e-4


def deep_linear(w, _):
    return 0.5 * (jnp.prod(w) - 1) ** 2


@pytest.mark.parametrize(("weights", "outlier"), [((1.0, 1.0, 1.0, 1.0), 4.0), ((2.0, 0.5, 1.0, 1.0), 6.25)])
def test_o2_scalar_deep_linear_net_at_a_minimum_has_one_outlier(weights, outlier):
    h = dense_matrix(HessianOperator(deep_linear, jnp.array(weights), None))
    assert np.allclose(np.linalg.eigvalsh(h), [0, 0, 0, outlier], atol=ROUND_OFF)


@pytest.mark.parametrize(("depth", "expected"), [(2, (-1.0, 1.0)), (3, (0.0, 0.0, 0.0)), (4, (0.0, 0.0, 0.0, 0.0))])
def test_o2_scalar_deep_linear_net_at_zero_is_a_saddle_of_depth_two_and_flat_beyond(depth, expected):
    h = dense_matrix(HessianOperator(deep_linear, jnp.zeros(depth), None))
    assert np.allclose(np.linalg.eigvalsh(h), expected, atol=ROUND_OFF)


def test_o3_interpolation_has_the_spectrum_of_the_tangent_kernel():
    params = {"first": normal(4, 20, scale=0.5), "bias": normal(20), "second": normal(20, 2, scale=0.5)}
    inputs = normal(7, 4)

    def model(p, x):
        return jnp.tanh(x @ p["first"] + p["bias"][None]) @ p["second"]

    batch = inputs, jax.jit(model)(params, inputs)
    h = dense_matrix(HessianOperator(lambda p, b: square(model(p, b[0]), b[1]), params, batch))
    assert np.allclose(h, dense_matrix(GaussNewtonOperator(model, square, params, batch)), atol=ROUND_OFF)
    jacobian = jax.jit(jax.jacobian(lambda p: model(p, inputs).ravel()))(params)
    rows = np.concatenate([np.reshape(leaf, (14, -1)) for leaf in jax.tree.leaves(jacobian)], axis=1)
    kernel = np.linalg.eigvalsh(rows @ rows.T / 7)
    values = np.linalg.eigvalsh(h)
    assert np.allclose(values[-14:], kernel, atol=ROUND_OFF) and np.all(np.abs(values[:-14]) < ROUND_OFF)


def test_o4_rescaling_two_relu_layers_is_a_zero_mode_as_the_gradient_vanishes():
    inputs = normal(20, 3)
    params = {"first": normal(3, 5), "second": normal(5, 2)}

    def outputs(p, x):
        return jax.nn.relu(x @ p["first"]) @ p["second"]

    def loss(p, b):
        return square(outputs(p, b[0]), b[1])

    # Along (aW₁, W₂/a) the loss is constant, so H v = -(second derivative of the curve) · ∇L: |H v| = O(|∇L|), and H v ≠ 0 off the minimum.
    direction = {"first": params["first"], "second": jnp.asarray(-np.asarray(params["second"]))}
    fitted, gradient_of = np.asarray(jax.jit(outputs)(params, inputs)), jax.jit(jax.grad(loss))
    sizes = []
    for offset in (1e-1, 1e-3, 0.0):
        batch = inputs, jnp.asarray(fitted + offset)
        gradient = flat(gradient_of(params, batch))
        moved = flat(product(HessianOperator(loss, params, batch), direction))
        assert np.linalg.norm(moved) <= 1.001 * np.linalg.norm(gradient) + ROUND_OFF
        sizes.append(np.linalg.norm(moved))
    assert sizes[0] > 1e-3 and sizes[2] < ROUND_OFF


def test_o7_product_is_linear_symmetric_and_equals_the_dense_matrix():
    for operator in operators():
        u, v = random_like(operator), random_like(operator)
        hu, hv = flat(product(operator, u)), flat(product(operator, v))
        assert abs(flat(u) @ hv - flat(v) @ hu) < ROUND_OFF
        both = flat(product(operator, jax.tree.map(lambda a, b: jnp.asarray(2 * np.asarray(a) - 3 * np.asarray(b)), u, v)))
        assert np.allclose(both, 2 * hu - 3 * hv, atol=ROUND_OFF)
        assert np.allclose(hu, dense_matrix(operator) @ flat(u), atol=ROUND_OFF)
    hessian = operators()[0]
    vector, unravel = ravel_pytree(hessian.params)
    reference = jax.jit(jax.hessian(lambda w: loss(unravel(w), hessian.batch)))(vector)
    assert np.allclose(dense_matrix(hessian, chunk=5), reference, atol=ROUND_OFF)
    assert np.allclose(hessian.as_matrix(), reference, atol=ROUND_OFF)


def test_o8_the_parts_add_up_and_hidden_units_may_be_permuted():
    hessian, gauss_newton, residual = operators()
    h = dense_matrix(hessian)
    assert np.allclose(dense_matrix(gauss_newton) + dense_matrix(residual), h, atol=ROUND_OFF)
    assert np.linalg.norm(dense_matrix(residual)) > 1e-3
    order = RANDOM.permutation(6)
    first, second = hessian.params.layers

    def where(p):
        return (p.layers[0].weight, p.layers[0].bias, p.layers[1].weight)

    rows, biases, columns = np.asarray(first.weight)[order], np.asarray(first.bias)[order], np.asarray(second.weight)[:, order]
    permuted = eqx.tree_at(where, hessian.params, tuple(map(jnp.asarray, (rows, biases, columns))))
    values = np.linalg.eigvalsh(dense_matrix(HessianOperator(loss, permuted, hessian.batch)))
    assert np.allclose(values, np.linalg.eigvalsh(h), atol=ROUND_OFF)


def test_outputs_may_be_pytrees():
    params, inputs, targets = normal(4), normal(7, 4), (normal(7), normal(7))

    def model(w, x):
        return {"tanh": jnp.tanh(x @ w), "square": (x @ w) ** 2}

    def loss(outputs, targets):
        return jnp.mean((outputs["tanh"] - targets[0]) ** 2 * jnp.exp(outputs["square"] - targets[1]))

    whole = HessianOperator(lambda w, batch: loss(model(w, batch[0]), batch[1]), params, (inputs, targets))
    parts = [dense_matrix(kind(model, loss, params, (inputs, targets))) for kind in (GaussNewtonOperator, ResidualOperator)]
    assert np.allclose(parts[0] + parts[1], dense_matrix(whole), rtol=1e-10) and min(np.linalg.norm(part) for part in parts) > 1e-3


@eqx.filter_jit
def in_chunks(whole, vector):
    """The product of all examples chunk by chunk, for each of `CHUNKS`, and that of the first five examples alone."""
    functions = (whole.loss,) if isinstance(whole, HessianOperator) else (whole.model, whole.loss)

    def again(batch, batch_size):
        return ravel_pytree(type(whole)(*functions, whole.params, batch, batch_size=batch_size).mv(vector))[0]

    return [again(whole.batch, size) for size in CHUNKS], again(jax.tree.map(lambda x: x[:5], whole.batch), None)


@pytest.mark.parametrize("kind", range(3), ids=["Hessian", "Gauss-Newton", "residual"])
def test_t3_chunks_give_the_hessian_of_all_examples(kind):
    # 17 = 3 · 5 + 2: the last chunk is smaller, and weighs less.
    whole = operators()[kind]
    v = random_like(whole)
    expected, (chunked, minibatch) = flat(product(whole, v)), in_chunks(whole, v)
    assert len(chunked) == len(CHUNKS) and all(np.allclose(expected, found, atol=ROUND_OFF) for found in chunked)
    assert not np.allclose(expected, minibatch, atol=1e-4)


def test_t4_kinks_carry_no_curvature_smooth_units_do():
    # Along a line across a kink of relu(w)² the slope jumps; its second derivative there is one-sided: 2 on the right, 0 on the left.
    def kinked(p, _):
        return jax.nn.relu(p[0] * 3.0)

    assert all(dense_matrix(HessianOperator(kinked, jnp.array([w]), None))[0, 0] == 0 for w in (1e-9, -1e-9))

    def smooth(p, _):
        return jax.nn.softplus(3.0 * p[0])

    found = dense_matrix(HessianOperator(smooth, jnp.array([0.1]), None))[0, 0]
    step = 1e-4
    line = np.logaddexp(0, 3.0 * (0.1 + step * np.array([-1, 0, 1])))
    assert np.isclose(found, line @ [1, -2, 1] / step**2, rtol=1e-5)


def test_t5_a_clipped_loss_has_no_curvature_where_the_clip_bites():
    def clipped(w, _):
        return -jnp.log(jnp.clip(jax.nn.sigmoid(w[0]), 1e-15, 1 - 1e-15))

    def exact(w, _):
        return jax.nn.softplus(-w[0])

    at = jnp.array([-36.0])
    slopes = [jax.jit(jax.grad(one))(at, None)[0] for one in (clipped, exact)]
    assert slopes[0] == 0 and slopes[1] < -0.99


def test_t8_weight_decay_shifts_every_eigenvalue():
    hessian = operators()[0]

    def decayed(p, b):
        return loss(p, b) + 0.05 * ravel_pytree(p)[0] @ ravel_pytree(p)[0]

    shifted = dense_matrix(HessianOperator(decayed, hessian.params, hessian.batch))
    assert np.allclose(np.linalg.eigvalsh(shifted), np.linalg.eigvalsh(dense_matrix(hessian)) + 0.1, atol=ROUND_OFF)


@eqx.filter_jit
def through_lineax(hessian, gauss_newton, vector):
    damped = gauss_newton + 0.1 * lx.IdentityLinearOperator(gauss_newton.in_structure())
    definite = lx.TaggedLinearOperator(damped, lx.positive_semidefinite_tag)
    solved = lx.linear_solve(definite, vector, lx.CG(rtol=1e-12, atol=1e-12)).value
    return damped.mv(solved), lx.linearise(hessian).as_matrix(), lx.diagonal(hessian)


def test_operators_are_lineax_operators():
    hessian, gauss_newton, _ = operators()
    v = random_like(hessian)
    solved, matrix, diagonal = through_lineax(hessian, gauss_newton, v)
    assert np.allclose(flat(solved), flat(v), atol=1e-9)
    assert lx.is_symmetric(hessian) and hessian.T is hessian
    assert np.allclose(matrix, dense_matrix(hessian), atol=ROUND_OFF)
    assert np.allclose(diagonal, np.diagonal(dense_matrix(hessian)), atol=ROUND_OFF)


def test_products_are_jit_and_vmap_safe_and_do_not_compile_twice():
    hessian = operators()[0]
    v = random_like(hessian)
    n_traces = 0

    @eqx.filter_jit
    def counted(operator, vector):
        nonlocal n_traces
        n_traces += 1
        return operator.mv(vector)

    moved = HessianOperator(loss, jax.tree.map(lambda x: jnp.asarray(np.asarray(x) + 1), hessian.params), hessian.batch)
    expected = [flat(counted(operator, v)) for operator in (hessian, moved)]
    assert n_traces == 1 and not np.allclose(*expected, atol=1e-3)
    assert np.allclose(flat(hessian.mv(v)), expected[0], atol=ROUND_OFF)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), hessian.params, moved.params)
    batched = jax.jit(jax.vmap(lambda p: ravel_pytree(HessianOperator(loss, p, hessian.batch).mv(v))[0]))(both)
    assert np.allclose(batched, expected, atol=ROUND_OFF)


def test_dtype_is_kept():
    hessian = operators()[0]
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), hessian.params)
    inputs, labels = hessian.batch
    operator = HessianOperator(loss, single, (jnp.asarray(np.asarray(inputs), jnp.float32), labels))
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(operator.mv, single))} == {jnp.dtype(jnp.float32)}


def test_bad_input():
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
        dense_matrix(operators()[0], max_size=10)
