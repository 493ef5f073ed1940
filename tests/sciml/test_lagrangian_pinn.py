"""Exact solutions in place of networks, then what holds for any weights."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from gradatim.sciml import (
    ConvectionDiffusion,
    EulerianPINN,
    Jet,
    LagrangianPINN,
    Losses,
    LossWeights,
    Points,
    burgers,
    collocation_grid,
    reference_burgers,
)

PERIOD, NU, SPEED = 2 * math.pi, 0.01, 30.0
ROUND_OFF = 1e-11
"Of residuals whose terms are of order 30 in double precision."


class Exact(eqx.Module):
    """A stand-in for a network: a function of place and time with its derivatives."""

    function: object

    def __call__(self, x, t):
        return self.function(x, t)

    def jet(self, x, t):
        one = jnp.ones_like(x)

        def by_x(x):
            return jax.jvp(lambda x: self.function(x, t), (x,), (one,))[1]

        return Jet(*jax.jvp(lambda t: self.function(x, t), (t,), (one,)), *jax.jvp(by_x, (x,), (one,)))


def lagrangian(problem, path=None, state=None, **options):
    """A small model, or one whose displacement and state are known."""
    model = LagrangianPINN(problem, width=5, depth_path=1, depth_state=2, key=jax.random.key(3), **options)
    return model if path is None else eqx.tree_at(lambda m: (m.path, m.state), model, (Exact(path), Exact(state)))


def carried(speed):
    return ConvectionDiffusion(speed, NU, jnp.sin, PERIOD)


def dying(x, t):
    return jnp.exp(-NU * t) * jnp.sin(x)


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def points():
    with jax.enable_x64(True):
        return collocation_grid(9, 5, period=PERIOD, horizon=1.0)


@pytest.fixture(scope="module")
def residuals():
    return eqx.filter_jit(lambda model, points: (model.residuals(points), model.losses(points)))


@pytest.mark.parametrize("diffusion", ["physical", "label"])
def test_exact_paths_and_state_of_convection_leave_nothing_in_either_form(residuals, points, diffusion):
    model = lagrangian(carried(SPEED), lambda x, t: SPEED * t, dying, diffusion=diffusion)
    found, losses = residuals(model, points)
    assert np.abs(found.path).max() < ROUND_OFF and np.abs(found.state).max() < ROUND_OFF and not np.asarray(found.is_crossed).any()
    assert float(losses.weighted(LossWeights())) < ROUND_OFF**2


def test_the_exact_state_in_fixed_coordinates_leaves_nothing(residuals, points):
    model = EulerianPINN(carried(SPEED), width=3, depth=1, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: m.state, model, Exact(lambda x, t: jnp.exp(-NU * t) * jnp.sin(x - SPEED * t)))
    assert np.abs(residuals(model, points)[0]).max() < ROUND_OFF


def test_inviscid_burgers_before_the_shock_and_where_its_paths_meet(residuals, points):
    model = lagrangian(burgers(0.0, jnp.sin), lambda x, t: t * jnp.sin(x), lambda x, t: jnp.sin(x) + 0 * t)
    found, _ = residuals(model, points)
    assert np.abs(found.path).max() < ROUND_OFF and np.abs(found.state).max() < ROUND_OFF
    x, t = np.array([0.3, math.pi, math.pi, math.pi]), np.array([0.5, 0.5, 1.0, 1.2])
    assert np.allclose(eqx.filter_jit(model.jacobian)(x, t), 1 + t * np.cos(x), atol=1e-14)
    assert residuals(model, Points(*map(jnp.asarray, (x, t, x[:1]))))[0].is_crossed.tolist() == [False, False, True, True]


def label_path(x, t):
    return jnp.sin(x) * -jnp.expm1(-NU * t) / NU


def test_the_closed_solution_of_the_label_form_is_none_of_the_physical_one(residuals, points):
    closed = partial(lagrangian, burgers(NU, jnp.sin), label_path, dying)
    by_label, _ = residuals(closed(diffusion="label"), points)
    by_place, _ = residuals(closed(), points)
    assert np.abs(by_label.path).max() < ROUND_OFF and np.abs(by_label.state).max() < ROUND_OFF
    assert np.abs(by_place.path).max() < ROUND_OFF and np.abs(by_place.state).max() > 0.1


def test_the_bias_of_the_label_form_against_the_true_equation():
    x = jax.device_put(PERIOD * np.arange(512) / 512)
    model = lagrangian(burgers(NU, jnp.sin), label_path, dying, diffusion="label")

    @eqx.filter_jit
    def errors(model):
        reference = reference_burgers(jnp.sin(x), x[:1], diffusivity=NU, horizon=1.0, n_snapshots=20, steps_between=25)
        by_place = model.evaluate(x, reference.t, n_labels=4096) - reference.field
        X, W = model.characteristics(PERIOD * jnp.arange(4096) / 4096, reference.t)
        by_label = jax.vmap(lambda X, field: jnp.interp(X, x, field, period=PERIOD))(X, reference.field) - W
        norms = [jnp.linalg.norm(a, axis=1) / jnp.linalg.norm(b, axis=1) for a, b in ((by_place, reference.field), (by_label, W))]
        return norms, model.jacobian(jnp.array([math.pi]), jnp.array([1.0]))

    found, jacobian = errors(model)
    by_place, by_label = (np.asarray(error)[[5, 10, 15, 18, 20]] for error in found)
    assert np.allclose(by_label, [5.2e-4, 3.0e-3, 1.4e-2, 4.5e-2, 0.137], rtol=0.04)
    # Labels crowd at the front, where the error is: over places it is a third.
    assert np.allclose(by_place, [5.0e-4, 2.46e-3, 8.6e-3, 2.05e-2, 4.27e-2], rtol=0.02)
    # Paths all but meet at t = 1, for labels drawn together by a factor of 200.
    assert 0 < np.asarray(jacobian)[0] < 0.01


def test_galilean_frames_of_burgers_leave_the_same(residuals, points):
    model, c = lagrangian(burgers(NU, jnp.sin)), 7.0
    path, state = model.path, model.state
    moving = lagrangian(burgers(NU, jnp.sin, mean=c), lambda x, t: path(x, t) + c * t, lambda x, t: state(x, t) + c)
    (here, losses), (there, losses_there) = residuals(model, points), residuals(moving, points)
    assert np.allclose(here.path, there.path, atol=ROUND_OFF) and np.allclose(here.state, there.state, atol=ROUND_OFF)
    assert np.allclose(losses, losses_there, atol=ROUND_OFF)


def test_an_offset_is_the_galilean_frame_of_a_state(residuals, points):
    here, c = lagrangian(burgers(NU, jnp.sin)), 7.0
    there = lagrangian(burgers(NU, jnp.sin, mean=c), offset=c)
    there = eqx.tree_at(lambda m: m.path, there, Exact(lambda x, t: here.path(x, t) + c * t))
    (left, losses), (left_there, losses_there) = residuals(here, points), residuals(there, points)
    assert np.allclose(left.path, left_there.path, atol=ROUND_OFF) and np.allclose(left.state, left_there.state, atol=ROUND_OFF)
    assert np.allclose(losses, losses_there, atol=ROUND_OFF)
    # The state alone in fixed coordinates: with the offset it is the network's, read anywhere, raised.
    fixed = [EulerianPINN(burgers(NU, jnp.sin, mean=m), width=3, depth=1, offset=m, key=jax.random.key(0)) for m in (0.0, c)]
    x, t = np.linspace(0, 1, 3), np.array([0.0, 0.5])
    fields, jets, starts = zip(*(found(model, x, t) for model in fixed), strict=True)
    assert np.allclose(fields[0] + c, fields[1]) and np.allclose(jets[0].value + c, jets[1].value) and np.allclose(*starts)
    assert all(np.allclose(*pair) for pair in zip(jets[0][1:], jets[1][1:], strict=True))


@eqx.filter_jit
def found(model, x, t):
    points = collocation_grid(4, 3, period=PERIOD, horizon=1.0)
    return model.evaluate(x, t), model.jet(x[:2], t), model.losses(points).initial


def test_an_offset_is_not_trained():
    trained, rest = lagrangian(burgers(NU, jnp.sin, mean=7.0), offset=7.0).split()
    assert trained.offset is None and float(rest.offset) == 7


def test_a_hard_start_has_its_offset_already():
    message = "offset must be 0 with hard_initial, which begins at w₀, got 7.0"
    with pytest.raises(ValueError, match=message):
        lagrangian(burgers(NU, jnp.sin, mean=7.0), hard_initial=True, offset=7.0)
    with pytest.raises(ValueError, match=message):
        EulerianPINN(burgers(NU, jnp.sin, mean=7.0), width=3, depth=1, hard_initial=True, offset=7.0, key=jax.random.key(0))


def test_a_state_is_read_off_where_its_path_has_come_to():
    model = lagrangian(carried(SPEED), lambda x, t: SPEED * t, dying)
    x, t = np.linspace(0, PERIOD, 33), np.array([0.0, 0.31, 1.0])
    field, labelled = eqx.filter_jit(lambda model, x, t: (model.evaluate(x, t), model.characteristics(x, t)[1]))(model, x, t)
    truth = np.exp(-NU * t)[:, None] * np.sin(x[None] - SPEED * t[:, None])
    assert np.abs(field - truth).max() < 1e-4 and np.abs(labelled - truth).max() > 1


@pytest.fixture(scope="module")
def hard():
    with jax.enable_x64(True):
        yield lagrangian(carried(SPEED), hard_initial=True)


def test_labels_are_periodic_and_paths_go_round_with_them(hard):
    model = eqx.tree_at(lambda m: m.path.weights[-1], lagrangian(carried(SPEED)), jnp.ones((1, 5)))
    xi, t = jnp.array([0.0, 1.0, PERIOD, 1 + PERIOD]), jnp.array([0.0, 0.5])
    X, W = map(np.asarray, eqx.filter_jit(lambda model: model.characteristics(xi, t))(model))
    assert np.allclose(X[:, 2:], X[:, :2] + PERIOD, atol=1e-12) and np.allclose(W[:, 2:], W[:, :2], atol=1e-12)
    assert np.abs(X - xi[None]).max() > 0.1


def test_a_hard_start_is_exact_and_leaves_no_loss_of_it(hard, residuals, points):
    places = points.initial
    X, W = map(np.asarray, eqx.filter_jit(lambda hard, x: hard.characteristics(x, jnp.zeros(1)))(hard, places))
    assert np.allclose(X[0], places, atol=1e-14) and np.allclose(W[0], np.sin(places), atol=1e-14)
    losses = residuals(hard, points)[1]
    assert losses.initial == 0 and losses.state > 0
    # What is carried forward beside the value, seen in the residual, is what differentiation of the value gives.
    step = 1e-5
    x, t = jnp.array([0.7]), jnp.array([0.4])
    places, times = jnp.array([0.699, 0.7, 0.701]), jnp.array([0.4 - step, 0.4, 0.4 + step])
    (X, W), beside = jax.device_get(eqx.filter_jit(lambda hard: (hard.jets(x, t), hard.characteristics(places, times)))(hard))
    assert np.allclose([X.t[0], W.t[0]], [(values[2, 1] - values[0, 1]) / (2 * step) for values in beside], atol=1e-8)
    assert np.allclose(W.xx[0], (beside[1][1, 0] - 2 * beside[1][1, 1] + beside[1][1, 2]) / 1e-6, atol=1e-5)


def test_crossed_paths_leave_a_finite_loss_and_gradient():
    model = lagrangian(burgers(NU, jnp.sin))
    model = eqx.tree_at(lambda m: m.path.weights[-1], model, 30 * jnp.ones((1, 5)))
    points = collocation_grid(9, 3, period=PERIOD, horizon=1.0)

    @eqx.filter_jit
    def both(model):
        trained, rest = model.split()
        loss = jax.value_and_grad(lambda trained: eqx.combine(trained, rest).loss(points))
        return loss(trained), model.residuals(points).is_crossed, model.losses(points).crossed

    (loss, gradient), is_crossed, crossed = both(model)
    is_crossed = np.asarray(is_crossed)
    assert np.isclose(crossed, is_crossed.mean())
    assert 0 < is_crossed.sum() < is_crossed.size and np.isfinite(loss)
    assert all(np.isfinite(leaf).all() and leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(gradient))
    # Nothing but the networks is trained.
    assert jax.tree.leaves(gradient.problem) == []


def test_a_residual_of_zero_has_a_gradient_of_zero():
    model = lagrangian(ConvectionDiffusion(0.0, NU, lambda x: 0 * x, PERIOD))
    model = eqx.tree_at(lambda m: (m.state.weights[-1], m.state.biases[-1]), model, (jnp.zeros((1, 5)), jnp.zeros(1)))
    points = collocation_grid(4, 3, period=PERIOD, horizon=1.0)
    trained, rest = model.split()
    loss, gradient = eqx.filter_jit(jax.value_and_grad(lambda trained: eqx.combine(trained, rest).loss(points)))(trained)
    assert loss == 0 and all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_forms_that_do_not_exist_are_refused():
    # By the type checker, where there is one, before the model can.
    with pytest.raises((ValueError, TypeError, jaxtyping.TypeCheckError), match="diffusion"):
        lagrangian(carried(1.0), diffusion="Physical")
    with pytest.raises(ValueError, match=r"jacobian_floor must be positive, got 0\.0"):
        lagrangian(carried(1.0), jacobian_floor=0.0)


def test_the_loss_weighs_each_part_by_its_own_factor():
    losses = Losses(*(jnp.asarray(part) for part in (1.0, 0.1, 0.01, 1e6)))
    assert np.isclose(losses.weighted(LossWeights(2.0, 3.0, 4.0)), 2.34)
    assert np.isclose(losses.weighted(LossWeights()), 10 + 0.1 + 1)
