"""Particle-in-cell steps: with and without a thermodynamic force, in one and two dimensions; jaxincell on the same plasma."""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from gradatim.physics.plasma import (
    ParticleInCell,
    RunawayCap,
    Species,
    SumForce,
    TemperatureGradientForce,
    VelocityGradientForce,
    field_energy,
    kinetic_energy,
)

sys.path.append(str(Path(__file__).parent / "peers"))
import maxwellian  # pyright: ignore[reportMissingImports]

THETA = maxwellian.THERMAL_SPEED**2
DX = maxwellian.THERMAL_SPEED
ALONG = (1.0, 0.0, 0.0)


def plasma(shape, per_cell, *, is_forced, courant=0.9):
    force = SumForce(TemperatureGradientForce(300.0, ALONG, THETA), VelocityGradientForce.gyrotropic(1e-4, ALONG)) if is_forced else None
    cap = RunawayCap.thermal(THETA) if is_forced else None
    electrons = Species(THETA, per_cell, force=force, cap=cap)
    ions = Species(THETA / maxwellian.ION_MASS, per_cell, charge=1.0, mass=maxwellian.ION_MASS)
    return ParticleInCell(shape, [electrons, ions], dx=DX, dt=courant * DX / len(shape) ** 0.5, magnetic=(0.02, 0.0, 0.0))


def energy(model, state):
    pairs = zip(model.species, state.particles, strict=True)
    return sum(s.mass * kinetic_energy(p.momentum).mean() for s, p in pairs) + field_energy(state.electric, state.magnetic)


def timed(benchmark, model):
    state = eqx.filter_jit(lambda model, key: model.start(key))(model, jax.random.key(0))
    run = jax.jit(lambda state: jax.lax.fori_loop(0, maxwellian.STEPS, lambda _, s: model(s), state)).lower(state).compile()
    end = run(state)
    assert float(jnp.abs(model.gauss_error(end)).max()) < 2e-5
    drift = float(abs(energy(model, end) / energy(model, state) - 1))
    benchmark.pedantic(lambda: jax.block_until_ready(run(state)), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(maxwellian.info(benchmark.stats.stats.median) | {"change of energy": drift})
    return drift


@pytest.mark.parametrize("name", ["gradatim", "gradatim without force", "gradatim float64"])
def test_one_dimension(benchmark, name):
    benchmark.group, benchmark.param = maxwellian.GROUP, name
    with jax.enable_x64("float64" in name):
        drift = timed(benchmark, plasma((maxwellian.CELLS,), maxwellian.PER_CELL, is_forced="without" not in name))
    assert drift < 0.02


@pytest.mark.parametrize("name", ["gradatim", "gradatim, one dimension"])
def test_two_dimensions(benchmark, name):
    """The same number of particles in a box of 40 × 40 cells."""
    benchmark.group, benchmark.param = f"plasma 2D3V, {maxwellian.PARTICLES} particles, {maxwellian.STEPS} steps", name
    shape, per_cell = ((40, 40), 20) if name == "gradatim" else ((maxwellian.CELLS,), maxwellian.PER_CELL)
    timed(benchmark, plasma(shape, per_cell, is_forced=True))
