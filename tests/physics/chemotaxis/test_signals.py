import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from gradatim.physics.chemotaxis import Box, IndirectChemotaxis, Radial, State

pytestmark = pytest.mark.usefixtures("double")
LINE, BALL = Box((16,)), Radial(4, 16)
X = LINE.centres[0]


@jax.jit
def line_step(eps, tau, dt, state):
    return IndirectChemotaxis(LINE, eps, tau).stepper(dt)(state)


@jax.jit
def ball_step(eps, tau, dt, state):
    return IndirectChemotaxis(BALL, eps, tau).stepper(dt)(state)


laplacians = jax.jit(jax.vmap(LINE.laplacian))


def start(grid):
    rng = np.random.default_rng(0)
    return State(*(jax.device_put(rng.uniform(0.5, 2, grid.shape)) for _ in range(3)))


@pytest.mark.parametrize("tau", [0.0, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("eps", [1e-3, 0.1, 10.0])
def test_signal_step_is_the_exponential_of_the_signals_equations(eps, tau):
    state, dt = start(LINE), 0.02
    after = line_step(eps, tau, dt, state)
    laplacian = np.asarray(laplacians(np.eye(16)))
    one, zero = np.eye(16), np.zeros((16, 16))
    matrix = np.block([[laplacian - one, one], [zero, tau * laplacian - one]]) / eps
    forcing = np.concatenate([np.zeros(16), np.asarray(state.cells)]) / eps
    rest = np.linalg.solve(matrix, -forcing)
    exact = rest + scipy.linalg.expm(matrix * dt) @ (np.concatenate([state.attractant, state.signal]) - rest)
    np.testing.assert_allclose(np.concatenate([after.attractant, after.signal]), exact, atol=1e-11)


def test_equal_rates_of_both_signals_divide_by_nothing():
    # τ = 1 makes the rates of all modes equal, and that of the mean always is.
    state = start(LINE)
    near, at = (line_step(0.05, tau, 0.03, state) for tau in (1 + 1e-9, 1.0))
    assert all(np.abs(np.asarray(a) - np.asarray(b)).max() < 1e-8 for a, b in zip(near, at, strict=True))
    slope = jax.jit(jax.grad(lambda tau: line_step(0.05, tau, 0.03, state).attractant[0]))
    left, middle, right = (float(slope(tau)) for tau in (1 - 1e-5, 1.0, 1 + 1e-5))
    assert middle == pytest.approx((left + right) / 2, rel=1e-4)


@pytest.mark.parametrize("which", ["line", "ball"])
def test_a_step_of_vanishing_eps_is_the_step_of_the_limit(which):
    grid, step = (LINE, line_step) if which == "line" else (BALL, ball_step)
    state = start(grid)
    limit = eqx.filter_jit(IndirectChemotaxis(grid, 0.0, 0.2).stepper(1e-3))(state)
    # Backward Euler leaves ε/dt of the signals before, the exponential nothing.
    full = step(1e-12 if which == "line" else 1e-15, 0.2, 1e-3, state)
    for ours, exact in zip(full, limit, strict=True):
        assert np.abs(np.asarray(ours) - np.asarray(exact)).max() < 1e-10
    assert all(np.isfinite(x).all() for x in full)


def test_masses_of_the_signals_are_exact_through_the_layer():
    eps, times = 0.02, np.linspace(0, 0.3, 61)

    @jax.jit
    def run(times, *first):
        model = IndirectChemotaxis(LINE, eps, 0.2)
        return model.solve(model.init(*first), times)

    found = jax.tree.map(np.asarray, run(times, 5 * (1 + 0.8 * np.cos(np.pi * X)), 2 + np.cos(2 * np.pi * X), np.ones(16)))
    mass, s = 5.0, times / eps
    w = mass + (1 - mass) * np.exp(-s)
    c = mass + (2 - mass + (1 - mass) * s) * np.exp(-s)
    np.testing.assert_allclose(found.signal.mean(1), w, atol=1e-11)
    np.testing.assert_allclose(found.attractant.mean(1), c, atol=1e-11)


def test_cosine_modes_of_each_signal_decay_in_closed_form():
    eps, tau, dt = 0.05, 0.3, 0.02
    wave, none = np.cos(3 * np.pi * X), np.zeros(16)
    m = float((2 - 2 * np.cos(3 * np.pi / 16)) * 16**2)
    alone = line_step(eps, tau, dt, State(none, wave, none))
    assert np.allclose(alone.attractant, wave * np.exp(-(1 + m) * dt / eps), atol=1e-13)
    a, b = (1 + m) / eps, (1 + tau * m) / eps
    driven = line_step(eps, tau, dt, State(none, none, wave))
    assert np.allclose(driven.signal, wave * np.exp(-b * dt), atol=1e-13)
    assert np.allclose(driven.attractant, wave * (np.exp(-b * dt) - np.exp(-a * dt)) / (eps * (a - b)), atol=1e-13)


def test_radial_signals_are_of_first_order_in_dt():
    # Equal shells in one dimension, where the box has the exact signals.
    shells = Radial(1, 16, grading=1.0)
    state = start(LINE)

    @jax.jit
    def end(dt):
        def signals(grid, n_steps, dt):
            stepper = IndirectChemotaxis(grid, 0.05, 0.2).stepper(dt)
            advance = lambda memory, _: (stepper.signals.advance(memory, state.cells), None)  # noqa: E731
            memory, _ = jax.lax.scan(advance, stepper.signals.enter(*state), length=n_steps)
            return stepper.signals.leave(memory)[0]

        exact = signals(LINE, 1, 4 * dt)
        return jnp.stack([jnp.abs(signals(shells, k, 4 * dt / k) - exact).max() for k in (4, 8, 16)])

    errors = np.asarray(end(2e-3))
    assert 1.6 < errors[0] / errors[1] < 2.2 and 1.8 < errors[1] / errors[2] < 2.1
