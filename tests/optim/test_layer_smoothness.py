import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import MatrixAxes, layer_indices, norm_groups
from gradatim.optim import layer_smoothness, optimal_marginals

ROUND_OFF = 1e-4  # differences of gradients in single precision
LAYERS = {"a": 1, "b": 2, "c": 3}


def matrices(seed=0):
    return {name: jnp.asarray(np.random.default_rng((seed, i)).normal(size=(6, 6)), jnp.float32) for i, name in enumerate(LAYERS)}


@eqx.filter_jit
def smoothness(loss, params, step, layers, groups):
    return layer_smoothness(loss, params, step, layers, groups=groups)


def test_a_quadratic_has_its_constants_times_the_norm_s_own():
    """Σ L/2 ‖X‖_F²: along an orthogonal matrix ‖L Z‖_nuc / ‖Z‖ is n L, whatever the point and the length of the step."""
    constants = jnp.array([1.0, 4.0, 2.0])

    def loss(x):
        return sum(c * (x[name] ** 2).sum() / 2 for c, name in zip(constants, LAYERS, strict=True))

    step = {name: 0.1 * jnp.linalg.qr(matrix)[0] for name, matrix in matrices(1).items()}
    found = smoothness(loss, matrices(), step, LAYERS, dict.fromkeys(LAYERS, "hidden"))
    np.testing.assert_allclose(found, 6 * constants, rtol=ROUND_OFF)
    np.testing.assert_allclose(optimal_marginals(np.asarray(found).tolist()), [0.25, 1, 1], rtol=ROUND_OFF)


def test_layers_move_alone():
    """A bilinear loss has no curvature in either factor, though much in both together; what is in no layer stays."""

    def loss(x):
        return (x["a"] * x["b"]).sum() + 100 * (x["c"] ** 2).sum()

    found = smoothness(loss, matrices(), matrices(1), {"a": 1, "b": 2, "c": None}, dict.fromkeys(LAYERS, "hidden"))
    np.testing.assert_allclose(found, 0.0, atol=ROUND_OFF)


def test_several_arrays_of_a_layer_count_by_the_largest_move():
    def loss(x):
        return (x["a"] ** 2).sum() / 2 + (x["b"] ** 2).sum() / 2

    step = {"a": 0.1 * jnp.ones(4), "b": 0.2 * jnp.ones(9)}
    found = smoothness(loss, {"a": jnp.ones(4), "b": jnp.ones(9)}, step, {"a": 1, "b": 1}, {"a": "vector", "b": "vector"})
    # √d ‖z‖₂ of each is 0.1 × 4 and 0.2 × 9.
    np.testing.assert_allclose(found, [(0.4 + 1.8) / 0.2], rtol=ROUND_OFF)


def test_stacked_matrices_count_by_the_largest_move_and_axes_turn_them():
    """½ ‖X‖² along orthonormal columns Q: of two blocks 0.1 Q and 0.2 Q, and of an (in, out) one, whose √(out/in) is the inverse."""
    q = jnp.linalg.qr(matrices()["a"][:4, :2])[0]
    half_square = lambda x: (x["w"] ** 2).sum() / 2  # noqa: E731
    for step, axes, expected in (
        (jnp.stack([0.1 * q, 0.2 * q]), None, 2**0.5 * 2 * (0.1 + 0.2) / (0.5**0.5 * 0.2)),
        (0.1 * q, {"w": MatrixAxes((0,), (1,))}, 0.5**0.5 * 2 / 2**0.5),
    ):
        measured = functools.partial(layer_smoothness, half_square, layers={"w": 1}, groups={"w": "hidden"}, axes=axes)
        found = jax.jit(lambda x, z, measured=measured: measured(x, z))({"w": 0 * step}, {"w": step})
        np.testing.assert_allclose(found, [expected], rtol=ROUND_OFF)


def test_a_network_has_a_constant_for_each_layer(getkey):
    net = eqx.filter_jit(lambda key: eqx.nn.MLP(4, 2, 8, 2, activation=jnp.tanh, key=key))(getkey())
    inputs = jax.random.normal(getkey(), (20, 4))

    @eqx.filter_jit
    def measured(net):
        loss = lambda net, inputs: (jax.vmap(net)(inputs) ** 2).mean()  # noqa: E731
        step = jax.tree.map(lambda g: -0.1 * g, eqx.filter_grad(loss)(net, inputs))
        return layer_smoothness(loss, net, step, layer_indices(net, net.layers), inputs, groups=norm_groups(net))

    found = np.asarray(measured(net))
    assert found.shape == (3,) and np.isfinite(found).all() and (found > 0).all()


def test_a_layer_that_stays_is_an_error():
    step = matrices() | {"b": jnp.zeros((6, 6))}
    with pytest.raises(Exception, match="step must move every layer, layer 2 stays where it is"):
        jax.block_until_ready(
            smoothness(lambda x: (x["a"] * x["b"] * x["c"]).sum(), matrices(), step, LAYERS, dict.fromkeys(LAYERS, "hidden"))
        )


@pytest.mark.parametrize(
    ("layers", "groups", "message"),
    [
        ({"a": 1, "b": 3, "c": 3}, "hidden", "must not leave a gap, got no parameter in layer 2"),
        (LAYERS, "matrix", "must have a group, one of hidden, embed, vector, got 'matrix'"),
    ],
)
def test_bad_input(layers, groups, message):
    with pytest.raises(ValueError, match=message):
        layer_smoothness(lambda x: (x["a"] ** 2).sum(), matrices(), matrices(), layers, groups=dict.fromkeys(LAYERS, groups))
