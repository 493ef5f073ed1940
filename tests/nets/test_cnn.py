import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import Convolution, GroupNorm, ResidualBlock, ResNet

ROUND_OFF = 2e-5  # single precision, sums of a few hundred terms


# Compiled whole: operation by operation, each shape would be compiled apart.
@eqx.filter_jit
def make(net, *sizes, **options):
    return net(*sizes, **options)


@eqx.filter_jit
def call(net, image):
    return net(image)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_convolution_is_a_sum_over_shifted_windows(getkey):
    image, convolution = images(6, 5, 2), Convolution(2, 3, key=getkey())
    padded, weight = np.pad(image, ((1, 1), (1, 1), (0, 0))), np.asarray(convolution.weight)
    expected = sum(padded[i : i + 6, j : j + 5] @ weight[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(call(convolution, image), expected, atol=ROUND_OFF)
    strided = jax.eval_shape(lambda key, image: Convolution(2, 3, size=1, stride=2, key=key)(image), getkey(), image)
    assert strided.shape == (3, 3, 3)


def test_group_norm_agrees_with_equinox():
    image = 3 + 2 * images(6, 5, 8)
    theirs = call(eqx.nn.GroupNorm(4, 8), image.transpose(2, 0, 1))
    np.testing.assert_allclose(call(GroupNorm(8), image), np.transpose(theirs, (1, 2, 0)), atol=ROUND_OFF)


def test_group_norm_of_a_constant_image_is_finite_with_finite_gradients():
    norm, image = GroupNorm(4), np.full((3, 3, 4), 7.0, np.float32)
    normed, gradient = jax.jit(lambda x: (norm(x), jax.grad(lambda x: norm(x).sum())(x)))(image)
    np.testing.assert_allclose(normed, 0.0, atol=1e-2)
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="n_groups must divide the number of channels, 6, got 4"):
        GroupNorm(6)


def test_shortcut_only_where_the_shape_changes(getkey):
    relu = jax.nn.relu
    assert make(ResidualBlock, 8, 8, activation=relu, key=getkey()).shortcut is None
    block = make(ResidualBlock, 8, 16, stride=2, activation=relu, key=getkey())
    assert jax.eval_shape(block, jnp.ones((7, 7, 8))).shape == (4, 4, 16)


@pytest.mark.parametrize("side", [8, 14])
def test_batch_is_one_convolution_per_layer_and_equals_a_loop(side, getkey):
    net = make(ResNet, 1, 10, widths=(4, 8), key=getkey())
    batch = images(5, side, side, 1)
    np.testing.assert_allclose(call(jax.vmap(net), batch), np.stack([call(net, image) for image in batch]), atol=ROUND_OFF)
    convolutions = [e for e in jax.make_jaxpr(jax.vmap(net))(batch).eqns if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 6
    for equation in convolutions:
        assert equation.invars[0].aval.shape[0] == 5, "the batch must be the convolution's own batch dimension"
        assert equation.params["feature_group_count"] == equation.params["batch_group_count"] == 1


def test_gradient_is_one_convolution_per_weight(getkey):
    net = make(ResNet, 1, 10, widths=(4,), key=getkey())
    text = str(jax.make_jaxpr(lambda net, x: eqx.filter_grad(lambda net: jax.vmap(net)(x).sum())(net))(net, images(5, 8, 8, 1)))
    # Forward, and back to the weights and to the input, which nobody needs of the first.
    assert text.count("conv_general_dilated[") == 3 * 3 - 1


def test_activation_is_a_choice(getkey):
    key, batch = getkey(), np.ones((2, 8, 8, 1), np.float32)
    nets = [make(ResNet, 1, 3, widths=(4,), activation=f, key=key) for f in (jax.nn.relu, jax.nn.elu)]
    logits = [call(jax.vmap(net), batch) for net in nets]
    assert not np.allclose(*logits)


def test_vmap_over_seeds(getkey):
    nets = make(eqx.filter_vmap(lambda key: ResNet(1, 3, widths=(4,), key=key)), jax.random.split(getkey(), 2))
    logits = eqx.filter_jit(eqx.filter_vmap(call, in_axes=(eqx.if_array(0), None)))(nets, np.ones((8, 8, 1), np.float32))
    assert logits.shape == (2, 3)


def filled(shapes, seed=0):
    random = np.random.default_rng(seed)
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    draw = lambda leaf: jax.device_put((random.normal(size=leaf.shape) / 2).astype(np.float32)) if is_shape(leaf) else leaf  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=is_shape)


def correlated(convolution, image, stride=1):
    weight = np.asarray(convolution.weight)
    (height, width, _), pad = image.shape, len(weight) // 2
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return sum(padded[i : i + height : stride, j : j + width : stride] @ weight[i, j] for i, j in np.ndindex(weight.shape[:2]))


def normalised(norm, image):
    groups = image.reshape(*image.shape[:2], norm.n_groups, -1)
    mean, variance = (f(axis=(0, 1, 3), keepdims=True) for f in (groups.mean, groups.var))
    unit = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(image.shape)
    return unit * np.asarray(norm.scale) + np.asarray(norm.shift)


def test_a_network_is_its_layers_one_after_another():
    shapes = eqx.filter_eval_shape(
        lambda key: ResNet(1, 3, widths=(4, 6), n_blocks=2, stem_stride=2, n_groups=2, key=key), jax.random.key(0)
    )
    net, image = filled(shapes), images(13, 13, 1)
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x, sides = relu(normalised(net.norm, correlated(net.stem, image, 2))), []
    for i, stage in enumerate(net.stages):
        for j, block in enumerate(stage):
            stride = 2 if (i, j) == (1, 0) else 1
            inner = relu(normalised(block.norms[0], correlated(block.convolutions[0], x, stride)))
            inner = normalised(block.norms[1], correlated(block.convolutions[1], inner))
            x = relu(inner + (x if block.shortcut is None else correlated(block.shortcut, x, stride)))
            sides.append(len(x))
    assert sides == [7, 7, 4, 4]
    expected = np.asarray(net.readout.weight) @ x.mean(axis=(0, 1)) + np.asarray(net.readout.bias)
    np.testing.assert_allclose(call(net, image), expected, rtol=1e-4, atol=1e-4)


def test_first_weights_keep_the_size_of_rectified_inputs(getkey):
    weight = np.asarray(make(Convolution, 8, 64, key=getkey()).weight)
    assert abs(weight.std() / np.sqrt(2 / (9 * 8)) - 1) < 0.05
