import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import UNet, label_parameters


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
