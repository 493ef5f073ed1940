import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.nets import (
    OPERATIONS,
    CellSupernet,
    EntangledConv,
    EntangledEmbedding,
    EntangledLayerNorm,
    EntangledLinear,
    EntangledTransformer,
    MacroSupernet,
    MixedDepth,
    MixedOperation,
    kernel_mask,
    nested_mask,
    outer_probabilities,
)

ROUND_OFF = 1e-5  # relative, of sums of some hundred terms in single precision
KERNELS, OUTS, INS = (3, 5, 7), (2, 4), (1, 3)
P_OUT, P_IN, P_KERNEL = (np.array(p, np.float32) for p in ([0.25, 0.75], [0.5, 0.5], [0.2, 0.5, 0.3]))
IMAGE = np.random.default_rng(0).normal(size=(3, 9, 9)).astype(np.float32)
EYE = np.eye(3, dtype=np.float32)
masks = jax.jit(lambda p, channels, kernels: (nested_mask(p, channels), kernel_mask(p, kernels)), static_argnums=(1, 2))


@pytest.fixture(scope="module")
def conv():
    layer = EntangledConv(OUTS, INS, KERNELS, key=jax.random.key(0))
    return eqx.tree_at(lambda one: one.bias, layer, jax.device_put(np.arange(1, 5, dtype=np.float32)))


@pytest.fixture(scope="module")
def run():
    return eqx.filter_jit(lambda layer, *args: layer(*args))


def off(ours, expected):
    return float(np.abs(np.asarray(ours) - np.asarray(expected)).max() / np.abs(expected).max())


def by_hand(layer, x, *distributions):
    """Pads every slice, mixes, and correlates, in NumPy and double precision."""
    weight, bias = np.asarray(layer.weight, float), np.asarray(layer.bias, float)
    mixed, shift = np.zeros_like(weight), np.zeros_like(bias)
    options = (layer.out_options, layer.in_options, layer.kernel_options)
    for combination in itertools.product(*(range(len(one)) for one in options)):
        p = np.prod([float(d[i]) for d, i in zip(distributions, combination, strict=True)])
        out, n_in, side = (one[i] for one, i in zip(options, combination, strict=True))
        start = (layer.kernel_options[-1] - side) // 2
        window = np.s_[:out, :n_in, start : start + side, start : start + side]
        mixed[window] += p * weight[window]
        shift[:out] += p * bias[:out]
    pad = layer.dilation * (mixed.shape[-1] // 2)
    padded = np.pad(np.asarray(x, float), ((0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((len(mixed), *x.shape[1:]))
    for i, j in np.ndindex(*mixed.shape[2:]):
        y += np.einsum("oi,ihw->ohw", mixed[:, :, i, j], padded[:, i : i + x.shape[1], j : j + x.shape[2]])
    return y + shift[:, None, None]


def test_peer_padded_slices_by_hand(conv, run):
    assert off(run(conv, IMAGE, P_OUT, P_IN, P_KERNEL), by_hand(conv, IMAGE, P_OUT, P_IN, P_KERNEL)) < ROUND_OFF


def test_o1_mixed_weights_give_mixed_outputs(conv, run):
    other = eqx.tree_at(lambda one: one.weight, EntangledConv(OUTS, INS, KERNELS, mixing="outputs", key=jax.random.key(0)), conv.weight)
    other = eqx.tree_at(lambda one: one.bias, other, conv.bias)
    given = (IMAGE, P_OUT, P_IN, P_KERNEL)
    assert off(run(conv, *given), run(other, *given)) < ROUND_OFF


def test_o1_to_fourteen_digits_in_double_precision(double):
    layer = EntangledConv((8,), (4,), KERNELS, key=jax.random.key(0))
    x, p = jnp.asarray(np.random.default_rng(0).normal(size=(4, 9, 9))), jnp.array([0.2, 0.5, 0.3])
    whole, parts = jax.jit(lambda x: (layer(x, p_kernel=p), layer.mixed_outputs(x, p_kernel=p)))(x)
    assert np.abs(np.asarray(whole) - parts).max() < 4e-14


@pytest.mark.parametrize("is_row_wise", [False, True])
def test_o1_mixed_outputs_of_slices_of_a_depthwise_convolution(run, is_row_wise):
    options = {"stride": 2, "dilation": 2, "is_depthwise": True, "is_row_wise": is_row_wise}
    layers = [EntangledConv((2, 4), (1,), (3, 5), mixing=mixing, key=jax.random.key(3), **options) for mixing in ("weights", "outputs")]
    given = (np.concatenate([IMAGE, IMAGE[:1]]), EYE[0, :2] * 0.25 + EYE[1, :2] * 0.75, None, P_IN)
    assert off(*(run(layer, *given) for layer in layers)) < ROUND_OFF


def test_o1_the_middle_row_of_the_mask():
    _, mask = masks(P_KERNEL, (1, 3, 5), KERNELS)
    np.testing.assert_allclose(np.asarray(mask)[3], [0.3, 0.8, 1, 1, 1, 0.8, 0.3], rtol=1e-6)


def test_o2_not_after_a_nonlinearity(run):
    # A ReLU in each branch does not commute with the mixture: it must not be in the comparison. By 0.11 of the norm, more or less.
    layer = EntangledConv((8,), (3,), KERNELS, has_bias=False, key=jax.random.key(0))
    branches = sum(p * np.maximum(run(layer, IMAGE, None, None, one), 0) for p, one in zip(P_KERNEL, EYE, strict=True))
    apart = np.maximum(run(layer, IMAGE, None, None, P_KERNEL), 0) - branches
    assert abs(np.linalg.norm(apart) / np.linalg.norm(branches) - 0.11) < 0.04


def test_o3_a_certain_choice_is_the_small_network(conv, run):
    given = (IMAGE, EYE[0, :2], EYE[0, :2], EYE[1])
    y = np.asarray(run(conv, *given))

    @eqx.filter_jit
    def of_small(conv, image):
        small = conv.subnet(0, 0, 1)
        return small.weight, small(image)

    weight, expected = of_small(conv, IMAGE[:1])
    assert weight.shape == (2, 1, 5, 5)
    assert off(y[:2], expected) < ROUND_OFF
    assert (y[2:] == 0).all()
    gradient = eqx.filter_jit(eqx.filter_grad(lambda layer, given: (layer(*given) ** 2).sum()))(conv, given)
    gradient = jax.tree.map(np.asarray, eqx.filter(gradient, eqx.is_array))
    live = np.zeros(conv.weight.shape, bool)
    live[:2, :1, 1:-1, 1:-1] = True
    assert (gradient.weight[~live] == 0).all() and (gradient.weight[live] != 0).all()
    # Trap: the bias of a dead channel would leak through the next ReLU.
    assert (gradient.bias[2:] == 0).all() and (gradient.bias[:2] != 0).all()


def test_o4_derivative_by_probabilities(conv):
    @eqx.filter_jit
    def both(image, p_out, p_in, p):
        def of(p):
            return (conv(image, p_out, p_in, p) ** 2).sum() / 100

        mixed = conv.mask(p_out, p_in, p) * conv.weight
        by_weights = jax.grad(lambda w: (conv._convolved(image, w, nested_mask(p_out, OUTS) * conv.bias) ** 2).sum() / 100)(mixed)
        slices = [conv.mask(p_out, p_in, one) * conv.weight for one in jnp.eye(3)]
        step = 1e-2
        differences = [(of(p + step * one) - of(p - step * one)) / (2 * step) for one in jnp.eye(3)]
        return jax.grad(of)(p), jnp.stack([(by_weights * one).sum() for one in slices]), jnp.stack(differences)

    gradient, product, differences = both(IMAGE, P_OUT, P_IN, P_KERNEL)
    np.testing.assert_allclose(gradient, product, rtol=1e-4)
    # A square of a linear function: central differences are exact but for rounding.
    np.testing.assert_allclose(gradient, differences, rtol=1e-2)


def test_o5_masks_of_channels():
    for p, sizes, expected in (
        ([0.5, 0.25, 0.25], (2, 4, 6), [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ([0.1, 0.6, 0.3], (1, 2, 4), [1, 0.9, 0.3, 0.3]),
    ):
        found, _ = masks(np.array(p, np.float32), sizes, KERNELS)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_o5_the_first_channel_and_the_centre_are_always_there(odds):
    p = (np.array(odds) / sum(odds)).astype(np.float32)
    channels, kernel = map(np.asarray, masks(p, (2, 3, 5), (1, 3, 5)))
    assert abs(channels[0] - 1) < 1e-6 and abs(kernel[2, 2] - 1) < 1e-6
    assert (np.diff(channels) <= 0).all() and (kernel == kernel.T).all() and (kernel == kernel[::-1]).all()


def test_trap_kernels_are_taken_from_the_centre():
    _, mask = masks(np.array([1.0, 0.0], np.float32), (1, 3), (1, 3))
    assert np.array_equal(mask, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(("stride", "dilation", "side", "depthwise"), [(2, 2, 7, True), (1, 2, 8, True), (2, 1, 8, False)])
def test_rows_of_small_products_are_a_convolution(stride, dilation, side, depthwise):
    common = {"stride": stride, "dilation": dilation, "is_depthwise": depthwise, "has_bias": False, "key": jax.random.key(1)}
    image, p = IMAGE[:, :side, :side], np.array([0.4, 0.6], np.float32)

    @jax.jit
    def all_of_them(image, p):
        forms = [EntangledConv((3,), (1 if depthwise else 3,), (3, 5), is_row_wise=form, **common) for form in (True, False)]
        certain = jnp.array([1.0, 0.0])
        return *(form(image, p_kernel=p) for form in forms), forms[0].subnet(kernel=0)(image), forms[0](image, p_kernel=certain)

    rows, native, small, masked = all_of_them(image, p)
    assert rows.shape == native.shape and off(rows, native) < ROUND_OFF and off(small, masked) < ROUND_OFF


WIDTHS, RATIOS = (2, 4, 8), (1, 2, 4)
PAIRS = list(itertools.product(WIDTHS, RATIOS))
P_BOTH = jax.jit(outer_probabilities)(np.array([0.2, 0.3, 0.5], np.float32), np.array([0.6, 0.1, 0.3], np.float32))


def test_o1_coupled_choices_of_a_linear_pair():
    rise = EntangledLinear([(e * r, e) for e, r in PAIRS], key=jax.random.key(2))
    fall = EntangledLinear([(e, e * r) for e, r in PAIRS], key=jax.random.key(3))
    rise = eqx.tree_at(lambda one: one.bias, rise, jax.device_put(np.ones(32, np.float32)))

    @jax.jit
    def all_ways(x, p):
        hidden = rise(x, p)
        return hidden, rise.mixed_outputs(x, p), fall(hidden, p), fall.mixed_outputs(hidden, p), rise.mask(p)

    hidden, outputs, y, mixed, mask = all_ways(IMAGE[0, :5, :8], P_BOTH)
    assert off(hidden, outputs) < ROUND_OFF and off(y, mixed) < ROUND_OFF
    expected = np.zeros((32, 8))
    for p, (e, r) in zip(np.asarray(P_BOTH), PAIRS, strict=True):
        expected[: e * r, :e] += float(p)
    np.testing.assert_allclose(mask, expected, atol=1e-6)
    # Sizes that are products: no outer product of two masks.
    assert np.linalg.matrix_rank(np.asarray(mask), tol=1e-4) > 1


def test_trap_a_coupled_option_is_found_by_its_own_number_of_ratios():
    # With two widths and three ratios, the ratio's position modulo the number of widths would be another.
    pairs = list(itertools.product((2, 4), RATIOS))
    layer = EntangledLinear([(e * r, e) for e, r in pairs], key=jax.random.key(4))
    total = jax.jit(lambda width, ratio: layer.mask(outer_probabilities(width, ratio)).sum())
    for i, (e, r) in enumerate(pairs):
        assert eqx.filter_eval_shape(lambda layer, i=i: layer.subnet(i), layer).weight.shape == (e * r, e)
        assert total(EYE[i // 3, :2], EYE[i % 3]) == e * r * e


def test_o3_linear_embedding_and_depth():
    linear = EntangledLinear([(2, 2), (4, 3)], key=jax.random.key(5))
    linear = eqx.tree_at(lambda one: one.bias, linear, jax.device_put(np.ones(4, np.float32)))
    embedding = EntangledEmbedding(5, (2, 4), key=jax.random.key(6))
    tokens, certain, x = jnp.array([3, 1]), jnp.array([1.0, 0.0]), IMAGE[0, 0, :3]

    @eqx.filter_jit
    def both(linear, embedding, x):
        large = linear(x, certain), embedding(tokens, certain)
        return large, (linear.subnet(0)(x[:2]), embedding.subnet(0).weight)

    (y, rows), (expected, table) = jax.tree.map(np.asarray, both(linear, embedding, x))
    assert off(y[:2], expected) < ROUND_OFF and (y[2:] == 0).all()
    assert (rows[:, :2] == table[[3, 1]]).all() and (rows[:, 2:] == 0).all()
    depth = MixedDepth([lambda x: 2 * x, lambda x: x + 1], (1, 2))
    mixed, first, narrow = jax.jit(lambda x, p: (depth(x, p), depth(x, certain), depth.narrow(0)(x, None)))(
        np.ones(3, np.float32), np.array([0.25, 0.75], np.float32)
    )
    np.testing.assert_allclose(mixed, 0.25 * 2 + 0.75 * 3)
    assert np.array_equal(first, narrow)


def test_trap_a_norm_over_dead_features():
    scale, shift = np.arange(1, 9, dtype=np.float32), np.arange(8, dtype=np.float32)
    # Features of the larger width that are there, but must not count.
    x = np.append(IMAGE[0, 0, :4], np.zeros(4, np.float32))
    expected = None

    @eqx.filter_jit
    def both(norm, x):
        return norm(x, jnp.array([0.0, 1.0, 0.0])), norm.subnet(1)(x[:4])

    for is_masked in (True, False):
        norm = EntangledLayerNorm(WIDTHS, is_masked=is_masked)
        norm = eqx.tree_at(lambda one: (one.scale, one.shift), norm, (jnp.asarray(scale), jnp.asarray(shift)))
        y, expected = map(np.asarray, both(norm, x))
        assert (y[4:] == 0).all()
        assert (off(y[:4], expected) < ROUND_OFF) == is_masked
    np.testing.assert_allclose(y[:4], (x[:4] - x.mean()) / np.sqrt(x.var() + 1e-5) * scale[:4] + shift[:4], rtol=1e-4)


@eqx.filter_jit
def one_hot(space, positions):
    return space.one_hot(positions)


@pytest.fixture(scope="module")
def macro():
    return MacroSupernet(1, 8, 10, widths=((2, 4), (4, 8)), kernels=((1, 3), (3, 5)), key=jax.random.key(7))


def test_o3_every_macro_network_is_in_the_supernet(macro, run):
    image = IMAGE[:1, :8, :8]
    for positions in ((0, 1, 0, 0), (1, 0, 1, 1)):
        y = run(macro, image, one_hot(macro.space, np.array(positions)))
        small = eqx.filter_jit(lambda macro, image, positions=positions: macro.subnet(positions)(image))
        assert off(y, small(macro, image)) < ROUND_OFF


def test_c2_the_supernet_has_the_parameters_of_its_largest_network(macro):
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(macro, eqx.is_array)))
    assert total == macro.n_parameters((1, 1, 1, 1)) == 4 * 9 + 4 + 8 * 4 * 25 + 8 + 10 * 8 * 4 + 10
    assert macro.n_parameters((0, 0, 0, 0)) == 2 + 2 + 4 * 2 * 9 + 4 + 10 * 4 * 4 + 10


def test_o10_parameters_of_the_authors_macro_space():
    # Four searchable convolutions, one of 7 x 7 to 256, and a perceptron from 6 x 6 x 256 by 256, 128 and 64 to 10.
    def count(widths, kernels):
        before = [3, *widths[:-1]]
        layers = [EntangledConv((n,), (m,), (k,), key=jax.random.key(0)) for n, m, k in zip(widths, before, kernels, strict=True)]
        convs = sum(layer.weight.size + layer.bias.size for layer in layers)
        ends = [(256, widths[-1] * 49), (256, 6 * 6 * 256), (128, 256), (64, 128), (10, 64)]
        return convs + sum(out * n_in + out for out, n_in in ends)

    # Sizes alone matter: no draw of seven million numbers.
    def total(widths, kernels):
        return eqx.filter_eval_shape(lambda: jnp.zeros(count(widths, kernels), bool)).shape[0]

    assert total((32, 64, 128, 256), (7, 7, 7, 7)) == 7_725_450
    assert total((8, 16, 32, 64), (3, 3, 3, 3)) == 3_228_954
    assert total((32, 64, 128, 128), (3, 7, 5, 7)) == 5_116_426


@pytest.fixture(scope="module")
def cell():
    return CellSupernet(1, 8, 10, n_channels=4, hidden=6, normal=("sep3", "sep3", "dil3"), n_groups=2, repeats=1, key=jax.random.key(8))


def test_trap_one_distribution_for_both_reducing_cells(cell):
    assert cell.space.n_architectures == 64 and len(cell.space.choices) == 3
    whole = eqx.filter_eval_shape(lambda key: CellSupernet(1, 8, 10, n_channels=4, n_groups=2, hidden=6, key=key), jax.random.key(8))
    assert whole.space.n_architectures == 4096


def test_o3_every_cell_network_is_in_the_supernet(cell, run):
    image = IMAGE[:1, :8, :8]
    for positions in ((0, 1, 2), (3, 0, 1)):
        y = run(cell, image, one_hot(cell.space, np.array(positions)))
        small = eqx.filter_jit(lambda cell, image, positions=positions: cell.subnet(positions)(image))
        assert off(y, small(cell, image)) < ROUND_OFF
    # Twice four channels by one kernel of 3 and one of 5 more.
    assert cell.n_parameters((1, 0, 0)) - cell.n_parameters((0, 0, 0)) == (4 + 8) * (25 - 9)


def test_o10_parameters_of_the_best_of_the_authors_cell_space():
    whole = eqx.filter_eval_shape(lambda key: CellSupernet(1, 28, 10, n_channels=32, hidden=128, key=key), jax.random.key(0))
    best = [OPERATIONS.index(name) for name in ("sep3", "dil3", "sep3", "sep3", "sep3", "dil3")]
    assert whole.n_parameters(best) == 191_530


def test_an_operation_that_there_is_not_is_refused(cell):
    with pytest.raises(ValueError, match="option must lie below the 4 of the operation, got 4"):
        cell.cells[0].edges[0].subnet(4)


def test_o3_operations_that_are_off_have_no_gradient(cell):
    certain = list(np.eye(4, dtype=np.float32)[[0, 3, 1]])  # sep3, dil5, sep5
    gradient = eqx.filter_jit(eqx.filter_grad(lambda one, x, p: (one(x, p) ** 3).sum()))(cell.cells[0], IMAGE[:1, :8, :8], certain)
    weights = [[np.asarray(group.depthwise[0].weight) for group in edge.groups] for edge in gradient.edges]
    assert (weights[0][1] == 0).all() and (weights[1][0] == 0).all() and (weights[2][1] == 0).all()
    assert (weights[0][0][..., 0, :] == 0).all() and (weights[0][0][..., 1:-1, 1:-1] != 0).any()
    assert (weights[1][1][..., 0, :] != 0).any() and (weights[2][0][..., 0, :] != 0).any()


def test_a_share_tells_groups_apart_and_a_norm_alone_does_not():
    # As if each group ended with a normalisation: its result does not depend on the scale of p.
    def group(value):
        return lambda x, p: value * x * p[0] / (p.sum() + 1e-9)

    x, ways = np.ones((1, 2, 2), np.float32), ((True, "weights"), (False, "weights"), (True, "outputs"))

    @jax.jit
    def outputs_and_gradients(p):
        edges = [MixedOperation([group(1.0), group(5.0)], [2, 2], has_shares=shares, mixing=mixing) for shares, mixing in ways]
        return [(edge(jnp.asarray(x), p), jax.grad(lambda p, edge=edge: edge(jnp.asarray(x), p).sum())(p)) for edge in edges]

    (_, with_shares), (_, without), _ = outputs_and_gradients(np.array([0.2, 0.2, 0.3, 0.3], np.float32))
    along = np.array([0.0, 0.0, 0.3, 0.3])  # the whole of the second group
    assert abs(np.asarray(without) @ along) < 1e-3 < np.asarray(with_shares) @ along
    (on, gradient), (raw, _), (outputs, _) = outputs_and_gradients(np.array([0.0, 0.0, 1.0, 0.0], np.float32))
    np.testing.assert_allclose(on, raw, rtol=1e-6)
    np.testing.assert_allclose(on, outputs, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.fixture(scope="module")
def transformer():
    return EntangledTransformer(7, 6, widths=(4, 8), heads=(1, 2), ratios=(1, 2, 3), depths=(1, 2), key=jax.random.key(9))


def test_o3_every_transformer_is_in_the_supernet(transformer, run):
    tokens = np.array([3, 0, 6, 2, 2], np.int32)
    positions = (0, 1, 2, 0)
    certain = one_hot(transformer.space, np.array(positions))
    y = np.asarray(run(transformer, tokens, certain))
    small = eqx.filter_jit(lambda transformer: transformer.subnet(positions))(transformer)
    assert small.embedding.weight.shape == (7, 4) and len(small.blocks.blocks) == 1
    expected = run(small, tokens, {name: np.ones(1, np.float32) for name in ("width", "heads", "ratio", "depth")})
    assert off(y, expected) < ROUND_OFF
    assert transformer.n_parameters(positions) == sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(small, eqx.is_array)))
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(transformer, eqx.is_array)))
    assert transformer.n_parameters((1, 1, 2, 1)) == total
    # No token is read before it comes.
    later = np.asarray(run(transformer, np.append(tokens[:-1], np.int32(5)), certain))
    assert (later[:-1] == y[:-1]).all() and (later[-1] != y[-1]).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: EntangledConv((2, 4), (1,), (2, 3), key=k), r"kernel_options must be odd.*got \(2, 3\)"),
        (lambda k: EntangledConv((4, 2), (1,), (3,), key=k), r"out_options must be positive and strictly ascending.*got \(4, 2\)"),
        (lambda k: EntangledConv((2,), (3, 3), (3,), key=k), r"in_options must be .*strictly ascending.*got \(3, 3\)"),
        (lambda k: EntangledConv((2,), (2,), (3,), is_depthwise=True, key=k), r"depthwise convolution must be \(1,\), got \(2,\)"),
        (lambda k: EntangledConv((2, 4), (1,), (3,), key=k)(jnp.ones((1, 4, 4)), jnp.ones(3) / 3), r"must have shape \(2,\).*got \(3,\)"),
        (lambda k: EntangledConv((2, 4), (1,), (3,), key=k)(jnp.ones((1, 4, 4))), r"must have shape \(2,\).*got None"),
        (lambda k: EntangledLinear([(4, 2), (2, 4)], key=k), "one of them must hold all others"),
        (lambda k: EntangledLinear([], key=k), "one of them must hold all others"),
        (lambda k: EntangledLayerNorm(()), "widths must be positive"),
        (lambda k: EntangledEmbedding(3, (0, 2), key=k), "widths must be positive"),
        (lambda k: MixedDepth([abs], (1, 2)), r"must end with the number of blocks, 1, got \(1, 2\)"),
        (lambda k: MixedOperation([abs], [1, 2]), "an entry for each of the 1 groups"),
        (lambda k: MixedOperation([abs], [2])(jnp.ones((1, 1, 1)), jnp.ones(3)), r"must have shape \(2,\), got \(3,\)"),
        (lambda k: CellSupernet(1, 8, 10, normal=("sep3", "sep7", "sep3"), key=k), "normal must be three of sep3, sep5, dil3, dil5"),
        (lambda k: CellSupernet(1, 8, 10, n_channels=6, key=k), "n_groups must divide n_channels, 6, got 4"),
        (lambda k: CellSupernet(1, 4, 10, key=k), "side must be at least 5 pixels, got 4"),
        (lambda k: MacroSupernet(1, 3, 10, key=k), "side must be at least 4 pixels, got 3"),
        (lambda k: MacroSupernet(1, 8, 10, widths=((2,),), key=k), "an entry for each layer, got 1 and 2"),
        (
            lambda k: EntangledTransformer(7, 6, widths=(4, 6), heads=(1, 4), ratios=(1,), depths=(1,), key=k),
            r"heads must divide every width, \(4, 6\), got \(1, 4\)",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))


def numpied(shapes, seed=0):
    random = np.random.default_rng(seed)
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    draw = lambda leaf: jax.device_put((random.normal(size=leaf.shape) / 2).astype(np.float32)) if is_shape(leaf) else leaf  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=is_shape)


def test_oracle_a_transformer_of_one_option_is_that_of_its_equations(run):
    one = {"widths": (6,), "heads": (2,), "ratios": (2,), "depths": (2,)}
    net = numpied(eqx.filter_eval_shape(lambda key: EntangledTransformer(7, 6, **one, key=key), jax.random.key(0)))
    tokens = np.array([3, 0, 6, 2, 2])
    linear = lambda layer, x: x @ np.asarray(layer.weight).T + np.asarray(layer.bias)  # noqa: E731

    def normed(norm, x):
        unit = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return unit * np.asarray(norm.scale) + np.asarray(norm.shift)

    def attended(attention, x):
        q, k, v = (linear(layer, x) for layer in (attention.queries, attention.keys, attention.inputs))
        read = np.zeros_like(x)
        for head in range(2):
            mine = slice(head, None, 2)
            weights = np.exp(q[:, mine] @ k[:, mine].T / np.sqrt(3)) * np.tri(len(x))
            read[:, mine] = weights / weights.sum(1, keepdims=True) @ v[:, mine]
        return linear(attention.output, read)

    def gelu(x):
        return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2

    x = np.asarray(net.embedding.weight)[tokens] + np.asarray(net.places.weight)[:5]
    for block in net.blocks.blocks:
        x = x + attended(block.attention, normed(block.attention_norm, x))
        x = x + linear(block.fall, gelu(linear(block.rise, normed(block.feed_norm, x))))
    certain = {name: np.ones(1, np.float32) for name in ("width", "heads", "ratio", "depth")}
    assert off(run(net, tokens.astype(np.int32), certain), linear(net.readout, normed(net.norm, x))) < 10 * ROUND_OFF


def test_the_layers_of_a_cell_supernet_are_those_that_its_names_say(cell, run):
    for one, stride in zip(cell.cells, (2, 1, 2), strict=True):
        kinds = ("sep", "dil") if stride == 2 else None
        for i, edge in enumerate(one.edges):
            for kind, group in zip(kinds or (("sep", "sep", "dil")[i],), edge.groups, strict=True):
                assert [layer.dilation for layer in group.depthwise] == [1 if kind == "sep" else 2]
                assert group.depthwise[0].stride == (stride if i < 2 else 1)
                assert group.depthwise[0].kernel_options == ((3, 5) if stride == 2 else (3,))
    twice = eqx.filter_eval_shape(lambda key: CellSupernet(1, 8, 10, n_channels=4, n_groups=2, hidden=6, key=key), jax.random.key(8))
    assert [len(group.depthwise) for group in twice.cells[0].edges[0].groups] == [2, 1]
    image, first = IMAGE[:1, :8, :8], cell.cells[0]

    @eqx.filter_jit
    def written_out(first, image):
        plain = first.subnet((1, 2, 0))
        x = plain.preprocess(image)
        before = plain.edges[0](x)
        return plain.preprocess.layers[1](jax.nn.relu(image)), x, jnp.concatenate([before, plain.edges[1](x) + plain.edges[2](before)])

    raw, x, expected = map(np.asarray, written_out(first, image))
    groups = raw.reshape(2, -1)
    groups = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
    assert off(x, groups.reshape(x.shape)) < ROUND_OFF
    assert off(run(first, image, [np.eye(4, dtype=np.float32)[i] for i in (1, 2, 0)]), expected) < ROUND_OFF


def test_oracle_a_macro_network_of_one_option(run):
    net = MacroSupernet(1, 7, 3, widths=((2,),), kernels=((3,),), key=jax.random.key(0))
    net = eqx.tree_at(lambda one: one.convolutions[0].bias, net, jnp.array([0.3, -0.2]))
    conv = np.maximum(by_hand(net.convolutions[0], IMAGE[:1, :7, :7], [1.0], [1.0], [1.0]), 0)
    # The last row and column of an odd side are left over.
    pooled = conv[:, :6, :6].reshape(2, 3, 2, 3, 2).max(axis=(2, 4))
    expected = np.asarray(net.readout.weight) @ pooled.ravel() + np.asarray(net.readout.bias)
    certain = {name: np.ones(1, np.float32) for name in ("width 1", "kernel 1")}
    assert off(run(net, IMAGE[:1, :7, :7], certain), expected) < ROUND_OFF


def test_first_weights_have_the_variance_of_one_over_their_inputs(cell):
    for weight in (EntangledConv((16,), (8,), (5,), key=jax.random.key(0)).weight, cell.hidden.weight):
        matrix = np.asarray(weight).reshape(len(weight), -1)
        assert abs(matrix.var() * matrix.shape[1] - 1) < 0.3
