import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.implicit import (
    LayeredNetwork,
    chain_connections,
    homeostatic_loss,
    jacobian_symmetry,
    loop_connections,
    set_weight_angle,
    weight_angles,
    weight_symmetry,
)
from gradatim.numerics import hutchinson_asymmetry

SIZES = {"in": 4, "l1": 6, "l2": 5, "out": 3}
N_UNITS = 14
X = np.array([0.3, 0.1, 0.9, 0.5])
ACTIVITY = {"l1": np.full(6, 0.3), "l2": np.full(5, 0.6), "out": np.full(3, 0.1)}
MANY = 20_000
NETWORKS = {"chain": chain_connections(SIZES), "loop": loop_connections(SIZES)}


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def make(connections):
    return LayeredNetwork(SIZES, connections, classes=3, key=jax.random.key(0))


@eqx.filter_jit
def many(network, key):
    def loss(network):
        return homeostatic_loss(network, jnp.asarray(X), jax.tree.map(jnp.asarray, ACTIVITY), key, n_probes=MANY)

    def exact(network):
        return 2 * weight_symmetry(network).antisymmetric ** 2 / N_UNITS

    drive = network.drive(jnp.asarray(X))
    jacobian = jax.jacfwd(lambda r: network.field(r, drive))(jax.tree.map(jnp.asarray, ACTIVITY))
    return eqx.filter_value_and_grad(loss)(network), eqx.filter_value_and_grad(exact)(network), jacobian


of_matrix, of_weights, set_angle = jax.jit(jacobian_symmetry), eqx.filter_jit(weight_symmetry), eqx.filter_jit(set_weight_angle)


def dense(jacobian):
    names = sorted(jacobian)
    return np.block([[np.asarray(jacobian[a][b]) for b in names] for a in names]) - np.eye(N_UNITS)


@pytest.fixture(scope="module")
def found():
    return many(make(NETWORKS["chain"]), jax.random.key(1))


def test_the_mean_over_many_probes_and_its_gradient_are_those_of_the_closed_form(found):
    (value, gradient), (exact, exact_gradient), _ = found
    assert abs(value / exact - 1) < 0.01
    for connection, g in exact_gradient.weights.items():
        if not connection.startswith("in"):
            # What 20,000 probes leave.
            assert np.linalg.norm(np.asarray(gradient.weights[connection]) - np.asarray(g)) < 0.05 * np.linalg.norm(g)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_closed_form_is_that_of_the_dense_jacobian(name):
    network, start = make(NETWORKS[name]), {"l1": 0, "l2": 6, "out": 11}
    jacobian = -np.eye(N_UNITS)
    for connection, weight in network.weights.items():
        pre, post = connection.split("->")
        if pre != "in":
            jacobian[start[post] : start[post] + SIZES[post], start[pre] : start[pre] + SIZES[pre]] = weight
    from_matrix, from_weights = of_matrix(jacobian), of_weights(network)
    np.testing.assert_allclose(from_weights, from_matrix, rtol=1e-12)
    assert abs(float(from_weights.score) - float(from_matrix.score)) < 1e-12
    assert network.unpaired() == {"chain": [], "loop": ["l1->l2", "l2->out", "out->l1"]}[name]


def test_the_jacobian_of_the_field_is_made_of_the_weights(found):
    network = make(NETWORKS["chain"])
    from_field = of_matrix(dense(found[2]))
    np.testing.assert_allclose(from_field, of_weights(network), rtol=1e-12)
    pairs = [("l1->l2", "l2->l1"), ("l2->out", "out->l2")]
    weights = {name: np.asarray(weight) for name, weight in network.weights.items()}
    exact = sum(np.sum((weights[w] - weights[b].T) ** 2) for w, b in pairs)
    np.testing.assert_allclose(2 * from_field.antisymmetric**2, exact, rtol=1e-12)


def test_readout_input_and_biases_are_left_alone(found):
    (_, gradient), _, _ = found
    untouched = (gradient.readout, gradient.biases, gradient.weights["in->l1"])
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(untouched))


def test_a_symmetric_network_has_no_loss_for_any_probe_and_no_gradient_in_the_mean(found):
    (_, gradient), _, _ = found
    (value, none), (exact, exact_gradient), _ = many(set_angle(make(NETWORKS["chain"]), 0.0), jax.random.key(2))
    assert abs(value) < 1e-14 and exact == 0
    assert all((np.nan_to_num(leaf) == 0).all() for leaf in jax.tree.leaves(exact_gradient.weights))
    largest = [max(np.abs(leaf).max() for leaf in jax.tree.leaves(one.weights)) for one in (none, gradient)]
    assert 0 < largest[0] < 0.05 * largest[1]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_a_multiple_of_the_identity_changes_no_probe(seed, shift):
    matrix = np.random.default_rng(seed).normal(size=(4, 4))
    plain, shifted = _estimates(matrix, shift, seed)
    np.testing.assert_allclose(plain, shifted, rtol=1e-9, atol=1e-10)


@jax.jit
def _estimates(matrix, shift, seed):
    key, like = jax.random.key(seed), jnp.zeros(4)
    return [hutchinson_asymmetry(lambda v, m=m: m @ v, like, key, n_probes=1) for m in (matrix, matrix + shift * jnp.eye(4))]


def test_descent_on_the_loss_alone_aligns_at_its_exact_geometric_rate():
    network, rate = make(NETWORKS["chain"]), 0.5

    @eqx.filter_jit
    def descend(network):
        def loss(arrays):
            return 2 * weight_symmetry(eqx.combine(arrays, rest)).antisymmetric ** 2 / N_UNITS

        arrays, rest = eqx.partition(network, eqx.is_array)

        def step(arrays, _):
            before = eqx.combine(arrays, rest).weights
            gradient = jax.grad(loss)(arrays)
            return jax.tree.map(lambda w, g: w - rate * g, arrays, gradient), before["l1->l2"] - before["l2->l1"].T

        arrays, differences = jax.lax.scan(step, arrays, length=60)
        return eqx.combine(arrays, rest), differences

    after, differences = descend(network)
    shrunk = (1 - 4 * rate / N_UNITS) ** np.arange(60)
    np.testing.assert_allclose(differences, shrunk[:, None, None] * differences[:1], rtol=1e-9, atol=1e-12)
    assert max(map(float, weight_angles(after).values())) < 1
    # What the two have in common stays as it was.
    np.testing.assert_allclose(
        after.weights["l1->l2"] + after.weights["l2->l1"].T, network.weights["l1->l2"] + network.weights["l2->l1"].T, rtol=1e-9, atol=1e-12
    )


@settings(max_examples=20)
@given(st.floats(0, 180))
def test_the_angle_that_is_set_is_the_angle_that_is_measured(degrees):
    angles, norms = _turned(degrees)
    np.testing.assert_allclose(list(angles.values()), degrees, atol=1e-6)
    np.testing.assert_allclose(norms, 1, rtol=1e-12)


@jax.jit
def _turned(degrees):
    turned = set_weight_angle(make(NETWORKS["chain"]), degrees)
    norms = [jnp.linalg.norm(turned.weights[b]) / jnp.linalg.norm(turned.weights[w]) for w, b in turned.reciprocal_pairs()]
    return weight_angles(turned), norms


def test_a_layer_that_is_connected_to_itself_has_its_part_of_the_jacobian():
    sizes = {"in": 2, "l1": 3, "out": 2}
    network = LayeredNetwork(sizes, ("in->l1", "l1->l1", "l1->out", "out->l1"), key=jax.random.key(0))
    weights = {name: np.asarray(weight) for name, weight in network.weights.items()}
    jacobian = np.block([[weights["l1->l1"], weights["out->l1"]], [weights["l1->out"], np.zeros((2, 2))]]) - np.eye(5)
    np.testing.assert_allclose(weight_symmetry(network), [np.linalg.norm(jacobian + part * jacobian.T) / 2 for part in (1, -1)], rtol=1e-12)
    assert network.unpaired() == [] and network.own() == ["l1->l1"]


def test_a_network_without_an_angle_can_be_straightened_again():
    sizes = {"in": 2, "l1": 1, "out": 1}
    for network in (set_angle(make(NETWORKS["chain"]), 0.0), LayeredNetwork(sizes, chain_connections(sizes), key=jax.random.key(0))):
        again = set_angle(network, 0.0)
        assert all(np.array_equal(again.weights[b], np.asarray(network.weights[w]).T) for w, b in again.reciprocal_pairs())


def test_the_loss_has_no_derivative_in_the_input_or_the_activities():
    class Curved(LayeredNetwork):
        def field(self, activity, drive):
            return super().field(jax.tree.map(jnp.sin, activity), jax.tree.map(jnp.asarray, drive)) | {
                "out": activity["l1"][:2] ** 2 * drive["out"]
            }

    sizes = {"in": 2, "l1": 3, "out": 2}
    network = Curved(sizes, ("in->l1", "in->out", "out->l1"), key=jax.random.key(0))

    def loss(x, activity):
        return homeostatic_loss(network, x, activity, jax.random.key(1), n_probes=2)

    x, activity = jnp.ones(2), {"l1": jnp.full(3, 0.3), "out": jnp.full(2, 0.6)}
    assert loss(x, activity) != loss(2 * x, activity) and loss(x, activity) != loss(x, {**activity, "l1": jnp.ones(3)})
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(x, activity)))


def test_no_angle_is_symmetric_to_the_last_bit():
    straight = set_angle(make(NETWORKS["chain"]), 0.0)
    assert all(np.array_equal(straight.weights[b], np.asarray(straight.weights[w]).T) for w, b in straight.reciprocal_pairs())
    assert weight_symmetry(straight).antisymmetric == 0 and list(weight_angles(straight).values()) == [0, 0]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="network must have a connection that leads back between two layers, got in->l1, "):
        set_weight_angle(make(NETWORKS["loop"]), 0.0)
    with pytest.raises(ValueError, match="n_probes must be at least 1, got 0"):
        homeostatic_loss(make(NETWORKS["loop"]), jnp.asarray(X), jax.tree.map(jnp.asarray, ACTIVITY), jax.random.key(0), n_probes=0)
