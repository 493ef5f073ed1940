import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import divergence
from gradatim.sciml import (
    FieldPoints,
    HamiltonianField,
    HamiltonianGCN,
    HamiltonianMLP,
    field_at,
    log_cosh_field_loss,
    mish,
    squared_field_loss,
)

POINTS = np.array([[0.3, -0.2, 0.5, 0.1], [0.1, 0.4, -0.3, 0.2], [-0.6, 0.2, 0.1, 0.9]], np.float32)
X, RATES = jnp.asarray(POINTS), jax.device_put(np.roll(POINTS, 1, axis=1))


@pytest.fixture(scope="module")
def network():
    return HamiltonianMLP(4, 8, 2, key=jax.random.key(0))


@pytest.fixture(scope="module")
def seen(network):
    """All that is asked of one network, in one compiled function."""

    @eqx.filter_jit
    def look(network, x):
        field = HamiltonianField(network)
        gradient = eqx.filter_grad(log_cosh_field_loss)(network, FieldPoints(x, RATES))
        scaled = eqx.tree_at(lambda n: (n.readout, n.readout_bias), network, (3 * network.readout, network.readout_bias + 7))
        return {
            "field": field_at(network, x),
            "divergence": jax.vmap(lambda x: divergence(lambda x: field(0.0, x), x))(x),
            "along": jax.vmap(lambda x: jax.grad(network)(x) @ field(0.0, x))(x),
            "gradient": gradient,
            "scaled": field_at(scaled, x),
        }

    return look(network, X)


def test_the_field_of_any_energy_has_no_divergence_and_keeps_it(seen):
    assert np.abs(seen["divergence"]).max() < 1e-6 and np.abs(seen["along"]).max() < 1e-6


def test_scale_covariance_and_a_constant_that_is_never_learned(seen):
    assert np.allclose(seen["scaled"], 3 * seen["field"], rtol=1e-5)
    assert float(seen["gradient"].readout_bias) == 0 and float(np.abs(seen["gradient"].readout).max()) > 0


def test_log_cosh_is_as_known_and_does_not_overflow():
    errors = np.array([0.1, 1.0, 5.0, 1e4], np.float32)
    points = FieldPoints(*map(jnp.asarray, (np.zeros((4, 2), np.float32), np.stack([errors, np.zeros(4, np.float32)], axis=1))))
    # No field: the error is the rate itself, in one of two components.
    losses = 2 * np.array(jax.jit(jax.vmap(lambda x, r: log_cosh_field_loss(lambda x: 0 * x[0], FieldPoints(x[None], r[None]))))(*points))
    assert np.allclose(losses, [0.00499169, 0.43378083, 4.30689822, 1e4 - np.log(2)], rtol=1e-6, atol=3e-7)
    assert np.isclose(jax.jit(lambda points: squared_field_loss(lambda x: 0 * x[0], points))(points), np.mean(errors**2) / 4)


def test_mish_is_as_known_with_finite_derivatives_everywhere(double):
    x = jnp.array([1.0, -1.0, 0.0, 20.0, 700.0, -700.0])

    @jax.jit
    def look(x):
        third = jax.grad(jax.grad(jax.grad(mish)))
        theirs = jax.grad(jax.grad(jax.grad(jax.nn.mish)))
        return mish(x), jax.vmap(third)(x), jax.vmap(theirs)(x[:3])

    value, third, theirs = look(x)
    assert np.allclose(value[:2], [0.8650983883, -0.3034014614], atol=1e-10) and np.allclose(value[2:5], [0, 20, 700])
    assert np.isfinite(third).all() and np.allclose(third[:3], theirs, rtol=1e-12)


def test_graph_network_is_the_perceptron_for_one_and_blind_to_order_for_three(network):
    @eqx.filter_jit
    def look(network, x):
        one, three = (HamiltonianGCN(network, n, key=jax.random.key(1)) for n in (1, 3))
        state = x.reshape(-1)
        swapped = state.reshape(2, 3, 2)[:, jnp.array([2, 0, 1])].reshape(-1)
        return one(x[0]) - network(x[0]), three(state), three(swapped), jax.grad(three)(state)

    difference, energy, swapped, gradient = look(network, X)
    assert np.abs(difference) < 1e-6 and np.isclose(energy, swapped, rtol=1e-5) and np.isfinite(gradient).all()


def test_a_field_is_what_diffrax_takes():
    term = diffrax.ODETerm(HamiltonianField(lambda x: jnp.sum(x**2) / 2))
    assert np.allclose(jax.jit(lambda x: term.vf(0.0, x, None))(POINTS[0]), [0.5, 0.1, -0.3, 0.2])


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_a_state_that_is_not_q_and_p_is_refused(shape):
    with pytest.raises(ValueError, match="a state must be one vector \\(q, p\\) of even length"):
        HamiltonianField(lambda x: x.sum())(0.0, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 4, 1), "size must be even"),
        ((0, 4, 1), "size must be even"),
        ((4, 0, 1), "width must be at least 1"),
        ((4, 4, 0), "depth must be"),
    ],
)
def test_networks_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HamiltonianMLP(*arguments, key=jax.random.key(0))


def test_graphs_that_cannot_be_are_refused(network):
    with pytest.raises(ValueError, match="n_particles must be at least 1, got 0"):
        HamiltonianGCN(network, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="the state of 2 particles must have shape \\(8,\\), got \\(4,\\)"):
        HamiltonianGCN(network, 2, key=jax.random.key(0)).features(X[0])


def test_a_graph_network_is_that_of_its_equations(network):
    graph = HamiltonianGCN(network, 3, key=jax.random.key(2))
    graph = eqx.tree_at(lambda g: g.particle.readout_bias, graph, jnp.asarray(0.5))
    state = np.random.default_rng(0).normal(size=12).astype(np.float32)
    q, p = state.reshape(2, 3, 2)
    h = np.concatenate([q, p], axis=1)
    for weight, link, bias in zip(network.weights, graph.links, network.biases, strict=True):
        others = np.stack([(h.sum(axis=0) - h[i]) / 2 for i in range(3)])
        z = h @ np.asarray(weight).T + others @ np.asarray(link).T + np.asarray(bias)
        h = z * np.tanh(np.log1p(np.exp(z)))
    expected = (h @ np.asarray(network.readout) + 0.5).sum()
    assert np.isclose(eqx.filter_jit(graph)(state), expected, rtol=1e-4)
