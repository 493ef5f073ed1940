import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.transport import (
    SQUARED_EUCLIDEAN,
    Euclidean,
    Geodesic,
    PNorm,
    cost_matrix,
    exact_monge_gap,
    mean_cost,
    monge_gap,
    monge_gap_from_samples,
    sinkhorn_divergence,
)

ROUND_OFF = 1e-5  # of costs of order one in single precision
FOLD, RINGS = 12, 20
N = FOLD * RINGS
GEODESIC = Geodesic()


def turn(degrees, dim=2):
    angle = np.radians(degrees)
    matrix = np.eye(dim)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def single(x):
    return jax.device_put(np.asarray(x, np.float32))


def rings(dim=2):
    """Points that a turn by 30° maps to themselves: in the plane with the radii of a standard normal law, or evenly on the sphere."""
    places = (np.arange(RINGS) + 0.5) / RINGS
    # A different start for each ring, else points of several rings lie on one ray; on the sphere the same for opposite ones.
    number = np.arange(RINGS) if dim == 2 else np.minimum(np.arange(RINGS), RINGS - 1 - np.arange(RINGS))
    angles = 2 * np.pi * np.arange(FOLD)[None] / FOLD + 2.4 * number[:, None]
    if dim == 2:
        radii = np.sqrt(-2 * np.log(1 - places))
        radii *= np.sqrt(2 / (radii**2).mean())
        return (radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).reshape(N, 2)
    z = 2 * places - 1
    flat = np.sqrt(1 - z**2)[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.concatenate([flat, np.broadcast_to(z[:, None, None], (RINGS, FOLD, 1))], axis=-1).reshape(N, 3)


def exact(x, y, cost=SQUARED_EUCLIDEAN):
    return exact_monge_gap(x, y, cost=cost).value


def normal(n=N, dim=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim))


def of_convex(x):
    """The gradient of zᵀAz/2 + log Σ exp(Bz)."""
    A, B = np.array([[1.5, 0.3], [0.3, 0.6]]), np.array([[2.0, 1.0], [-2.0, 0.5], [0.0, -2.0]])
    weights = np.exp(x @ B.T)
    return x @ A.T + weights / weights.sum(axis=1, keepdims=True) @ B


@pytest.mark.parametrize(("degrees", "value"), [(30, 0.535898), (90, 4.0), (180, 8.0)])
def test_o1_a_turn_of_a_normal_law(degrees, value):
    x = rings()
    assert abs(exact(single(x), single(x @ turn(degrees).T)) - value) < ROUND_OFF * 10


def test_o1_a_linear_map_of_a_normal_law():
    # Twice the nuclear norm less the trace; on a sample a few percent less.
    A = np.array([[1.0, 2.0], [0.0, 0.5]])
    x = normal(700)
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T
    expected = 2 * (np.linalg.svd(A, compute_uv=False).sum() - np.trace(A))
    assert abs(expected - 2) < 1e-12
    assert 0.88 * expected < exact(single(x), single(x @ A.T)) < 1.02 * expected


def test_o1_a_linear_map_of_a_normal_law_that_is_not_round():
    # E‖x - Ax‖² less the Bures distance of the covariances.
    A, C = np.array([[0.5, 1.5], [-1.0, 0.8]]), np.array([[2.0, 0.7], [0.7, 0.5]])
    x = normal(700)
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T @ np.linalg.cholesky(C).T
    values, axes = np.linalg.eigh(C)
    half, image = (axes * np.sqrt(values)) @ axes.T, A @ C @ A.T
    bures = np.trace(C + image) - 2 * np.sqrt(np.linalg.eigvalsh(half @ image @ half)).sum()
    expected = np.trace((np.eye(2) - A) @ C @ (np.eye(2) - A).T) - bures
    assert 0.88 * expected < exact(single(x), single(x @ A.T)) < 1.02 * expected


def test_o2_optimal_maps_have_no_gap():
    x = normal()
    for y in (x, x + np.array([[3.0, -1.0]]), 0.2 * x, of_convex(x)):
        assert abs(exact(single(x), single(y))) < ROUND_OFF


@pytest.mark.parametrize("cost", [SQUARED_EUCLIDEAN, Euclidean(), PNorm(1.5), PNorm(4.0)], ids=["l2²", "l2", "l1.5", "l4"])
def test_o2_increasing_maps_of_a_line_have_no_gap_whatever_the_convex_cost(cost):
    x = np.sort(normal(100, 1), axis=0)
    assert abs(exact(single(x), single(x**3 + x - 2), cost=cost)) < ROUND_OFF


def test_o3_a_line_turned_round():
    x = (np.arange(100) + 0.5)[:, None] / 100
    found = exact(single(x), single(1 - x))
    assert abs(found - ((1 - 2 * x) ** 2).mean()) < ROUND_OFF and abs(found - 1 / 3) < 1e-4


def test_o3_points_sent_to_their_opposites_under_the_distance():
    x = rings()
    found = exact(single(x), single(-x), cost=Euclidean())
    assert abs(found - 2 * np.linalg.norm(x, axis=1).mean()) < ROUND_OFF and abs(found - 2.506628) < 0.02


@pytest.mark.parametrize(("degrees", "value"), [(30, 0.410046), (90, 1.198144), (180, 2.0)])
def test_o4_a_turn_of_the_sphere(degrees, value):
    x = rings(3)
    found = exact(single(x), single(x @ turn(degrees, 3).T), cost=GEODESIC)
    flat = 1 - x[:, 2] ** 2
    assert abs(found - np.arccos(1 - (1 - np.cos(np.radians(degrees))) * flat).mean()) < ROUND_OFF
    assert abs(found - value) < 4e-3 * value  # the midpoint rule over the rings


def test_o4_opposites_and_meridians_of_the_sphere():
    x = rings(3)
    assert abs(exact(single(x), single(-x), cost=GEODESIC) - np.pi) < ROUND_OFF
    polar, azimuth = np.arccos(x[:, 2]), np.arctan2(x[:, 1], x[:, 0])
    # Towards the south along each meridian, the order along it kept.
    polar = polar + 0.3 * np.sin(polar)
    y = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1)
    assert abs(exact(single(x), single(y), cost=GEODESIC)) < ROUND_OFF


@settings(max_examples=40)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-3, 3))
def test_o5_scaling_and_shifts(seed, scale, shift):
    x, y = normal(40, 2, seed), normal(40, 2, seed + 5000)
    gap = exact(single(x), single(y))
    assert gap >= 0
    tolerance = ROUND_OFF * (1 + gap)
    assert abs(exact(single(scale * x), single(scale * y)) - scale**2 * gap) < 10 * tolerance * scale**2
    moved = np.array([[shift, -shift]])
    assert abs(exact(single(x), single(y + moved)) - gap) < 30 * tolerance
    assert abs(exact(single(x + moved), single(y + moved)) - gap) < 30 * tolerance


@pytest.fixture(scope="module")
def gaps():
    """Entropic gaps of many pairs of 64 points, one program for all ε."""

    @jax.jit
    def of(x, ys, epsilon):
        return jax.lax.map(lambda y: monge_gap_from_samples(x, y, epsilon=epsilon, tolerance=1e-5, max_iterations=10_000), ys)

    return lambda x, ys, epsilon: of(single(x), single(np.stack(ys)), jnp.float32(epsilon))


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 1.0])
def test_o6_convex_in_the_images(gaps, epsilon):
    x = normal(64)
    ends = np.stack([normal(64, 2, seed) for seed in range(1, 41)])
    # Near one another too, where a fault would show first.
    ends[20:] = ends[20:21] + 0.05 * (ends[20:] - ends[20:21])
    first, second = ends[0::2], ends[1::2]
    ys = np.concatenate([first, second, (first + second) / 2])
    values = gaps(x, ys, epsilon).value if epsilon else np.array([exact(single(x), single(y)) for y in ys])
    first, second, middle = np.asarray(values).reshape(3, -1)
    assert (middle <= (first + second) / 2 + ROUND_OFF).all()


def test_o7_the_entropic_gap_of_an_optimal_map_is_not_zero(gaps):
    x = normal(64)
    for epsilon in (0.003, 0.05, 1.0):
        floor = epsilon * np.log(64)
        found = float(gaps(x, [x], epsilon).value[0])
        assert found >= floor - ROUND_OFF
        if epsilon == 0.003:
            assert found < 1.1 * floor


def test_o7_the_exact_gap_is_the_limit_of_little_entropy(gaps):
    x = normal(64)
    y = x @ turn(50).T
    limit = exact(single(x), single(y))
    found = gaps(x, [y], 0.003)
    assert abs(float(found.value[0]) - 0.003 * np.log(64) - limit) < 0.02 * limit
    assert abs(float(found.primal[0]) - limit) < 0.02 * limit and found.primal[0] < limit + 1e-3


def test_o7_conventions_differ_by_constants():
    x = single(normal(64))

    @jax.jit
    def of(y):
        return {
            name: monge_gap_from_samples(x, y, epsilon=0.1, convention=name, tolerance=1e-5, max_iterations=10_000)
            for name in ("entropy", "kl", "debiased")
        }

    found = of(x @ single(turn(50)).T)
    assert abs(float(found["entropy"].value - found["kl"].value) - 2 * 0.1 * np.log(64)) < ROUND_OFF
    assert all(gap.is_converged for gap in found.values())
    assert abs(float(of(x)["debiased"].value)) < ROUND_OFF


@pytest.mark.parametrize("cost", [Euclidean(), PNorm(1.5), PNorm(3.0)], ids=["l2", "l1.5", "l3"])
def test_o8_gradient_against_differences(double, cost):
    x, y = jax.device_put(normal(24)), jax.device_put(normal(24, 2, 1))
    direction = jnp.asarray(normal(24, 2, 2))

    def gap(y, cost):
        return monge_gap_from_samples(x, y, epsilon=0.3, cost=cost, tolerance=1e-9, max_iterations=5000).value

    along = jax.jit(jax.value_and_grad(lambda t: gap(y + t * direction, cost)))
    slope = along(0.0)[1]
    differences = (along(1e-4)[0] - along(-1e-4)[0]) / 2e-4
    assert abs(slope - differences) < 1e-5 * abs(differences)


@pytest.mark.parametrize("convention", ["entropy", "debiased"])
def test_trap_a_second_derivative_is_refused(convention):
    x = jax.device_put(np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32))
    with pytest.raises(NotImplementedError, match="can be differentiated once"):
        jax.hessian(lambda shear: monge_gap(lambda z: z + shear * z[::-1], x, epsilon=0.5, convention=convention).value)(jnp.array(0.3))


def test_trap_both_terms_have_a_gradient():
    """At an optimal map they cancel, all but the entropy's share: with only one detached they would not."""
    x = single(normal(64))

    def gap(y):
        found = monge_gap_from_samples(x, y, epsilon=0.003)
        return found.value, found.displacement

    (_, _), slope = jax.jit(jax.value_and_grad(gap, has_aux=True))(x + 1)
    assert np.abs(slope).max() < 0.05 * np.abs(2 * np.ones(2) / 64).max()


def test_trap_the_scale_of_epsilon_has_no_gradient():
    x, y = single(normal(32)), single(normal(32, 2, 1))
    assert not np.asarray(jax.grad(lambda y: mean_cost(SQUARED_EUCLIDEAN, x, y))(y)).any()


def test_trap_few_points_in_many_dimensions_hide_a_wrong_map():
    # A rotation in half of the planes: 16 (1 - cos 90°) × 2 for the law.
    gaps = []
    for n in (16, 256):
        x = normal(n, 32, 3)
        y = np.concatenate([-x[:, 1:16:2], x[:, 0:16:2], x[:, 16:]], axis=1)
        gaps.append(exact(single(x), single(y)))
    assert gaps[0] < 0.75 * gaps[1] < 0.75 * 32


angle_and_slope = jax.jit(jax.value_and_grad(GEODESIC))


@pytest.mark.parametrize("place", [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [np.cos(1e-4), np.sin(1e-4), 0.0]])
def test_trap_the_angle_is_exact_at_its_ends_and_has_a_finite_gradient(place):
    x, y = single([1.0, 0.0, 0.0]), single(place)
    value, slope = angle_and_slope(x, y)
    expected = np.arctan2(place[1], place[0])
    assert np.abs(value - expected) < 1e-6 and np.isfinite(slope).all()


@pytest.mark.parametrize("cost", [Euclidean(), PNorm(1.0), PNorm(1.5)], ids=["l2", "l1", "l1.5"])
def test_trap_coinciding_points_have_a_sub_gradient_of_zero(cost):
    x = single([1.0, -2.0])
    assert not np.asarray(jax.jit(jax.grad(cost))(x, x)).any()


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_trap_the_gap_of_a_map_that_moves_no_point_or_along_one_axis_has_a_finite_gradient(p):
    x = single(normal(32))
    slope = jax.jit(jax.grad(lambda y: monge_gap_from_samples(x, y, epsilon=0.1, cost=PNorm(p)).value))
    # Every point on its own image; then half of them beside it, one coordinate kept.
    for y in (x, x.at[::2, 0].add(0.5)):
        assert np.isfinite(slope(y)).all() and np.abs(slope(y)).max() > 0


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_a_power_and_its_conjugate_are_legendre_transforms(double, p):
    cost, slopes = PNorm(p), np.array([-2.3, -0.4, 0.0, 0.05, 1.0, 1.7])
    z = np.linspace(-6, 6, 240_001)
    # h*(s) = max s z - h(z), on a grid so fine that the place of the maximum is known to 1e-4.
    heights = slopes[:, None] * z[None] - np.abs(z)[None] ** p / p
    q = p / (p - 1)
    np.testing.assert_allclose(heights.max(axis=1), np.abs(slopes) ** q / q, atol=1e-8)
    places = np.asarray(jax.jit(cost.conjugate_gradient)(jnp.asarray(slopes)))
    np.testing.assert_allclose(places, z[heights.argmax(axis=1)], atol=1e-4)
    back = jax.jit(jax.grad(cost))(jnp.asarray(places), jnp.zeros(len(places)))
    np.testing.assert_allclose(back, slopes, atol=1e-12)


def test_any_function_of_two_points_is_a_cost():
    x, y = single(normal(16)), single(normal(16, 2, 1))
    both = jax.jit(lambda x, y: [cost_matrix(cost, x, y) for cost in (lambda a, b: jnp.abs(a - b).sum(), SQUARED_EUCLIDEAN)])
    found, squared = both(x, y)
    difference = np.asarray(x)[:, None] - np.asarray(y)[None]
    np.testing.assert_allclose(found, np.abs(difference).sum(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(squared, (difference**2).sum(axis=-1), rtol=1e-4, atol=1e-5)


@jax.tree_util.register_pytree_node_class
class LikeOtt:
    """In form one of `ott.geometry.costs`, PNormP: a pytree that is called with two points, and has methods that nobody asks for."""

    def __init__(self, p):
        self.p = p

    def h(self, z):
        return jnp.sum(jnp.abs(z) ** self.p) / self.p

    def __call__(self, x, y):
        return self.h(x - y)

    def all_pairs(self, x, y):
        raise AssertionError

    def tree_flatten(self):
        return (), (self.p,)

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*aux)


def test_a_cost_of_the_form_of_ott_is_one_of_ours():
    x, y = single(normal(16)), single(normal(16, 2, 1))
    both = [(monge_gap_from_samples(x, y, epsilon=0.3, cost=cost).value, exact(x, y, cost=cost)) for cost in (LikeOtt(3.0), PNorm(3.0))]
    np.testing.assert_allclose(*both, rtol=1e-5)


def test_a_debiased_gap_is_what_the_displacement_costs_beyond_the_divergence():
    x, y = single(normal(24)), single(normal(24, 2, 1))

    @jax.jit
    def both(x, y):
        how = {"epsilon": 0.5, "cost": Euclidean(), "tolerance": 1e-5, "max_iterations": 10_000}
        return monge_gap_from_samples(x, y, convention="debiased", **how), sinkhorn_divergence(x, y, **how)

    gap, divergence = both(x, y)
    displacement = np.linalg.norm(np.asarray(x) - np.asarray(y), axis=1).mean()
    np.testing.assert_allclose(gap.displacement, displacement, rtol=1e-6)
    np.testing.assert_allclose(gap.value, displacement - divergence.value, atol=ROUND_OFF)
    assert gap.is_converged


def test_trap_a_gap_that_is_not_solved_says_so_and_its_primal_has_no_gradient():
    x, y = single(normal()), single(2 * normal(N, 2, 1))

    @jax.jit
    @jax.value_and_grad
    def primal(y):
        gap = monge_gap_from_samples(x, y, epsilon=1e-4, max_iterations=100)
        return jnp.where(gap.is_converged, jnp.nan, gap.primal)

    value, slope = primal(y)
    assert np.isfinite(value) and not np.asarray(slope).any()


def test_costs_by_blocks_are_those_of_all_at_once(monkeypatch):
    x, y = single(normal(7)), single(normal(7, 2, 1))
    whole = exact_monge_gap(x, y, cost=PNorm(3.0))
    for block in (1, 2 * 7 * 2):
        monkeypatch.setattr(importlib.import_module(exact_monge_gap.__module__), "LARGEST_BLOCK", block)
        found = exact_monge_gap(x, y, cost=PNorm(3.0))
        assert found.value == whole.value and (found.assignment == whole.assignment).all()


def test_samples_that_are_no_pairs_are_refused():
    x, y = single(normal(4)), single(normal(3))
    for of in (lambda: monge_gap_from_samples(x, y, epsilon=0.1), lambda: exact(x, y)):
        with pytest.raises(ValueError, match="y must hold the image of each point of x, got 3 images of 4 points"):
            of()


def test_what_cannot_be_is_refused():
    x = single(normal(4))
    with pytest.raises(ValueError, match=r"epsilon must be positive and finite, got -0\.1"):
        monge_gap(lambda z: z, x, epsilon=-0.1)
    with pytest.raises(ValueError, match="max_iterations must be at least 100, got 5"):
        monge_gap(lambda z: z, x, epsilon=0.1, max_iterations=5)
    with pytest.raises(ValueError, match=r"p must be at least 1 and finite, got 0\.5"):
        PNorm(0.5)
    with pytest.raises(ValueError, match="p must be above 1 for a map by a potential, got 1"):
        PNorm(1.0).conjugate_gradient(x[0])
    with pytest.raises(ValueError, match="costs must be finite, got 4 that are not"):
        exact(x.at[0, 0].set(jnp.nan), x)


def test_an_unknown_convention_is_refused():
    # Its annotation refuses it first where types are checked.
    with pytest.raises(Exception, match=r"convention|Literal"):
        monge_gap(lambda z: z, single(normal(4)), epsilon=0.1, convention="primal")
