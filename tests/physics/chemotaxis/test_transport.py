import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.physics.chemotaxis import Box, Radial, bernoulli, currents, scharfetter_gummel, transport

pytestmark = pytest.mark.usefixtures("double")
LINE, SQUARE, BALL = Box((12,)), Box((5, 4)), Radial(4, 12)
rate = jax.jit(scharfetter_gummel, static_argnums=0)
flows = jax.jit(currents, static_argnums=0)
step = jax.jit(transport, static_argnums=0)
slope_of_bernoulli = jax.jit(jax.value_and_grad(bernoulli))


def random(grid, seed, scale=1.0):
    return scale * np.random.default_rng(seed).uniform(0, 1, grid.shape)


@pytest.mark.parametrize("x", [-1e4, -40.0, -1.0, -1.001e-4, -0.999e-4, -1e-9, 0.0, 1e-9, 0.999e-4, 1.001e-4, 1.0, 40.0, 650.0, 1e4])
def test_bernoulli_is_accurate_and_smooth_everywhere(x):
    value, slope = slope_of_bernoulli(x)
    if abs(x) < 1e-2:
        exact, exact_slope = 1 - x / 2 + x**2 / 12, -0.5 + x / 6
    elif x < 300:
        exact, exact_slope = x / np.expm1(x), (np.expm1(x) - x * np.exp(x)) / np.expm1(x) ** 2
    else:
        exact, exact_slope = 0.0, 0.0
    assert value >= 0 and np.isfinite(slope)
    assert value == pytest.approx(max(exact, -x), rel=1e-13, abs=1e-200)
    assert slope == pytest.approx(exact_slope, rel=1e-7, abs=1e-200)


@pytest.mark.parametrize("grid", [LINE, SQUARE, BALL], ids=["line", "square", "ball"])
def test_cells_in_proportion_to_exp_c_rest(grid):
    c = random(grid, 0, 30.0)
    n = np.exp(c - 30)
    # Relative to what either part of the flux would do alone.
    assert max(np.abs(flow).max() for flow in flows(grid, n, c)) < 1e-13 * np.abs(rate(grid, n, 0 * c)).max()
    assert np.allclose(step(grid, n, c, 0.7), n, rtol=1e-10)


@pytest.mark.parametrize("grid", [LINE, SQUARE, BALL], ids=["line", "square", "ball"])
def test_without_attractant_cells_diffuse(grid):
    n = random(grid, 1)
    exact = jax.jit(grid.laplacian)(n)
    assert np.allclose(rate(grid, n, np.full(grid.shape, 3.0)), exact, atol=1e-12 * np.abs(exact).max())


def test_a_strong_drift_is_upwind():
    n, c = random(LINE, 2), 60.0 * np.arange(12.0)
    (flow,) = flows(LINE, n, c)
    upwind = 60.0 * n[:-1] * LINE.conductances(0)
    assert np.allclose(flow, upwind, rtol=1e-12)
    (back,) = flows(LINE, n, -c)
    assert np.allclose(back, -60.0 * n[1:] * LINE.conductances(0), rtol=1e-12)


@pytest.mark.parametrize("grid", [LINE, SQUARE, BALL], ids=["line", "square", "ball"])
@given(exponent=st.floats(-6, 6), steepness=st.floats(0, 400), chi=st.sampled_from([1.0, -1.0]), seed=st.integers(0, 1000))
def test_cells_stay_positive_and_keep_their_mass_for_any_step(grid, exponent, steepness, chi, seed):
    with jax.enable_x64(True):
        n = random(grid, seed) * (random(grid, seed + 1) > 0.3)  # with empty cells
        c, dt = random(grid, seed + 2, steepness), 10.0**exponent
        after = np.asarray(step(grid, n, c, dt, chi))
        assert after.min() >= 0
        # Round-off of what passes the faces, which a long step makes large beside what is there.
        content = float((grid.volumes * n).sum())
        passing = dt * sum(float(grid.conductances(axis).max()) for axis in range(n.ndim)) * (1 + steepness) * float(after.sum())
        assert abs(float((grid.volumes * (after - n)).sum())) <= 1e-14 * (content + passing)


def test_centred_differences_would_turn_negative_where_ours_do_not():
    n, c = np.eye(12)[6], 5.0 * np.arange(12.0)  # steps of c beyond 2
    h2 = LINE.conductances(0) / LINE.volumes
    drift = np.diff(c)
    centred = h2 * ((1 + drift / 2) * n[:-1] - (1 - drift / 2) * n[1:])
    assert (n - 1e-5 * np.diff(np.pad(centred, 1))).min() < 0
    assert (n + 1e-5 * np.asarray(rate(LINE, n, c))).min() >= 0
