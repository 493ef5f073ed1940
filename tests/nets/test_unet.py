import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import UNet, label_parameters
from gradatim.nets.unet import ConditionedBlock


@pytest.fixture(scope="module")
def shapes():
    return eqx.filter_eval_shape(lambda key: UNet(1, widths=(4, 4), n_features=4, key=key), jax.random.key(0))


def test_every_parameter_and_both_inputs_count(shapes):
    random = np.random.default_rng(0)
    net = jax.tree.map(lambda leaf: jax.device_put((0.5 * random.normal(size=leaf.shape)).astype(np.float32)), shapes)
    image, seen = (jax.device_put(random.normal(size=(4, 8, 1)).astype(np.float32)) for _ in range(2))

    @jax.jit
    def both(net, image, number):
        return jax.value_and_grad(lambda net, image, number: jnp.vdot(seen, net(image, number)), argnums=(0, 1, 2))(net, image, number)

    value, (weights, at_image, at_number) = both(net, image, jnp.array(0.3))
    assert value != 0 and at_number != 0 and np.all(np.asarray(at_image))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(weights))
    # With a read-out of zeros, as it starts, it is the zero function.
    still = eqx.tree_at(lambda net: net.readout.weight, net, jax.device_put(np.zeros(net.readout.weight.shape, np.float32)))
    assert both(still, image, jnp.array(0.3))[0] == 0


def test_parameters_have_roles(shapes):
    assert len(jax.tree.leaves(label_parameters(shapes))) == len(jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet(1, widths=(), key=jax.random.key(0)), "widths must not be empty"),
        (lambda: UNet(1, patch=0, key=jax.random.key(0)), "patch and n_features be at least 1"),
    ],
)
def test_what_makes_no_network_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sides_that_stages_do_not_divide_are_refused(shapes):
    with pytest.raises(ValueError, match="sides must be multiples of 4, got 8 and 6"):
        jax.eval_shape(lambda net: net(jnp.zeros((8, 6, 1)), jnp.array(0.0)), shapes)
    deep = eqx.filter_eval_shape(lambda key: UNet(3, widths=(4, 8, 12), n_blocks=2, n_features=4, key=key), jax.random.key(0))
    assert jax.eval_shape(lambda net: net(jnp.zeros((8, 16, 3)), jnp.array(0.0)), deep).shape == (8, 16, 3)


def placed(weight, matrix):
    """A kernel that does to each pixel what the matrix does to its channels."""
    kernel = np.zeros(weight.shape, np.float32)
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = matrix
    return jax.device_put(kernel)


def test_pixels_are_folded_and_come_back_to_their_places():
    net = eqx.filter_eval_shape(lambda key: UNet(1, widths=(4,), n_groups=1, n_features=4, key=key), jax.random.key(0))
    net = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, np.float32)), net)
    one = np.eye(4)
    # Without second convolutions a block is its shortcut, which on the way up sees what came from below before what stands beside.
    kernels = lambda net: (net.stem.weight, net.up[0][0].shortcut.weight, net.readout.weight, net.norm.scale)  # noqa: E731
    stem, shortcut, readout, scale = kernels(net)
    given = placed(stem, one), placed(shortcut, np.concatenate([one / 4, one / 2])), placed(readout, one), jnp.ones(scale.shape)
    net, image = eqx.tree_at(kernels, net, given), np.random.default_rng(0).normal(size=(4, 6, 1)).astype(np.float32)
    y = 0.75 * image
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
    np.testing.assert_allclose(eqx.filter_jit(net)(image, jnp.array(0.3)), y / (1 + np.exp(-y)), atol=1e-5)


def test_a_network_is_what_its_parts_make():
    random = np.random.default_rng(1)
    net = eqx.filter_eval_shape(lambda key: UNet(1, widths=(4, 8), patch=1, n_features=3, n_groups=2, key=key), jax.random.key(0))
    net = jax.tree.map(lambda leaf: jax.device_put((random.normal(size=leaf.shape) / 2).astype(np.float32)), net)
    image, frequencies = random.normal(size=(4, 6, 1)).astype(np.float32), np.array([0.125, 0.25, 0.5, 1, 2, 4], np.float32)

    @eqx.filter_jit
    def both(net, image, number):
        features = jnp.concatenate([jnp.cos(number * frequencies), jnp.sin(number * frequencies)])
        for linear in net.embedding:
            features = jax.nn.silu(linear.weight @ features + linear.bias)

        def block(parts, x):
            scale, shift = jnp.split(parts.condition.weight @ features + parts.condition.bias, 2)
            inner = parts.norms[1](parts.convolutions[0](jax.nn.silu(parts.norms[0](x))))
            inner = parts.convolutions[1](jax.nn.silu(inner * (1 + scale)[None, None] + shift[None, None]))
            return inner + (x if parts.shortcut is None else parts.shortcut(x))

        ((first,), (second,)), ((upper,), (lower,)) = net.down, net.up
        wide = block(first, net.stem(image))
        narrow = block(second, net.shrinking[0](wide))
        back = block(lower, jnp.concatenate([narrow, narrow], axis=-1))
        back = net.growing[0](back[jnp.arange(4) // 2][:, jnp.arange(6) // 2])
        last = block(upper, jnp.concatenate([back, wide], axis=-1))
        return net(image, number), net.readout(jax.nn.silu(net.norm(last)))

    np.testing.assert_allclose(*both(net, image, jnp.array(0.7)), rtol=1e-4, atol=1e-4)


def test_a_block_begins_as_its_shortcut():
    block = eqx.filter_jit(ConditionedBlock)(4, 4, 2, key=jax.random.key(0))
    image = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(eqx.filter_jit(block)(image, jnp.ones(2)), image)
    assert block.convolutions[0].weight.any() and block.condition.weight.any()
