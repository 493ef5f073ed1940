import os
import subprocess
import sys
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.plasma import (
    ParticleInCell,
    PlasmaScales,
    RunawayCap,
    Species,
    SumForce,
    TemperatureGradientForce,
    Vector,
    VelocityGradientForce,
    boris,
    field_energy,
    kinetic_energy,
    lorentz_factor,
    moments,
    spectrum_by_helicity,
    velocity,
    weights,
    yee,
)

ALONG = (1.0, 0.0, 0.0)
SINGLE = 2e-5  # sums of some thousand terms in single precision, over hundreds of steps
OBLIQUE = (0.6, 0.8, 0.0)
SHAPES = {"1D": (24,), "2D": (8, 6)}
PER_CELL = {"1D": 100, "2D": 50}
KINDS = ("1D", "2D")


@eqx.filter_jit
def begin(model, key, momenta=None):
    return model.start(key, momenta=momenta)


def balance(model, state):
    """Momentum and energy per volume, of particles and fields."""
    pairs = list(zip(model.species, state.particles, strict=True))
    kinetic = sum(s.mass * kinetic_energy(p.momentum).mean() for s, p in pairs)
    B = Vector(*(part + uniform for part, uniform in zip(state.magnetic, model.magnetic, strict=True)))
    return kinetic, field_energy(state.electric, B), [sum(s.mass * p.momentum[i].mean() for s, p in pairs) for i in range(3)]


@eqx.filter_jit
def run(model, state, n_steps):
    """The end, with the worst errors of Gauss's law (the start's too) and of ∇·B, and the work of the force, on the way."""

    def worst_gauss(state):
        return jnp.abs(model.gauss_error(state)).max()

    def step(_, carry):
        state, gauss, divergence, work = carry
        before = state.particles[0].momentum
        state = model(state)
        force = model.species[0].force
        if force is not None:
            u = state.particles[0].momentum
            middle = Vector(*(0.5 * (a + b) for a, b in zip(before, u, strict=True)))
            work = work + model.dt * sum((a * b).mean() for a, b in zip(force(middle), velocity(middle), strict=True))
        gauss = jnp.maximum(gauss, worst_gauss(state))
        return state, gauss, jnp.maximum(divergence, jnp.abs(yee.divergence_of_magnetic(state.magnetic, model.dx)).max()), work

    none = jnp.zeros(())
    return jax.lax.fori_loop(0, n_steps, step, (state, worst_gauss(state), none, none))


@pytest.fixture(scope="module", params=KINDS)
def forced_run(request):
    """Electrons under both gradients in an oblique field."""
    stretch = jax.jit(lambda rate: VelocityGradientForce.gyrotropic(rate, OBLIQUE))(2e-3)
    force = SumForce(TemperatureGradientForce(30.0, OBLIQUE, 0.1), stretch)
    electrons = Species(0.1, PER_CELL[request.param], force=force)
    model = ParticleInCell(SHAPES[request.param], [electrons], dx=0.3, dt=0.2, magnetic=(0.06, 0.08, 0.0))
    start = begin(model, jax.random.key(0))
    return model, start, run(model, start, 400)


def test_charge_is_conserved_over_a_long_forced_run(forced_run):
    """Gauss's law, from a start that satisfies it, and ∇·B = 0."""
    model, _, (end, gauss, divergence, _) = forced_run
    assert float(gauss) < SINGLE and float(divergence) < SINGLE
    assert int(end.steps) == 400 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(end))
    for part, n in zip(map(np.asarray, end.particles[0].position), model.shape, strict=True):
        assert ((part >= 0) & (part <= n)).all()


def test_energy_comes_from_the_force_and_from_nothing_else(forced_run):
    """The gain of kinetic and field energy is the work of the force, within the noise heating of a coarse grid."""
    model, start, (end, _, _, work) = forced_run
    before, after = (sum(balance(model, state)[:2]) for state in (start, end))
    assert work > 0.1 * before
    assert np.isclose(after - before, work, rtol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_current_and_density_satisfy_continuity_to_round_off(kind, double):
    shape, n, rng = SHAPES[kind], 300, np.random.default_rng(1)
    ends = np.array(shape)[:, None]
    before = rng.uniform(size=(len(shape), n)) * ends
    after = before + rng.uniform(-0.99, 0.99, size=before.shape)
    before[:, :3] = [0.0, 1.0, 0.0]  # on the nodes and the edge
    after[:, :3] = before[:, :3] + [-0.4, 0.0, 0.0]
    wrapped = after - np.floor(after / ends) * ends

    @jax.jit
    def flow_and_change(before, after, wrapped):
        flow = weights.current(tuple(before), tuple(after), Vector(*(jnp.ones(n),) * 3), shape)
        return flow, weights.density(tuple(wrapped), shape) - weights.density(tuple(before), shape)

    flow, change = jax.tree.map(np.asarray, flow_and_change(before, after, wrapped))
    outflow = flow.x - np.roll(flow.x, 1, 0)
    if len(shape) == 2:
        outflow = outflow + flow.y - np.roll(flow.y, 1, 1)
        assert np.isclose(flow.y.sum(), (after - before)[1].sum())
    assert np.allclose(change, -outflow, atol=1e-12)
    # The mean current is that of the particles: what drives the uniform field must not be lost.
    assert np.isclose(flow.x.sum(), (after - before)[0].sum()) and np.isclose(flow.z.sum(), n)


@pytest.mark.parametrize("kind", KINDS)
def test_currents_across_the_grid_lie_at_the_nodes_around_half_of_each_path(kind, double):
    shape, n, rng = SHAPES[kind], 60, np.random.default_rng(3)
    before = rng.uniform(size=(len(shape), n)) * np.array(shape)[:, None]
    after = before + rng.uniform(-0.99, 0.99, size=before.shape)
    speeds = rng.normal(size=(3, n))
    found = jax.jit(lambda before, after, v: weights.current(tuple(before), tuple(after), Vector(*v), shape))(before, after, speeds)
    middle = (before + after) / 2
    cell = np.floor(middle).astype(int)
    for part, speed in [(found.y, speeds[1]), (found.z, speeds[2])][len(shape) - 1 :]:
        exact = np.zeros(shape)
        for corner in yee.corners(len(shape)):
            share = np.prod([x - i if far else 1 - x + i for far, x, i in zip(corner, middle, cell, strict=True)], 0)
            np.add.at(exact, tuple((i + far) % size for far, i, size in zip(corner, cell, shape, strict=True)), share * speed)
        assert np.allclose(part, exact, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_at_the_particles_are_interpolated_linearly(kind, double):
    """To round-off, however many fields there are, at nodes and at the edge too."""
    shape, rng = SHAPES[kind], np.random.default_rng(0)
    position = np.stack([rng.uniform(0, n, 50) for n in shape])
    position[:, :3] = [[0.0, 1.0, n] for n in shape]
    fields = rng.normal(size=(5 if kind == "1D" else 6, *shape))
    cell = np.floor(position).astype(int)
    exact = np.zeros((len(fields), 50))
    for corner in yee.corners(len(shape)):
        share = np.prod([x - i if far else 1 - x + i for far, x, i in zip(corner, position, cell, strict=True)], 0)
        exact += share * fields[:, *((i + far) % n for far, i, n in zip(corner, cell, shape, strict=True))]
    found = jax.jit(lambda fields, position: weights.gather(list(fields), tuple(position)))(fields, position)
    np.testing.assert_allclose(np.stack(found), exact, atol=1e-14)


@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_field_of_the_charge_exerts_no_force_on_all_particles_together(kind, passes, double):
    """Exactly: the same linear weights both ways, and a field at the nodes that is odd in k, filtered or not. So none on itself either."""
    shape, rng = SHAPES[kind], np.random.default_rng(2)

    @jax.jit
    def pull(place, charge):
        position = tuple(n * part for n, part in zip(shape, place, strict=True))
        index, share = weights._corner_weights(position, shape)
        rho = yee.smooth(weights._summed([(i, charge * w) for i, w in zip(index, share, strict=True)], shape, place.dtype), passes)
        electric = yee.field_of_charge(rho, 0.4)
        return [charge * part for part in weights.gather(yee.at_nodes(electric, electric)[: len(shape)], position)]

    for part in map(np.asarray, pull(rng.uniform(size=(len(shape), 40)), rng.normal(size=40))):
        assert abs(part.sum()) < 1e-13 * np.abs(part).sum() and np.abs(part).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_momentum_of_a_pair_plasma_stays(kind):
    """Not exactly: radiation has momentum too, and the magnetic force is not taken with the weights of the current.

    What is lost is far less than the sum of the momenta of independent particles would vary by, √(θ/N).
    """
    pair = [Species(0.1, PER_CELL[kind], charge=charge) for charge in (-1.0, 1.0)]
    model = ParticleInCell(SHAPES[kind], pair, dx=0.5, dt=0.3, filter_passes=0)
    start = begin(model, jax.random.key(3))
    kicked = start._replace(particles=tuple(p._replace(momentum=p.momentum._replace(x=p.momentum.x + 0.1)) for p in start.particles))
    end, *_ = run(model, kicked, 200)
    (_, _, before), (_, _, after) = (balance(model, state) for state in (kicked, end))
    assert np.isclose(before[0], 0.2, atol=1e-5)
    varies = np.sqrt(0.1 / start.particles[0].momentum.x.size)
    # Along a line of waves transverse momentum is the light's alone.
    assert abs(float(after[0] - before[0])) < varies * (0.015 if kind == "1D" else 0.15)
    assert max(abs(float(b - a)) for a, b in zip(before, after, strict=True)) < 0.3 * varies


def test_an_even_start_holds_the_noise_from_which_waves_grow(forced_run):
    """A quiet start would delay every instability: places are even, so that there is no field, and velocities are independent of them."""
    model, start, _ = forced_run
    electrons, theta = start.particles[0], float(model.species[0].theta)
    assert max(float(np.abs(part).max()) for part in start.electric) < SINGLE
    places, n = np.stack(electrons.position), electrons.momentum.x.size
    modes = 2 * np.pi * np.arange(1, 9)
    power = []
    for axis, cells in enumerate(model.shape):
        wave = np.exp(-1j * modes[:, None] * places[axis] / cells)
        assert np.abs(wave.mean(1)).max() < 1e-3 / np.sqrt(n)
        power += [np.abs((wave * np.asarray(part)).mean(1)) ** 2 for part in electrons.momentum]
    assert 0.6 < np.mean(power) * n / theta < 1.5


def test_light_wave_crosses_the_empty_grid_at_the_speed_of_light(double):
    n, dx = 64, 0.5
    charge_free = Species(0.1, 2, charge=0.0)
    model = ParticleInCell((n,), [charge_free], dx=dx, dt=0.98 * dx)
    x = dx * np.arange(n)

    def wave(x):
        return jax.device_put(np.cos(2 * np.pi * x / (n * dx)))

    none = jnp.zeros(n)
    state = begin(model, jax.random.key(0), [Vector(*(jnp.zeros(2 * n),) * 3)])
    # B is half a cell further, and half a step before.
    state = state._replace(electric=Vector(none, wave(x), none), magnetic=Vector(none, none, wave(x + dx / 2 + model.dt / 2)))
    steps = round(n * dx / model.dt)
    end, *_ = run(model, state, steps)
    assert np.allclose(end.electric.y, wave(x - steps * model.dt), atol=1e-3)


def test_plasma_oscillation_has_its_frequency(double):
    """ω² = 1 + 1/m, cold, uniform, with ions that move: the mean current drives it."""
    n, mass = 8, 4.0
    species = [Species(1e-6, 10), Species(1e-6, 10, charge=1.0, mass=mass)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ParticleInCell((n,), species, dx=0.2, dt=0.05, filter_passes=0)
    push = Vector(jnp.full(10 * n, 1e-3), jnp.zeros(10 * n), jnp.zeros(10 * n))
    state = begin(model, jax.random.key(0), [push, jax.tree.map(jnp.zeros_like, push)])
    frequency = np.sqrt(1 + 1 / mass)
    steps = round(np.pi / 2 / frequency / 0.05)
    end, *_ = run(model, state, steps)
    assert np.isclose(float(end.electric.x.mean()), 1e-3 / frequency, rtol=2e-3)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_oracle_two_streams_grow_as_the_dispersion_relation_says(share, double):
    # 1 = ½/γ³ [1/(ω - k v)² + 1/(ω + k v)²] for cold beams of half the density each: a quadratic in ω², whose lower root is negative.
    u, cells, per_cell = 0.1, 32, 40
    gamma = np.sqrt(1 + u**2)
    v, plasma_squared = u / gamma, gamma**-3.0
    # The fastest wave has k v = √(3/8) ωₚ; beside it one that is longer.
    k = share * np.sqrt(3 / 8 * plasma_squared) / v
    kv = (k * v) ** 2
    rate = np.sqrt(-(kv + plasma_squared / 2 - np.sqrt(plasma_squared * (plasma_squared / 4 + 2 * kv))))
    if share == 1:
        assert np.isclose(rate, np.sqrt(plasma_squared / 8))
    dx = 2 * np.pi / k / cells
    model = ParticleInCell((cells,), [Species(0.01, per_cell)], dx=dx, dt=0.9 * dx, filter_passes=0)
    n = cells * per_cell
    even = jnp.repeat((jnp.arange(n // 2) + 0.5) / (n // 2), 2)
    places = cells * (even + 1e-5 * jnp.sin(2 * np.pi * even))
    beams = Vector(u * (1.0 - 2.0 * (jnp.arange(n) % 2)), jnp.zeros(n), jnp.zeros(n))
    state = model.start(jax.random.key(0), momenta=[beams], positions=[(places,)])

    @eqx.filter_jit
    def amplitudes(model, state, n_steps):
        def step(state, _):
            return model(state), jnp.abs(jnp.fft.fft(state.electric.x)[1])

        return jax.lax.scan(step, state, length=n_steps)[1]

    time = 0.9 * dx * np.arange(round(26 / (0.9 * dx)))
    seen = np.log(np.asarray(amplitudes(model, state, time.size)))
    # Once the other three roots have been left behind, and before particles are trapped.
    late = (time > 16) & (time < 26)
    assert np.isclose(np.polyfit(time[late], seen[late], 1)[0], rate, rtol=0.02)


def test_whistlers_along_the_field_turn_with_the_electrons():
    n = 64
    x = np.arange(n)
    field = np.exp(-2j * np.pi * 3 * x / n)
    found = jax.jit(spectrum_by_helicity)
    spectrum = jax.tree.map(np.asarray, found(Vector(np.zeros(n), 2 * field.real, 2 * field.imag), 0.5))
    assert spectrum.wavenumber.shape == (31,)
    assert np.isclose(float(spectrum.wavenumber[2]), 2 * np.pi * 3 / 32)
    assert np.isclose(float(spectrum.negative[2]), 4, rtol=1e-5)
    assert float(spectrum.positive.sum()) < 1e-9 and float(spectrum.negative.sum()) < 4.001
    plane = np.broadcast_to(field[:, None], (n, 5))
    flat = found(Vector(plane.real, 2 * plane.real, 2 * plane.imag), 0.5)
    assert np.allclose(flat.negative, spectrum.negative, atol=1e-5)


def test_mean_field_holds_the_drift_and_sets_the_flux():
    """The slope is that of particles whose current a field holds at zero (0.62 at θ = 0.1), not theirs alone (0.51)."""
    theta, length = 0.1, 60.0
    u = jax.jit(lambda key: Species(theta, 2400).draw(key, 2400))(jax.random.key(4))
    force = TemperatureGradientForce(length, ALONG, theta, float(kinetic_energy(u).mean()))
    model = ParticleInCell((24,), [Species(theta, 100, force=force)], dx=0.3, dt=0.2)
    steps = 140
    end, *_ = run(model, begin(model, jax.random.key(4), [u]), steps)
    now, time = moments(end.particles[0].momentum, ALONG), steps * 0.2

    def drift_and_flux(u):
        return velocity(u).x, kinetic_energy(u) * velocity(u).x

    @jax.jit
    def slopes(u):
        unit = Vector(jnp.ones_like(u.x), jnp.zeros_like(u.x), jnp.zeros_like(u.x))
        return [[part.mean() for part in jax.jvp(drift_and_flux, (u,), (push,))[1]] for push in (force(u), unit)]

    # These very particles' own slopes, so that their noise is no part of the comparison.
    (drift, flux), (drift_of_field, flux_of_field) = np.asarray(slopes(u))
    held = flux - drift / drift_of_field * flux_of_field
    assert np.isclose(float(now.heat_flux), held * time, rtol=0.05)
    assert not np.isclose(float(now.heat_flux), flux * time, rtol=0.12)
    assert abs(float(now.drift)) < 0.01


def test_derivative_in_the_gradient_is_that_of_finite_differences(double):
    """And a batch over that parameter is what the differences are taken of."""
    frozen = begin(ParticleInCell((6,), [Species(0.1, 4)], dx=0.5, dt=0.3), jax.random.key(5))

    def flux(inverse_length):
        force = TemperatureGradientForce(1 / inverse_length, ALONG, 0.1)
        model = ParticleInCell((6,), [Species(0.1, 4, force=force)], dx=0.5, dt=0.3, magnetic=(0.05, 0.0, 0.0))
        end = jax.lax.scan(lambda state, _: (model(state), None), frozen, length=4)[0]
        return moments(end.particles[0].momentum, ALONG).heat_flux + 10 * field_energy(end.electric, end.magnetic)

    step = 1e-5
    # One program for values and slopes: a batch of three.
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(flux)))(jnp.array([0.1 - step, 0.1, 0.1 + step]))
    assert np.isclose(slopes[1], (values[2] - values[0]) / (2 * step), rtol=1e-6)


def test_steps_count_what_is_capped_keep_dtype_and_do_not_compile_twice():
    cap = RunawayCap.thermal(0.1, 1.5)
    model = ParticleInCell((24,), [Species(0.1, 100, cap=cap)], dx=0.3, dt=0.2, pusher=boris, splitting="effective-field")
    state = begin(model, jax.random.key(0))
    traces = []

    @eqx.filter_jit
    def step(model, state):
        traces.append(1)
        return model(state)

    once = step(model, state)
    twice = step(model, once)
    assert len(traces) == 1
    assert jax.tree.map(lambda leaf: leaf.dtype, twice) == jax.tree.map(lambda leaf: leaf.dtype, state)
    counts = [int(after.particles[0].redrawn) for after in (state, once, twice)]
    beyond = int((lorentz_factor(state.particles[0].momentum) ** 2 > 1 + cap.limit**2).sum())
    assert 0 == counts[0] < counts[1] < counts[2] and abs(counts[1] - beyond) < 20


def test_particles_spread_over_two_devices_give_the_same_fields():
    script = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from gradatim.physics.plasma import ParticleInCell, RunawayCap, Species, TemperatureGradientForce
mesh = jax.make_mesh((2,), ("particles",), axis_types=(jax.sharding.AxisType.Auto,))
force = TemperatureGradientForce(20.0, (1.0, 0.0, 0.0), 0.1)
for shape, cap in (((4, 6), None), ((6,), RunawayCap.thermal(0.1, 1.5))):
    electrons = Species(0.1, 5, force=force, cap=cap)
    make = lambda **options: ParticleInCell(shape, [electrons], dx=0.5, dt=0.3, magnetic=(0.1, 0.0, 0.0), **options)
    alone, spread = make(), make(mesh=mesh)
    step = eqx.filter_jit(lambda model, state: jax.lax.fori_loop(0, 3 if cap is None else 1, lambda _, s: model(s), state))
    start = eqx.filter_jit(alone.start)(jax.random.key(0))
    a, b = step(alone, start), step(spread, spread.spread(start))
    assert len(b.particles[0].momentum.x.sharding.device_set) == 2 and not b.particles[0].momentum.x.is_fully_replicated
    assert b.electric.x.is_fully_replicated
    for p, q in zip(jax.tree.leaves((a.electric, a.magnetic)), jax.tree.leaves((b.electric, b.magnetic))):
        if cap is None: np.testing.assert_allclose(p, q, atol=1e-6)
    print(int(a.particles[0].redrawn), int(b.particles[0].redrawn))
try:
    ParticleInCell((5,), [Species(0.1, 3)], dx=0.5, dt=0.3, mesh=mesh)
except ValueError as error:
    print(error)
"""
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    *counts, message = done.stdout.strip().splitlines()
    assert counts[0] == "0 0" and len(set(counts[1].split())) == 1 and counts[1] != "0 0"
    assert message == "per_cell times cells must be a multiple of the 2 devices of the mesh, got 3 x 5 = 15 particles"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.5}, r"dt must lie between 0 and 0.5 = dx / √1, or light outruns the grid; got 0.5"),
        ({"dt": 0.4, "shape": (4, 4)}, r"between 0 and 0.353553 = dx / √2"),
        ({"dt": -0.1}, "dt must lie between"),
        ({"dx": 0.0}, "dx must be positive, got 0"),
        ({"shape": (4, 4, 4)}, r"shape must be \(nx,\) or \(nx, ny\)"),
        ({"shape": (1,)}, "at least 2 cells"),
        ({"species": []}, "species must be at least one"),
        ({"magnetic": (1.0, 0.0)}, "magnetic must have three components, got 2"),
        ({"splitting": "half"}, "splitting must be one of"),
        ({"filter_passes": -1}, "filter_passes must be at least 0, got -1"),
    ],
)
def test_bad_simulations_are_refused(options, message):
    shape, species = options.pop("shape", (4,)), options.pop("species", [Species(0.1, 4)])
    with pytest.raises(ValueError, match=message):
        ParticleInCell(shape, species, **({"dx": 0.5, "dt": 0.3} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"theta": -0.1}, "theta must be positive"),
        ({"per_cell": 0}, "per_cell must be at least 1, got 0"),
        ({"mass": 0.0}, "mass must be positive, got 0"),
        ({"distribution": "kappa"}, r"distribution must be one of \('gaussian', 'juttner'\), got 'kappa'"),
    ],
)
def test_bad_species_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Species(**({"theta": 0.1, "per_cell": 4} | options))


def test_scales_of_a_magnetised_plasma_hang_together():
    theta, beta = 0.03, 7.0
    scales = PlasmaScales(theta, beta)
    # β = 2 n T / B² in these units; v_th = Ω ρ = √2 λ_D ωₚ.
    assert np.isclose(2 * theta / scales.gyrofrequency**2, beta) and np.isclose(scales.thermal_speed**2, 2 * theta)
    assert np.isclose(scales.gyrofrequency * scales.gyroradius, scales.thermal_speed)
    assert np.isclose(2**0.5 * scales.debye_length, scales.thermal_speed)


def test_cells_beyond_the_debye_length_warn():
    with pytest.warns(UserWarning, match=r"dx should be at most 3 Debye lengths of every species, 3 x 0.1 = 0.3, got 0.5"):
        ParticleInCell((4,), [Species(0.01, 4)], dx=0.5, dt=0.3)


def test_wrong_shapes_of_a_start_are_refused():
    model = ParticleInCell((4,), [Species(0.1, 4)], dx=0.5, dt=0.3)
    with pytest.raises(ValueError, match=r"momenta\[0\] must be 3 arrays of shape \(16,\), got \[\(4,\), \(4,\), \(4,\)\]"):
        jax.eval_shape(lambda key: model.start(key, momenta=[Vector(*(jnp.zeros(4),) * 3)]), jax.random.key(0))
    with pytest.raises(ValueError, match=r"positions\[0\] must be 1 arrays"):
        jax.eval_shape(lambda key: model.start(key, positions=[(jnp.zeros(16), jnp.zeros(16))]), jax.random.key(0))
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        PlasmaScales(0.1, 0.0)
