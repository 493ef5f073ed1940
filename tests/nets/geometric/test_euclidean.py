import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import (
    Cloud,
    EGNNLayer,
    act_on_irreps,
    compare_outputs,
    complete_graph,
    cyclic,
    equivariance_error,
    graph_from_edges,
    intertwiner_basis,
    irreps_of,
    moved_inputs,
    octahedral,
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


class ScalarAndTensor:
    """As `e3nn_jax.Irreps` of a pseudoscalar and of matrices written out row by row."""

    def D_from_matrix(self, R):
        D = np.zeros((10, 10))
        D[0, 0], D[1:, 1:] = np.linalg.det(R), np.kron(R, R)
        return D


def products(x):
    """Volumes and outer products of three vectors."""
    a, b, c = x.reshape(3, 3)
    return jnp.concatenate([jnp.dot(jnp.cross(a, b), c)[None], jnp.outer(a, b).ravel()])


def test_networks_of_irreps_are_tried_by_motions():
    vectors = lambda move, x: (x.reshape(3, 3) @ move.turn.T.astype(x.dtype)).ravel()  # noqa: E731
    x = np.random.default_rng(3).normal(size=9).astype(np.float32)
    assert equivariance_error(jax.jit(products), MOTIONS, x, vectors, act_on_irreps(ScalarAndTensor())).worst < ROUND_OFF
    assert equivariance_error(jax.jit(lambda x: jnp.abs(products(x))), MOTIONS, x, vectors, act_on_irreps(ScalarAndTensor())).worst > 1e-2


def test_irreps_of_a_finite_group_of_space():
    # Of a cube, matrices are a number, an antisymmetric part, two that are traceless on the diagonal and three off it.
    rotations, all_symmetries = (irreps_of(octahedral(reflections=r), ScalarAndTensor()) for r in (False, True))
    assert len(intertwiner_basis(rotations, rotations)) == 4 + 1 + 1 + 1
    assert len(intertwiner_basis(all_symmetries, all_symmetries)) == 1 + 4
    with pytest.raises(ValueError, match="group must act on space, of dimension 3, got C4 of dimension 2"):
        irreps_of(cyclic(4), ScalarAndTensor())


def test_a_layer_is_that_of_its_equations():
    random = np.random.default_rng(4)
    shapes = eqx.filter_eval_shape(lambda: EGNNLayer(2, 3, n_edge=1, width=4, key=jax.random.key(0)))
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    draw = lambda leaf: jax.device_put(random.normal(size=leaf.shape).astype(np.float32)) if is_shape(leaf) else leaf  # noqa: E731
    layer = jax.tree.map(draw, shapes, is_leaf=is_shape)
    pairs, features = np.array([(0, 1), (0, 2), (1, 2), (3, 0)]), np.asarray(GRAPH.nodes)[:4]
    weights, x = random.normal(size=(4, 1)).astype(np.float32), POSITIONS[:4]
    found = eqx.filter_jit(layer)(graph_from_edges(pairs, nodes=features, edges=weights), jnp.asarray(x))

    def perceptron(net, *parts):
        hidden = np.maximum(np.asarray(net.first.weight) @ np.concatenate(parts) + np.asarray(net.first.bias), 0)
        return np.asarray(net.last.weight) @ hidden + np.asarray(net.last.bias)

    total, steps = np.zeros((4, 4)), [[] for _ in range(4)]
    for (a, b), e in zip(pairs, weights, strict=True):
        for u, v in ((a, b), (b, a)):
            z = perceptron(layer.message, features[u], features[v], np.sum((x[u] - x[v]) ** 2, keepdims=True), e)
            message = z / (1 + np.exp(-z))
            total[u] += message
            steps[u].append((x[u] - x[v]) * perceptron(layer.step, message))
    expected = [perceptron(layer.update, f, m) for f, m in zip(features, total, strict=True)]
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.positions, [p + np.mean(s, axis=0) for p, s in zip(x, steps, strict=True)], rtol=1e-4, atol=1e-4)
