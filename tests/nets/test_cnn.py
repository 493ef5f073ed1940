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


def test_convolution_is_a_sum_over_shifted_windows(getkey):
    image, convolution = jax.random.normal(getkey(), (6, 5, 2)), Convolution(2, 3, key=getkey())
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    expected = sum(padded[i : i + 6, j : j + 5] @ convolution.weight[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(convolution(image), expected, atol=ROUND_OFF)
    np.testing.assert_allclose(Convolution(2, 3, size=1, stride=2, key=getkey())(image).shape, (3, 3, 3))


def test_group_norm_agrees_with_equinox(getkey):
    image = 3 + 2 * jax.random.normal(getkey(), (6, 5, 8))
    theirs = eqx.nn.GroupNorm(4, 8)(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    np.testing.assert_allclose(GroupNorm(8)(image), theirs, atol=ROUND_OFF)


def test_group_norm_of_a_constant_image_is_finite_with_finite_gradients():
    norm, image = GroupNorm(4), jnp.full((3, 3, 4), 7.0)
    np.testing.assert_allclose(norm(image), 0.0, atol=1e-2)
    assert jnp.isfinite(jax.grad(lambda x: norm(x).sum())(image)).all()
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
    images = jax.random.normal(getkey(), (5, side, side, 1))
    np.testing.assert_allclose(call(jax.vmap(net), images), jnp.stack([call(net, image) for image in images]), atol=ROUND_OFF)
    convolutions = [e for e in jax.make_jaxpr(jax.vmap(net))(images).eqns if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 6
    for equation in convolutions:
        assert equation.invars[0].aval.shape[0] == 5, "the batch must be the convolution's own batch dimension"
        assert equation.params["feature_group_count"] == equation.params["batch_group_count"] == 1


def test_gradient_is_one_convolution_per_weight(getkey):
    net = make(ResNet, 1, 10, widths=(4,), key=getkey())
    images = jax.random.normal(getkey(), (5, 8, 8, 1))
    text = str(jax.make_jaxpr(lambda net, x: eqx.filter_grad(lambda net: jax.vmap(net)(x).sum())(net))(net, images))
    # Forward, and back to the weights and to the input, which nobody needs of the first.
    assert text.count("conv_general_dilated[") == 3 * 3 - 1


def test_activation_is_a_choice(getkey):
    key, images = getkey(), jnp.ones((2, 8, 8, 1))
    nets = [make(ResNet, 1, 3, widths=(4,), activation=f, key=key) for f in (jax.nn.relu, jax.nn.elu)]
    logits = [call(jax.vmap(net), images) for net in nets]
    assert not jnp.allclose(*logits)


def test_vmap_over_seeds(getkey):
    nets = make(eqx.filter_vmap(lambda key: ResNet(1, 3, widths=(4,), key=key)), jax.random.split(getkey(), 2))
    logits = eqx.filter_jit(eqx.filter_vmap(call, in_axes=(eqx.if_array(0), None)))(nets, jnp.ones((8, 8, 1)))
    assert logits.shape == (2, 3)
