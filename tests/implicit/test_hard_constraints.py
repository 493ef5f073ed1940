import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts

ROWS, BASIS = 12, 3
STEP = 1e-5  # of central differences, whose relative error is then about 1e-9
RANDOM = np.random.default_rng(0)
A_BASIS = RANDOM.normal(size=(ROWS, BASIS))
DIRECTION = RANDOM.normal(size=(ROWS, BASIS))
TARGET = RANDOM.normal(size=ROWS)
COTANGENT = np.array([1.0, -0.5, 2.0])


def plain(u, target):
    return u - target


class Polynomial(eqx.Module):
    """Rows a u + b u² + c u³ - target."""

    coefficients: jax.Array

    def __call__(self, u, target):
        a, b, c = self.coefficients
        return a * u + b * u**2 + c * u**3 - target


CUBIC, LINEAR, SQUARE = (1.0, 0.0, 0.3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@eqx.filter_jit
def pull(derivative, basis, coefficients, target, start, max_steps):
    """What is found, and the gradient of its weights against a cotangent in the basis and in the coefficients: one program for all."""

    def of(inputs):
        constraint = HardConstraint(Polynomial(inputs[1]), start=start, rtol=1e-13, atol=1e-13, max_steps=max_steps, derivative=derivative)
        found = constraint(inputs[0], target)
        return found.weights @ COTANGENT, found

    (value, found), slopes = jax.value_and_grad(of, has_aux=True)((basis, coefficients))
    return value, found, slopes


def solve(target, coefficients=CUBIC, *, place=0.0, derivative="exact", start=1.0, max_steps=300):
    numbers = (jax.device_put(A_BASIS + place * DIRECTION), jax.device_put(coefficients), jax.device_put(target), jax.device_put(start))
    value, found, slopes = pull(derivative, *numbers, jnp.asarray(max_steps))
    return float(value), found, slopes


def along(target, derivative="exact"):
    """The derivative along a direction of the basis."""
    return float(np.sum(np.asarray(solve(target, derivative=derivative)[2][0]) * DIRECTION))


def differences(target):
    return (solve(target, place=STEP)[0] - solve(target, place=-STEP)[0]) / (2 * STEP)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3), st.lists(st.integers(1, 3), max_size=2))
def test_oracle_unsplit_is_the_exact_inverse_of_split(axes, rest):
    partition = BlockPartition(tuple(parts for parts, _ in axes))
    x = np.random.default_rng(0).normal(size=(*(parts * size for parts, size in axes), *rest))
    blocks = partition.split(x)
    assert blocks.shape == (partition.n_blocks, *(size for _, size in axes), *rest)
    assert (partition.unsplit(blocks) == x).all()


def test_oracle_a_block_covers_its_range_of_coordinates():
    t, x = np.meshgrid(np.arange(4), np.arange(12), indexing="ij")
    times, places = (BlockPartition((2, 3)).split(coordinate) for coordinate in (t, x))
    for k in range(6):
        assert set(times[k].ravel()) == {2 * (k // 3), 2 * (k // 3) + 1}
        assert set(places[k].ravel()) == set(range(4 * (k % 3), 4 * (k % 3) + 4))


def test_oracle_a_linear_problem_takes_two_steps_to_its_least_squares_solution():
    _, found, _ = solve(TARGET, LINEAR)
    with_ridge = np.concatenate([A_BASIS, 1e-4 * np.eye(BASIS)]), np.concatenate([TARGET, np.zeros(BASIS)])
    exact, *_ = np.linalg.lstsq(*with_ridge, rcond=None)
    np.testing.assert_allclose(found.weights, exact, rtol=1e-12)
    assert found.is_converged and found.n_steps <= 2
    np.testing.assert_allclose(found.residual_norm, np.linalg.norm(A_BASIS @ exact - TARGET), rtol=1e-12)


def test_oracle_derivative_against_differences_where_a_residual_is_left():
    _, found, (_, in_coefficients) = solve(TARGET)
    assert found.is_converged and found.residual_norm > 1
    assert abs(along(TARGET) / differences(TARGET) - 1) < 1e-5
    # Coefficients that the residual holds have derivatives too.
    for i, step in enumerate(STEP * np.eye(3)):
        slope = (solve(TARGET, CUBIC + step)[0] - solve(TARGET, CUBIC - step)[0]) / (2 * STEP)
        assert abs(float(in_coefficients[i]) / slope - 1) < 1e-5


def test_oracle_derivative_against_that_of_the_unrolled_search():
    start = solve(TARGET)[1].weights
    a, b, c = CUBIC

    def unrolled(place):
        basis = jnp.asarray(A_BASIS) + place * jnp.asarray(DIRECTION)

        def step(weights, _):
            u = basis @ weights
            g, jacobian = a * u + b * u**2 + c * u**3 - TARGET, (a + 2 * b * u + 3 * c * u**2)[:, None] * basis
            matrix = jacobian.T @ jacobian + 1e-8 * jnp.eye(BASIS)
            return weights - jnp.linalg.solve(matrix, jacobian.T @ g + 1e-8 * weights), None

        return jax.lax.scan(step, start, length=200)[0] @ COTANGENT

    assert abs(along(TARGET) / float(jax.jit(jax.jacfwd(unrolled))(0.0)) - 1) < 1e-8


def test_oracle_pseudo_inverse_is_right_where_no_residual_is_left():
    u = A_BASIS @ np.array([0.5, -1.0, 0.7])
    reached = u + 0.3 * u**3
    assert solve(reached)[1].residual_norm < 1e-6
    exact = along(reached)
    # The ridge alone keeps a residual, of the order of its square.
    assert abs(along(reached, "pseudo-inverse") / exact - 1) < 1e-6
    assert abs(exact / differences(reached) - 1) < 1e-5


def test_oracle_pseudo_inverse_is_wrong_where_a_residual_is_left():
    assert abs(along(TARGET, "pseudo-inverse") / along(TARGET) - 1) > 0.01


@pytest.mark.parametrize("derivative", ["exact", "pseudo-inverse"])
def test_a_large_ridge_counts_in_the_solution_and_its_derivative_in_the_data(derivative):
    constraint = HardConstraint(plain, ridge=0.5, rtol=1e-12, atol=1e-12, derivative=derivative)
    basis = jax.device_put(A_BASIS)
    weights, slope, norm = jax.jit(
        lambda target: (
            constraint(basis, target).weights,
            jax.jacrev(lambda t: constraint(basis, t).weights)(target),
            constraint(basis, target).residual_norm,
        )
    )(jax.device_put(TARGET))
    exact = np.linalg.solve(A_BASIS.T @ A_BASIS + 0.25 * np.eye(BASIS), A_BASIS.T)
    np.testing.assert_allclose(slope, exact, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weights, exact @ TARGET, rtol=1e-10)
    # Without the ridge's own part.
    np.testing.assert_allclose(norm, np.linalg.norm(A_BASIS @ (exact @ TARGET) - TARGET), rtol=1e-10)


def test_weights_of_zero_are_found_within_the_absolute_tolerance():
    found = HardConstraint(plain, rtol=1e-4, atol=1e-6)(jax.device_put(A_BASIS), jnp.zeros(ROWS))
    assert found.is_converged and found.n_steps <= 3 and np.abs(found.weights).max() < 1e-6


def residual_of_parts(fields, data):
    return Polynomial(jnp.asarray(CUBIC))(fields.local, data.local), fields.shared - data.shared


def mixture_of(blocks):
    return MixtureOfConstraints(HardConstraint(residual_of_parts, rtol=1e-13, atol=1e-13, max_steps=300), BlockPartition((blocks,)))


EDGES = DIRECTION[:4]


def test_oracle_one_block_is_the_single_constraint():
    mixture = mixture_of(1)

    @jax.jit
    def both(basis, edges, target):
        data = Parts(target, jnp.ones(4))
        found = mixture(Parts(basis, edges), data, jnp.arange(ROWS)[None])
        return found.weights, mixture.assemble(basis, found.weights), mixture.constraint(Parts(basis, edges), data).weights

    weights, whole, alone = both(jax.device_put(A_BASIS), jax.device_put(EDGES), jax.device_put(TARGET))
    np.testing.assert_allclose(weights[0], alone, rtol=1e-12)
    np.testing.assert_allclose(whole, A_BASIS @ alone, rtol=1e-12)


def test_blocks_are_solved_apart_and_put_side_by_side():
    mixture, points = mixture_of(2), jnp.asarray([[0, 2, 3, 5], [5, 4, 1, 0]])

    @jax.jit
    def of(basis, targets):
        def first(basis, target):
            found = mixture(Parts(basis, jnp.asarray(EDGES)), Parts(target, jnp.ones(4)), points)
            return found.weights[0] @ COTANGENT, (found, mixture.assemble(basis, found.weights))

        return jax.vmap(jax.value_and_grad(first, has_aux=True), in_axes=(None, 0))(basis, targets)

    (_, (found, whole)), gradient = of(jax.device_put(A_BASIS), jax.device_put(np.stack([TARGET, 2 * TARGET])))
    assert found.weights.shape == (2, 2, BASIS) and found.is_converged.all() and found.n_failures == 0
    weights = np.asarray(found.weights)
    np.testing.assert_allclose(whole[0, :6], A_BASIS[:6] @ weights[0, 0], rtol=1e-12)
    np.testing.assert_allclose(whole[1, 6:], A_BASIS[6:] @ weights[1, 1], rtol=1e-12)
    # Derivatives are local: neither the other block nor a point that was not drawn has any.
    gradient = np.asarray(gradient)
    assert not gradient[:, 6:].any() and not gradient[:, [1, 4]].any() and gradient[:, 0].any()


def test_trap_a_start_where_the_slope_vanishes_stays_there():
    target = (A_BASIS @ np.array([0.9, 1.2, 1.1])) ** 2
    dead, alive = (solve(target, SQUARE, start=start)[1] for start in (0.0, 1.0))
    assert not np.asarray(dead.weights).any() and dead.residual_norm > 1
    np.testing.assert_allclose(alive.weights, [0.9, 1.2, 1.1], rtol=1e-6)


def test_trap_single_precision_is_refused_below_what_it_can_reach():
    basis = jnp.asarray(A_BASIS, jnp.float32)
    with pytest.raises(ValueError, match=r"rtol must be at least 0\.0001 for terms of float32, got 1e-06: use double precision"):
        HardConstraint(plain, rtol=1e-6)(basis, jnp.asarray(TARGET, jnp.float32))


def test_trap_points_are_drawn_without_repetition_and_anew_with_each_key():
    partition = BlockPartition((1, 2))
    draw = jax.jit(lambda key: partition.sample((4, 6), 9, key=key))
    first, second = (np.asarray(draw(jax.random.key(seed))) for seed in (0, 1))
    assert first.shape == (2, 9) and all(len(set(rows)) == 9 and max(rows) < 12 for rows in first)
    assert (first != second).any() and (first[0] != first[1]).any()


@pytest.mark.parametrize("throw", [True, False])
def test_a_basis_that_diverged_raises_or_gives_a_gradient_that_can_be_skipped(throw):
    constraint = HardConstraint(plain, throw=throw)

    @eqx.filter_jit
    def slope(basis):
        return jax.grad(lambda basis: jnp.sum(constraint(basis, TARGET).weights))(basis)

    assert np.isfinite(slope(jnp.asarray(A_BASIS))).all()
    diverged = jnp.asarray(A_BASIS).at[0, 0].set(jnp.inf)
    if throw:
        with pytest.raises(RuntimeError, match="non-finite"):
            jax.block_until_ready(slope(diverged))
    else:
        assert not np.isfinite(slope(diverged)).all()


def test_trap_a_solve_that_ends_too_early_says_so():
    _, found, _ = solve(TARGET, max_steps=1)
    assert not found.is_converged and found.n_failures == 1 and found.n_steps == 1 and np.isfinite(found.weights).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HardConstraint(plain, ridge=-1.0), r"ridge must be at least 0 and finite, got -1\.0"),
        (lambda: HardConstraint(plain, rtol=math.nan), "rtol must be at least 0, got nan"),
        (lambda: HardConstraint(plain, max_steps=0), "max_steps must be at least 1, got 0"),
        (lambda: HardConstraint(plain, ridge=0.0)(np.ones((2, 3)), np.ones(2)), "at least 3 rows, one for each basis function, got 2"),
        (
            lambda: HardConstraint(lambda f, _: f[0])((np.ones((4, 3)), np.ones((4, 2)))),
            r"same number of basis functions along their last axes, at least 1, got \[2, 3\]",
        ),
        (lambda: BlockPartition(()), r"at least one number of parts, each at least 1, got \(\)"),
        (lambda: BlockPartition((1, 4)).split(np.ones((3, 6))), "axis 1 has 6 points, not a multiple of 4"),
        (lambda: BlockPartition((1, 2)).split(np.ones(6)), r"the 2 axes of splits \(1, 2\) first, got shape \(6,\)"),
        (
            lambda: BlockPartition((2,)).unsplit(np.ones((3, 2))),
            r"must have 2 of them first and then 1 axes of the grid, got shape \(3, 2\)",
        ),
        (
            lambda: BlockPartition((2,)).sample((8,), 5, key=jax.random.key(0)),
            r"n_points must lie in \[1, 4\], the points of a block, got 5",
        ),
        (
            lambda: MixtureOfConstraints(HardConstraint(plain), BlockPartition((2,)))(Parts(A_BASIS), Parts(TARGET), jnp.arange(6)[None]),
            r"points must have one row for each of the 2 blocks, got shape \(1, 6\)",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
