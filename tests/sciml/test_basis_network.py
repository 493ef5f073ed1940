import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.sciml import BasisNetwork, SpectralLayer

GRIDS = {"a time and a place": ((7, 10), (6, 4)), "a time and two places": ((5, 6, 9), (4, 4, 3))}


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", GRIDS)
def test_oracle_spectral_layer_against_the_fast_transform(name):
    grid, modes = GRIDS[name]
    random = np.random.default_rng(0)
    module = SpectralLayer(*(jax.device_put(random.normal(size=shape)) for shape in ((*modes, 2, 3), (*modes, 2, 3), (2, 3), (3,))))
    v, axes = random.normal(size=(*grid, 2)), tuple(range(len(grid)))
    kept = np.ix_(*(np.r_[: m // 2, n - m // 2 : n] for n, m in zip(grid[:-1], modes[:-1], strict=True)), np.arange(modes[-1]))
    spectrum = np.fft.rfftn(v, axes=axes)
    mixed = np.zeros((*spectrum.shape[:-1], 3), complex)
    mixed[kept] = np.einsum("...c,...cd->...d", spectrum[kept], np.asarray(module.real) + 1j * np.asarray(module.imaginary))
    expected = np.fft.irfftn(mixed, s=grid, axes=axes)
    np.testing.assert_allclose(jax.jit(lambda v: module.spectral(v))(jax.device_put(v)), expected, atol=1e-12)


@pytest.mark.parametrize(("grid", "modes"), [((6, 8), (2, 2)), ((6, 5, 8), (2, 2, 3))])
def test_network_shapes_precision_and_last_activation(grid, modes):
    make = functools.partial(BasisNetwork, 3, 4, width=2, depth=1, modes=modes, hidden=3, key=jax.random.key(0))
    open_, closed = make(activate_last=False), make()
    inputs = jax.device_put(np.random.default_rng(0).normal(size=(*grid, 3)))
    values, activated = jax.jit(lambda inputs: (open_(inputs), closed(inputs)))(inputs)
    assert values.shape == (*grid, 4) and values.dtype == jnp.float64
    np.testing.assert_allclose(activated, jax.jit(jax.nn.gelu)(values), atol=1e-12)


def test_a_finer_grid_sees_the_same_function():
    network = BasisNetwork(1, 2, width=3, depth=1, modes=(2, 2, 2), hidden=3, key=jax.random.key(0))

    def spectral(n):
        x = 2 * np.pi * np.arange(n) / n
        v = np.cos(x)[None, :, None] * np.sin(x)[None, None, :] * np.ones((4, 1, 1))
        return np.asarray(network.layers[0].spectral(jax.device_put(np.stack([v, 1 + v, 2 - v], axis=-1))))

    np.testing.assert_allclose(spectral(8), spectral(16)[:, ::2, ::2], atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BasisNetwork(3, 0, key=jax.random.key(0)), "n_basis must be at least 1, got 0"),
        (lambda: BasisNetwork(3, 1, modes=(2, 0), key=jax.random.key(0)), "modes must be at least 1, got 0"),
        (
            lambda: SpectralLayer(jnp.ones((4, 3, 1, 1)), jnp.ones((4, 3, 1, 1)), jnp.ones((1, 1)), jnp.ones(1))(jnp.ones((4, 5, 1))),
            r"at least \(4, 6\) points along its axes for these modes, got \(4, 5\)",
        ),
        (
            lambda: SpectralLayer(jnp.ones((4, 3, 1, 1)), jnp.ones((4, 3, 1, 1)), jnp.ones((1, 1)), jnp.ones(1))(jnp.ones((4, 6, 6, 1))),
            r"at least \(4, 6\) points along its axes for these modes, got \(4, 6, 6\)",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_network_is_a_lift_its_layers_and_two_layers_point_by_point():
    network = BasisNetwork(2, 3, width=2, depth=2, modes=(2, 2), hidden=4, key=jax.random.key(0))
    random = np.random.default_rng(1)
    where = lambda n: [n.layers[0].bias, n.layers[1].bias, *n.biases]  # noqa: E731
    network = eqx.tree_at(where, network, [jax.device_put(random.normal(size=bias.shape)) for bias in where(network)])
    inputs = jax.device_put(random.normal(size=(6, 8, 2)))

    @eqx.filter_jit
    def both(network, inputs):
        v = inputs @ network.lift
        for layer in network.layers:
            v = jax.nn.gelu(layer.spectral(v) + v @ layer.weight + layer.bias[None, None])
        v = jax.nn.gelu(v @ network.weights[0] + network.biases[0][None, None]) @ network.weights[1]
        return network(inputs), jax.nn.gelu(v + network.biases[1][None, None])

    np.testing.assert_allclose(*both(network, inputs), atol=1e-12)


def test_first_weights_have_the_variance_of_two_over_inputs_and_outputs():
    network = BasisNetwork(2, 3, width=8, depth=1, modes=(2, 2), hidden=40, key=jax.random.key(0))
    layer = network.layers[0]
    for weight, total in ((layer.real, 16), (layer.imaginary, 16), (network.weights[0], 48)):
        assert abs(np.var(weight) * total / 2 - 1) < 0.4
