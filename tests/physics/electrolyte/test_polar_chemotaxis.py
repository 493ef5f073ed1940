import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.numerics import PeriodicGrid
from gradatim.physics.electrolyte import (
    LARGEST_COURANT,
    PolarChemotaxis,
    critical_exponents,
    keller_segel_term,
    number_variance,
    polarity_term,
    shell_average,
    shell_wavenumbers,
)

LINE, PLANE = PeriodicGrid((48,), 40.0), PeriodicGrid((24, 18), (20.0, 16.0))
pytestmark = pytest.mark.usefixtures("double")


@eqx.filter_jit
def _end(stepper, state, n_steps):
    return jax.lax.fori_loop(0, n_steps, lambda _, s: stepper(s), state)


@eqx.filter_jit
def _stepper(theory, dt, order):
    return theory.stepper(dt, order=order)


def end(stepper, state, n_steps):
    return _end(stepper, state, jnp.asarray(n_steps))


def stepper(theory, dt, order=2):
    # Numbers as arrays: other values of them compile nothing again.
    return _stepper(jax.tree.map(jnp.asarray, theory), jnp.asarray(dt), order)


@eqx.filter_jit
def advanced(stepper, state, noises):
    return jax.lax.scan(lambda s, w: (stepper.advance(s, w), None), state, noises)[0]


@eqx.filter_jit
def initial(stepper, key, field=None):
    return stepper.initial(key, field)


@eqx.filter_jit
def density(stepper, state):
    return stepper.density(state)


@eqx.filter_jit
def white_noises(grid, key, n):
    return jax.vmap(lambda key: grid.white_noise(key, jnp.float64))(jax.random.split(key, n))


@eqx.filter_jit
def band_limited(grid, key):
    return grid.backward(grid.white_noise(key, jnp.float64) * grid.dealiased() * (grid.squared_wavenumber() > 0) * grid.n_cells**0.5)


# Oracles.


@pytest.mark.parametrize("grid", [LINE, PLANE, PeriodicGrid((9, 8, 10), (3.0, 4.0, 5.0))], ids=lambda grid: str(grid.dim))
def test_both_terms_are_double_divergences(grid, getkey):
    mu_ks, mu_polar = 1.3, -0.7

    @jax.jit
    def both(potential):
        spectrum = grid.forward(potential)
        theory = PolarChemotaxis(grid, mu_ks=mu_ks, mu_polar=mu_polar)
        direct = mu_ks * keller_segel_term(grid, potential) + mu_polar * polarity_term(grid, potential)
        return grid.forward(direct) * grid.dealiased(), theory.nonlinear_terms(-grid.laplacian() * spectrum)

    direct, divergence = map(np.asarray, both(band_limited(grid, getkey())))
    assert np.abs(direct - divergence).max() < 1e-12 * np.abs(direct).max()


def test_in_one_dimension_it_is_burgers_equation(getkey):
    @jax.jit
    def both(density):
        spectrum = LINE.forward(density)
        (k,) = LINE.derivative_wavenumbers()
        u = LINE.backward(1j * k * -LINE.inverse_laplacian() * spectrum)
        # ρ = -∂ₓu and ∂u/∂t = λ ∂ₓ(u²)/2.
        exact = -1j * k * 1j * k * (0.9 + 0.8) / 2 * LINE.forward(u**2) * LINE.dealiased()
        return PolarChemotaxis(LINE, mu_ks=0.9, mu_polar=-0.4).nonlinear_terms(spectrum), exact

    found, exact = map(np.asarray, both(band_limited(LINE, getkey())))
    assert np.abs(found - exact).max() < 1e-12 * np.abs(exact).max()


@pytest.mark.parametrize(("dim", "exponents"), [(1, (1, -1, 1, 0)), (2, (4 / 3, -4 / 3, 2 / 3, 4 / 3)), (3, (5 / 3, -5 / 3, 1 / 3, 8 / 3))])
def test_exact_exponents(dim, exponents):
    assert np.allclose(critical_exponents(dim), exponents)


@given(st.integers(1, 9))
def test_exponents_obey_their_identities_and_meet_diffusion_at_four_dimensions(dim):
    z, chi, structure, number = critical_exponents(dim)
    assert np.isclose(2 * chi, z - dim - 2) and np.isclose(structure, -(2 * chi + dim)) and z <= 2
    if dim <= 4:
        assert np.isclose(chi, -z) and np.isclose(number, dim - structure)
    else:
        assert (z, structure, number) == (2, 0, dim)


@pytest.mark.parametrize("mass", [0.0, 0.3])
def test_without_nonlinear_terms_the_structure_factor_is_exact(mass):
    theory = PolarChemotaxis(PLANE, diffusivity=0.8, mass=mass, noise=0.3)
    step = stepper(theory, 80.0)  # far longer than any mode relaxes: independent samples
    keys = jax.random.split(jax.random.key(1), 1500)
    found, k = np.asarray(_one_long_step(step, keys)).mean(0), np.sqrt(np.asarray(PLANE.squared_wavenumber()))
    exact = 0.3 * k**2 / (0.8 * k**2 + mass + (k == 0))
    ratio = found[k > 0] / exact[k > 0]
    assert np.abs(ratio - 1).max() < 5.5 * np.sqrt(2 / 1500) and abs(ratio.mean() - 1) < 5 / np.sqrt(1500 * ratio.size)
    assert np.allclose(jax.jit(theory.linear_structure_factor)(k), exact)


def test_slow_modes_need_their_time_to_settle():
    """From rest a mode has 1 - exp(-2 (D k² + σ) t) of its structure factor: a slope fitted before is not that of the stationary state."""
    step = stepper(PolarChemotaxis(PLANE, diffusivity=0.8, noise=0.3), 1.0)
    found = np.asarray(_one_long_step(step, jax.random.split(jax.random.key(2), 1500))).mean(0)
    square = np.asarray(PLANE.squared_wavenumber())
    ratio = found[square > 0] * 0.8 / 0.3 / (1 - np.exp(-1.6 * square[square > 0]))
    assert np.abs(ratio - 1).max() < 5.5 * np.sqrt(2 / 1500) and found[1, 0] < 0.2 * found[12, 0]


@eqx.filter_jit
def _one_long_step(step, keys):
    return jax.vmap(lambda key: step.structure_factor(step(step.initial(key))))(keys)


@pytest.mark.parametrize("grid", [LINE, PLANE], ids=lambda grid: str(grid.dim))
def test_mean_is_kept_to_the_bit_over_long_runs(grid, getkey):
    theory = PolarChemotaxis(grid, mu_ks=0.4, mu_polar=-0.6, noise=0.2)
    step = stepper(theory, 0.02)
    state = end(step, initial(step, getkey()), 4000)
    found = np.asarray(density(step, state))
    assert np.ravel(state.spectrum)[0] == 0 and abs(found.sum()) < 1e-10
    assert 0 < float(state.courant) < LARGEST_COURANT and np.abs(found).max() > 0.1
    start = np.asarray(band_limited(grid, getkey())) * 0.01 + 0.25
    state = end(step, initial(step, getkey(), start), 4000)
    assert np.isclose(np.asarray(density(step, state)).mean(), 0.25, rtol=1e-12)


@pytest.mark.parametrize("grid", [LINE, PLANE], ids=lambda grid: str(grid.dim))
def test_a_tilt_shifts_the_frame_path_by_path(grid, getkey):
    mu_ks, mu_polar, dt, n_steps = 0.5, -0.8, 2e-3, 250
    tilt = (0.7, -0.3)[: grid.dim]
    plain, tilted = (
        stepper(PolarChemotaxis(grid, mu_ks=mu_ks, mu_polar=mu_polar, noise=0.2, tilt=a), dt) for a in ((0.0,) * grid.dim, tilt)
    )
    keep = np.asarray(grid.dealiased())
    noises = np.asarray(white_noises(grid, getkey(), n_steps)) * keep
    # The frame has moved by -(μ₁ - 2μ₂) a t, and the noise of the second run with it.
    shift = [-(mu_ks - 2 * mu_polar) * a for a in tilt]
    phase = sum(-np.asarray(q) * v for q, v in zip(grid.derivative_wavenumbers(), shift, strict=True))
    times = dt * (1 + np.arange(n_steps)).reshape(-1, *(1 for _ in grid.shape))
    start = np.asarray(band_limited(grid, getkey())) * 0.3
    at_rest = np.asarray(advanced(plain, initial(plain, getkey(), start), noises).spectrum)
    moving = np.asarray(advanced(tilted, initial(tilted, getkey(), start), noises * np.exp(1j * phase * times)).spectrum)
    seen = moving * np.exp(-1j * phase * dt * n_steps)
    error, unshifted = (np.abs((found - at_rest) * keep).max() / np.abs(at_rest).max() for found in (seen, moving))
    assert error < 1e-2 and unshifted > 20 * error


@pytest.mark.parametrize("order", [1, 2, 4])
def test_order_in_time(order, getkey):
    theory = PolarChemotaxis(PLANE, mu_ks=0.5, mu_polar=-0.8, noise=0.0)
    start = np.asarray(band_limited(PLANE, getkey())) * 0.3
    key = getkey()

    def final(dt):
        step = stepper(theory, dt, order)
        return np.asarray(density(step, end(step, initial(step, key, start), round(0.8 / dt))))

    exact = final(0.8 / 2048)
    errors = [np.abs(final(dt) - exact).max() for dt in (0.025, 0.0125)]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.3


@pytest.mark.parametrize("grid", [LINE, PLANE], ids=lambda grid: str(grid.dim))
def test_what_is_known_to_be_off_is_left_out(grid, getkey):
    """Without the Keller–Segel term one product takes the place of all pairs; without noise none is drawn."""
    start, tilt = np.asarray(band_limited(grid, getkey())) * 0.3, (0.2, -0.1)[: grid.dim]

    @jax.jit
    def after(mu_ks, noise):
        some, none = (
            PolarChemotaxis(grid, mu_ks=mu, mu_polar=-0.8, noise=T, tilt=tilt).stepper(0.01) for mu, T in ((mu_ks, noise), (0.0, 0.0))
        )
        return some(some.initial(jax.random.key(0), jnp.asarray(start))), none(none.initial(jax.random.key(0), jnp.asarray(start)))

    some, none = after(0.0, 0.0)
    for name in ("force", "spectrum"):
        a, b = (np.asarray(getattr(state, name)) for state in (some, none))
        assert np.abs(a - b).max() < 1e-12 * np.abs(a).max()
    assert np.array_equal(jax.random.key_data(none.key), jax.random.key_data(jax.random.key(0)))


def test_steps_converge_to_an_adaptive_reference(getkey):
    import diffrax

    theory = PolarChemotaxis(LINE, diffusivity=0.7, mass=0.1, mu_ks=0.5, mu_polar=-0.8, noise=0.0)
    start = np.asarray(band_limited(LINE, getkey())) * 0.3

    def rate(t, density, args):
        square, spectrum = LINE.squared_wavenumber(), LINE.forward(density)
        return LINE.backward(-(0.7 * square + jnp.where(square > 0, 0.1, 0.0)) * spectrum + theory.nonlinear_terms(spectrum))

    control = diffrax.PIDController(rtol=1e-9, atol=1e-11)
    solve = jax.jit(
        lambda y: diffrax.diffeqsolve(diffrax.ODETerm(rate), diffrax.Tsit5(), 0.0, 1.0, 0.01, y, stepsize_controller=control).ys[0]
    )
    step = stepper(theory, 1e-3)
    found = np.asarray(density(step, end(step, initial(step, getkey(), start), 1000)))
    assert np.abs(found - solve(start)).max() < 1e-5


# Traps.


def test_too_long_a_step_shows_in_the_courant_number(getkey):
    theory = PolarChemotaxis(PLANE, mu_polar=-5.0, noise=0.8)
    long, short = (end(step, initial(step, jax.random.key(0)), 200) for step in (stepper(theory, 0.08), stepper(theory, 0.002)))
    assert not float(long.courant) <= LARGEST_COURANT and float(short.courant) < LARGEST_COURANT


def test_courant_number_is_that_of_the_steepest_slope_yet():
    # ρ = a cos qy has slopes a/q; the shortest wave that is kept is the seventh along x, of which the box is 20 wide.
    mu_ks, mu_polar, dt, q = 0.9, -0.4, 0.05, 2 * np.pi / 16
    density = jnp.broadcast_to(0.3 * jnp.cos(q * 16 / 18 * (jnp.arange(18) + 0.5)), (24, 18))
    step = stepper(PolarChemotaxis(PLANE, diffusivity=30.0, mu_ks=mu_ks, mu_polar=mu_polar, noise=0.0), dt)
    first = initial(step, jax.random.key(0), density)
    exact = (mu_ks / 2 - mu_polar) * 0.3 / q * 2 * np.pi * 7 / 20 * dt
    assert np.isclose(first.courant, exact, rtol=1e-12)
    assert end(step, first, 3).courant == first.courant


def test_slopes_of_the_linear_stationary_state_grow_with_the_box():
    """Why not to start from it: with S = T/D they are of the order of √L along a line, and the steps must be as much shorter."""

    @jax.jit
    @jax.vmap
    def courants(key):
        grids = LINE, PeriodicGrid((16 * 48,), 16 * 40.0)
        steps = [PolarChemotaxis(grid, mu_ks=1.0).stepper(0.01) for grid in grids]
        return [step.initial(key, band_limited(step.theory.grid, key)).courant for step in steps]

    short, long = map(np.asarray, courants(jax.random.split(jax.random.key(3), 16)))
    assert 3 < long.mean() / short.mean() < 5


def test_blow_up_of_the_truncated_theory_is_not_hidden():
    x, y = map(np.asarray, PLANE.positions())
    hole = -20.0 * np.exp(-((x - 10) ** 2 + (y - 8) ** 2) / 4)
    # With μ₁ > 0 the rate holds -μ₁ρ²: what lies below the mean, in truth at most down to no cells at all, runs away.
    step = stepper(PolarChemotaxis(PLANE, mu_ks=3.0, noise=0.0), 0.002)
    state = end(step, initial(step, jax.random.key(0), hole - hole.mean()), 400)
    # Nothing is clipped: what is lost is not finite, or the number says that it was not to be trusted.
    assert not np.isfinite(state.spectrum).all() or float(state.courant) > LARGEST_COURANT


@pytest.mark.parametrize(("shape", "box"), [((10,), 5.0), ((8, 6), (4.0, 6.0))])
def test_number_variance_is_that_of_all_boxes_of_the_field(shape, box):
    grid = PeriodicGrid(shape, box)
    density = np.random.default_rng(0).normal(size=shape)
    side = 2 if min(shape) >= 8 else 1
    total = density * grid.volume / grid.n_cells
    for axis in range(grid.dim):
        total = sum(np.roll(total, i, axis) for i in range(side))
    exact = (total**2).mean()
    found = jax.jit(lambda density: number_variance(grid.structure_factor(grid.forward(density)), grid, (side,)))(density)
    assert np.isclose(found[0], exact, rtol=1e-12)


def test_independent_particles_vary_as_the_volume():
    grid = PeriodicGrid((32, 32), 32.0)
    found = jax.jit(lambda white: number_variance(white, grid, (2, 4, 8)))(np.ones(grid.spectrum_shape))
    assert np.allclose(found, [4, 16, 64], rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6), (4, 12)])
def test_shells_are_the_same_in_every_unit_of_length(shape):
    here, there = (shell_wavenumbers(PeriodicGrid(shape, tuple(n * unit for n in shape))) for unit in (1.0, 0.7))
    assert here.shape == there.shape and np.allclose(here, 0.7 * there)


def test_shells_average_what_the_whole_spectrum_holds():
    grid = PeriodicGrid((12, 10), (12.0, 10.0))
    values = np.random.default_rng(0).normal(size=grid.shape)
    values = (values + np.roll(np.flip(values), (1, 1), (0, 1))) / 2  # even in k, as a structure factor
    kx, ky = np.meshgrid(np.fft.fftfreq(12), np.fft.fftfreq(10), indexing="ij")
    shell = np.rint(np.hypot(kx, ky) * 12).astype(int)
    exact = [values[shell == i].mean() for i in range(1, 6)]
    half = values[:, :6]
    twice = shell_average(jax.device_put(np.stack([half, half])), grid)
    assert np.allclose(shell_average(jax.device_put(half), grid), exact) and np.allclose(np.asarray(twice)[1], exact)
    assert np.isclose(shell_wavenumbers(grid)[0], 2 * np.pi * np.hypot(kx, ky)[shell == 1].mean())


# Transformations and input.


def test_derivative_in_a_parameter_agrees_with_differences(getkey):
    start, noises = jnp.asarray(0.3 * np.asarray(band_limited(LINE, getkey()))), white_noises(LINE, getkey(), 20)
    key = getkey()

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def energy(mu_polar, diffusivity):
        step = PolarChemotaxis(LINE, diffusivity=diffusivity, mu_polar=mu_polar, noise=0.2).stepper(0.01)
        state = jax.lax.scan(lambda s, w: (step.advance(s, w), None), step.initial(key, start), noises)[0]
        return (step.density(state) ** 2).sum()

    _, slopes = energy(-0.8, 0.7)
    for i, slope in enumerate(slopes):
        h = np.eye(2)[i] * 1e-5
        (high, _), (low, _) = energy(-0.8 + h[0], 0.7 + h[1]), energy(-0.8 - h[0], 0.7 - h[1])
        difference = (high - low) / 2e-5
        assert np.isclose(slope, difference, rtol=1e-6) and abs(slope) > 1e-3


def test_vmap_over_parameters_is_a_loop_and_single_precision_stays():
    with jax.enable_x64(False):
        key = jax.random.key(0)

        def density(mu):
            step = PolarChemotaxis(LINE, mu_polar=mu, noise=0.2).stepper(0.01)
            return step.density(jax.lax.fori_loop(0, 30, lambda _, s: step(s), step.initial(key)))

        mus = jnp.array([-0.5, 0.3])
        one = jax.jit(density)
        batch = jax.jit(jax.vmap(density))(mus)
        assert batch.dtype == jnp.float32 and np.allclose(batch, np.stack([one(mu) for mu in mus]), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"diffusivity": 0.0}, "diffusivity must be positive and finite, got 0.0"),
        ({"noise": -1.0}, "noise must be at least 0 and finite, got -1.0"),
        ({"mass": -0.1}, r"mass must exceed -D \(2π/L\)² = -0\.02467, or waves grow without end, got -0\.1"),
        ({"tilt": (1.0, 2.0)}, "tilt must have one component for each of the grid's 1 axes"),
    ],
)
def test_parameters_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        PolarChemotaxis(LINE, **options)


def test_time_steps_above_the_bound_are_refused_with_the_bound():
    tilted = PolarChemotaxis(LINE, mu_ks=2.0, tilt=(1.0,))
    with pytest.raises(ValueError, match=r"dt must be at most 0\.1273 under this tilt, got 0\.2"):
        tilted.stepper(0.2)
    with pytest.raises(ValueError, match=r"dt must be positive and finite, got -0\.1"):
        tilted.stepper(-0.1)
    with pytest.raises(ValueError, match="order must be 1, 2 or 4, got 3"):
        getattr(PolarChemotaxis.stepper, "__wrapped__", PolarChemotaxis.stepper)(tilted, 0.1, order=3)


def test_shapes_must_fit():
    step = stepper(PolarChemotaxis(LINE), 0.1)
    with pytest.raises(ValueError, match=r"field must have the grid's shape \(48,\)"):
        step.initial(jax.random.key(0), jnp.zeros(47))
    with pytest.raises(ValueError, match="structure_factor must have the shape of the grid's spectra"):
        number_variance(jnp.zeros(48), LINE, (2,))
    with pytest.raises(ValueError, match=r"values must have the shape of the grid's spectra, \(25,\), as last axes, got \(3, 24\)"):
        shell_average(jnp.zeros((3, 24)), LINE)
    with pytest.raises(ValueError, match="sides must lie between 1 and a quarter of the grid, 12 cells, got"):
        number_variance(jnp.zeros(25), LINE, (13,))
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        critical_exponents(0)
