import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import (
    Cloud,
    EGNNLayer,
    compare_outputs,
    complete_graph,
    graph_from_edges,
    moved_inputs,
    permuted,
    random_motions,
)

# Squared distances in single precision.
ROUND_OFF = 1e-5
MOTIONS = random_motions(jax.random.key(0), 4)
GRAPH = complete_graph(np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32))
POSITIONS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
ORDER = np.array([5, 3, 0, 4, 1, 2])


@pytest.fixture(scope="module")
def layer():
    random = np.random.default_rng(2)
    shapes = eqx.filter_eval_shape(lambda: EGNNLayer(2, 3, width=8, key=jax.random.key(0)))

    def draw(leaf):
        return jax.device_put((random.normal(size=leaf.shape) / 2).astype(np.float32)) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


@pytest.fixture(scope="module")
def outputs(layer):
    f = eqx.filter_jit(lambda layer, graph, positions: jax.vmap(lambda x: layer(graph, x))(positions))
    inputs = np.stack(moved_inputs(MOTIONS, POSITIONS, lambda move, x: move(x)))
    features, positions = jax.device_get(f(layer, GRAPH, inputs))
    return [Cloud(*pair) for pair in zip(features, positions, strict=True)]


def test_o10_positions_move_along_and_features_stay(outputs):
    assert [round(float(np.linalg.det(move.turn))) for move in MOTIONS] == [1, -1, 1, -1]
    assert compare_outputs(MOTIONS, [cloud.positions for cloud in outputs], lambda move, y: move(y)).worst < ROUND_OFF
    assert compare_outputs(MOTIONS, [cloud.features for cloud in outputs]).worst < ROUND_OFF


def test_positions_do_move_and_features_see_them(outputs, layer):
    assert np.abs(outputs[0].positions - POSITIONS).max() > 1e-2
    other = eqx.filter_jit(layer)(GRAPH, 2 * jax.device_put(POSITIONS))
    assert np.abs(other.features - outputs[0].features).max() > 1e-2


def test_points_have_no_order(outputs, layer):
    moved = eqx.filter_jit(layer)(permuted(GRAPH, ORDER), jnp.asarray(POSITIONS[ORDER]))
    np.testing.assert_allclose(moved.features, outputs[0].features[ORDER], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved.positions, outputs[0].positions[ORDER], rtol=1e-4, atol=1e-5)


def test_trap_points_that_meet_have_a_finite_gradient(layer):
    graph = graph_from_edges([(0, 1)], nodes=np.ones((3, 2), np.float32))

    def total(positions):
        cloud = layer(graph, positions)
        return jnp.sum(cloud.features) + jnp.sum(cloud.positions)

    gradient = jax.jit(jax.grad(total))(jnp.zeros((3, 3)))
    assert np.isfinite(gradient).all()
    # Who has no neighbours stays.
    assert (np.asarray(gradient)[2] == 1).all()
