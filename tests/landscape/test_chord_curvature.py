import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.landscape import (
    barrier,
    barrier_kernel,
    chord_curvature,
    chord_integral,
    directional_derivatives,
    line_loss,
    predict_barrier,
    quadrature,
)
from gradatim.landscape.chord_curvature import METHODS
from gradatim.numerics import HessianOperator

ROUND_OFF = 1e-12


def product(w):
    return (w[0] * w[1] - 1) ** 2 / 2


@jax.jit
def of_product(a, b):
    found = {method: predict_barrier(product, a, b, method=method) for method in METHODS if method != "fork"}
    return found, barrier(product, a, b), chord_integral(product, a, b)


@pytest.fixture(scope="module")
def toy():
    with jax.enable_x64(True):
        return of_product(jnp.ones(2), -jnp.ones(2))


def test_o_toy_1_barrier_of_the_product_is_a_half(toy, double):
    _, found, _ = toy
    assert abs(found.height - 0.5) <= ROUND_OFF and abs(found.at - 0.5) <= 1e-3
    assert np.allclose(found.line.loss, ((1 - 2 * found.line.t) ** 2 - 1) ** 2 / 2, atol=ROUND_OFF)


def test_o_toy_1_estimates_are_those_by_hand(toy, double):
    predicted, _, integral = toy
    for method, value in {"integral": 0.5, "midpoint": 1.0, "endpoints": 2.0, "endpoints_with_slopes": 2.0}.items():
        assert abs(predicted[method] - value) <= 1e-10, method
    assert integral.height <= integral.bound <= 1.0


def test_o_same_branch_has_the_barrier_of_its_curved_valley():
    with jax.enable_x64(True):
        for c in (1.5, 2.0, 3.0):
            _, found, integral = of_product(jnp.array([c, 1 / c]), jnp.array([1 / c, c]))
            assert abs(found.height - (c - 1 / c) ** 4 / 32) <= 1e-10 and abs(integral.height - found.height) <= 1e-10
            assert c != 2 or abs(found.height - 0.158203) <= 1e-6


@jax.jit
def of_quadratic(matrix, slope, a, b, fork):
    def loss(w):
        return w @ matrix @ w / 2 + slope @ w

    found = {method: predict_barrier(loss, a, b, method=method, fork=fork if method == "fork" else None, n_nodes=2) for method in METHODS}
    return found, barrier(loss, a, b, n_points=5).height, (b - a) @ matrix @ (b - a)


@given(st.integers(0, 2**32 - 1))
def test_o_quadratic_loss_has_an_eighth_of_its_curvature(seed):
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(4, 4))
    with jax.enable_x64(True):
        arguments = (matrix + matrix.T, *random.normal(size=(4, 4)))
        predicted, height, curvature = jax.device_get(of_quadratic(*map(jnp.asarray, arguments)))
    scale = 1e-10 * (1 + abs(curvature))
    assert abs(height - max(-curvature / 8, 0)) <= scale
    for method in ("integral", "midpoint", "fork", "endpoints_with_slopes"):
        assert abs(predicted[method] + curvature / 8) <= scale, method
    assert abs(predicted["endpoints"] - curvature / 8) <= scale


@pytest.fixture(scope="module")
def network():
    """A small smooth network, the same function with four of its six units mirrored, and all that is known of the chord between."""
    random = np.random.default_rng(0)
    inputs, mirror = random.normal(size=(20, 3)), np.array([1, 1, -1, -1, -1, -1])
    a, fork = ({"w": random.normal(size=(3, 6)) / 2, "b": random.normal(size=6), "v": random.normal(size=(6, 2))} for _ in range(2))
    b = {"w": a["w"] * mirror[None], "b": a["b"] * mirror, "v": a["v"] * mirror[:, None] + 0.1}
    targets = np.tanh(inputs @ a["w"] + a["b"][None]) @ a["v"]

    def loss(params, batch=None):
        del batch
        hidden = jnp.tanh(inputs @ params["w"] + params["b"][None])
        return jnp.mean((hidden @ params["v"] - targets) ** 2)

    @jax.jit
    def measure(a, b, fork):
        d = jax.tree.map(jnp.subtract, b, a)
        middle = jax.tree.map(lambda x, y: (x + y) / 2, a, b)
        product_ = HessianOperator(loss, middle, None).mv(d)
        return {
            "line": line_loss(loss, a, b, n_points=11).loss,
            "height": barrier(loss, a, b).height,
            "half": chord_integral(loss, a, b),
            "third": chord_integral(loss, a, b, at=0.3).height,
            "back": chord_integral(loss, b, a, at=0.7).height,
            "hessian": sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(d), jax.tree.leaves(product_), strict=True)),
            "curvature": chord_curvature(loss, a, b, jnp.array([0.5])),
            "fork": predict_barrier(loss, a, b, method="fork", fork=fork),
            "at_fork": directional_derivatives(loss, fork, d),
            "loss_at_fork": loss(fork),
        }

    with jax.enable_x64(True):
        return measure(*(jax.tree.map(jnp.asarray, point) for point in (a, b, fork)))


def test_o_identity_holds_for_a_smooth_network(network, double):
    line = network["line"]
    for t, name in ((0.5, "half"), (0.3, "third")):
        exact = line[round(10 * t)] - (1 - t) * line[0] - t * line[-1]
        predicted = network[name].height if name == "half" else network[name]
        assert abs(predicted - exact) <= 1e-6 * max(1, abs(exact)), name
    assert abs(network["back"] - network["third"]) <= 1e-9


def test_o_barrier_stays_below_the_bound_of_the_worst_curvature(network, double):
    assert 0 < network["height"] <= network["half"].bound and network["half"].height <= network["half"].bound


def test_one_direction_of_the_hessian_without_the_hessian(network, double):
    assert abs(network["curvature"][0] - network["hessian"]) <= 1e-10 * abs(network["hessian"])
    assert abs(network["fork"] + network["at_fork"].curvature / 8) <= ROUND_OFF * abs(network["fork"])
    assert abs(network["at_fork"].loss - network["loss_at_fork"]) <= ROUND_OFF


def test_t1_kinks_hold_curvature_that_the_integral_does_not_see():
    # -|w| between -1 and 1: a barrier of one, all of it in the kink.
    def loss(w):
        return -jax.nn.relu(w) - jax.nn.relu(-w)

    curved, seen = jax.jit(lambda *ends: (chord_integral(loss, *ends).height, barrier(loss, *ends).height))(-1.0, 1.0)
    assert curved == 0 and seen == 1


@given(st.floats(0.01, 0.99), st.integers(1, 8))
def test_the_kernel_integrates_to_half_the_parabola(at, n_nodes):
    nodes, weights = quadrature(at, n_nodes=n_nodes)
    assert np.isclose(weights.sum(), at * (1 - at) / 2, rtol=1e-12)
    assert ((nodes > 0) & (nodes < 1)).all() and (weights > 0).all()


def test_the_kernel_is_symmetric_and_zero_at_the_ends():
    kernel = np.asarray(jax.jit(barrier_kernel)(*np.meshgrid(*[np.linspace(0, 1, 11)] * 2)))
    assert np.array_equal(kernel, kernel.T) and not kernel[0].any() and not kernel[-1].any() and kernel.max() == 0.25


@pytest.fixture
def unchecked():
    """Without the type checks that only the tests have: a user meets the library's own messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_bad_input(unchecked):
    ends = jnp.zeros(2), jnp.ones(2)
    with pytest.raises(ValueError, match=r"method must be one of integral, midpoint, .*, got 'trace'"):
        predict_barrier(product, *ends, method="trace")
    with pytest.raises(ValueError, match="fork must be given for method 'fork' and for no other, got none"):
        predict_barrier(product, *ends, method="fork")
    with pytest.raises(ValueError, match="got one for 'integral'"):
        predict_barrier(product, *ends, method="integral", fork=ends[0])
    with pytest.raises(ValueError, match="at must lie between 0 and 1, got 1"):
        quadrature(1)
    with pytest.raises(ValueError, match="n_nodes must be at least 1, got 0"):
        quadrature(n_nodes=0)
    with pytest.raises(ValueError, match="same shapes"):
        chord_curvature(product, jnp.zeros(2), jnp.zeros(3), jnp.zeros(1))
    with pytest.raises(ValueError, match="baseline must be 'line', 'mean' or 'max', got 'min'"):
        barrier(product, *ends, baseline="min")


def test_leaves_that_are_no_weights_stay_where_they_are():
    def loss(net):
        return jnp.sum(net["act"](net["w"]) ** net["power"])

    start, end = ({"act": jnp.tanh, "power": 3, "w": jnp.array([w, 0.5])} for w in (-1.0, 1.5))
    found = jax.jit(lambda t: chord_curvature(loss, start, end, t))(jnp.array([0.2, 0.6]))
    plain = jax.jit(lambda t: chord_curvature(lambda w: jnp.sum(jnp.tanh(w) ** 3), start["w"], end["w"], t))(jnp.array([0.2, 0.6]))
    assert np.allclose(found, plain) and (found != 0).all()


def test_no_curvature_below_zero_bounds_the_height_by_nothing():
    found = jax.jit(lambda a, b: chord_integral(lambda w: jnp.sum(w**2), a, b))(jnp.zeros(2), jnp.ones(2))
    assert found.bound == 0 and found.height < 0
