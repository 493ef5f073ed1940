"""Simulations of the critical theory, arms by seeds in one compiled loop, and what C6 and C7 read off them."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Complex, Int

from gradatim.lab import Measure, Session
from gradatim.numerics import BlockMean, PeriodicGrid, fit_power_law, local_exponents
from gradatim.physics import electrolyte as el

from .ions import single


class _Record(NamedTuple):
    """A batch of simulations, arms by seeds, and what is kept of them."""

    state: el.PolarState
    structure: BlockMean
    modes: Complex[Array, "records arms seeds modes"]


class _Run(NamedTuple):
    steppers: el.PolarStepper  # one for each arm
    chosen: Int[Array, " modes"]
    every: Int[Array, ""]
    warm: Int[Array, ""]


def _step(record: _Record, i: Array, run: _Run) -> _Record:
    """`every` time steps of all simulations, and a record once they have warmed up."""

    def one(state: el.PolarState, stepper: el.PolarStepper) -> el.PolarState:
        return jax.lax.fori_loop(0, run.every, lambda _, state: stepper(state), state)

    state = jax.vmap(jax.vmap(one, (0, None)))(record.state, run.steppers)
    structure = record.structure.update(run.steppers.theory.grid.structure_factor(state.spectrum))
    is_warm = i >= run.warm
    structure = jax.tree.map(lambda new, old: jnp.where(is_warm, new, old), structure, record.structure)
    flat = state.spectrum.reshape(*state.spectrum.shape[:2], -1)[..., run.chosen]
    # Before the simulations are warm the first row is written over and over.
    modes = jax.lax.dynamic_update_index_in_dim(record.modes, flat, jnp.maximum(i - run.warm, 0), 0)
    return _Record(state, structure, modes)


def _watch(record: _Record, run: _Run) -> dict[str, Array]:
    return {"field": run.steppers.theory.grid.backward(record.state.spectrum[0, 0]), "courant": record.state.courant.max()}


@eqx.filter_jit
def _steppers(theories: el.PolarChemotaxis, dt: Array) -> el.PolarStepper:
    return single(jax.vmap(lambda theory: theory.stepper(dt))(theories))


@eqx.filter_jit
def _rest(keys: Array, steppers: el.PolarStepper) -> el.PolarState:
    """Every arm's simulations before their first step, with the same keys in all arms."""
    return jax.vmap(lambda stepper: jax.vmap(stepper.initial)(keys))(steppers)


@eqx.filter_jit
def _one_step(states: el.PolarState, steppers: el.PolarStepper) -> el.PolarState:
    return jax.vmap(lambda state, stepper: jax.vmap(stepper)(state))(states, steppers)


class Simulation(NamedTuple):
    """The end of a batch of simulations."""

    structure: np.ndarray  # arms seeds *spectrum: means of V |ρₖ|²
    lives: np.ndarray  # seeds shells: half-lives of the first arm's modes, in time
    courant: float
    fields: np.ndarray  # looks *shape: the first arm's first seed
    times: np.ndarray  # looks


def simulate(
    session: Session,
    label: str,
    theories: list[el.PolarChemotaxis],
    *,
    dt: float,
    every: int,
    warm: int,
    records: int,
    seeds: int,
    key: Array,
    highest: int,
    equilibrium: bool = False,
) -> Simulation:
    """Runs every theory with the same seeds, and looks `warm` times and then `records` times, to measure, every so many steps.

    Half-lives are taken up to the shell `highest`; `equilibrium`: start from the linear theory's stationary state.
    """
    grid = theories[0].grid
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *theories)
    steppers = _steppers(stacked, jnp.asarray(dt))
    state = _rest(jax.random.split(key, seeds), steppers)
    if equilibrium:
        # Without nonlinear terms one step, as long as one likes, ends in the stationary state.
        state = _one_step(state, _steppers(stacked, jnp.asarray(1e3 * max(grid.box) ** 2)))
    chosen = np.flatnonzero(_shell_of(grid) <= highest)
    structure = BlockMean(jnp.zeros((len(theories), seeds, *grid.spectrum_shape), jnp.float32), max(records // 16, 1))
    record = _Record(state, structure, jnp.zeros((records, len(theories), seeds, chosen.size), jnp.complex64))
    run = _Run(steppers, *(jnp.asarray(x, jnp.int32) for x in (chosen, every, warm)))
    loop = session.loop(_step, record, steps=warm + records, args=run, watch=_watch, label=label)
    history = loop.history
    lives = dt * every * half_lives(np.asarray(loop.state.modes)[:, 0], _shell_of(grid)[chosen], highest)
    courant = float(history["courant"][-1])
    return Simulation(np.asarray(loop.state.structure.value), lives, courant, history["field"], dt * every * history["step"])


def _shell_of(grid: PeriodicGrid) -> np.ndarray:
    return np.rint(np.sqrt(np.asarray(grid.squared_wavenumber())) * max(grid.box) / (2 * np.pi)).astype(int).reshape(-1)


def half_lives(modes: np.ndarray, shells: np.ndarray, highest: int) -> np.ndarray:
    """Records after which the autocorrelation of the modes of each shell 1 … highest is one half, by seed; NaN where it never is.

    `modes` by record, seed and mode; `shells`: of each mode.
    """
    n = modes.shape[0]
    spectrum = np.fft.fft(modes, 2 * n, axis=0)
    correlation = np.fft.ifft(np.abs(spectrum) ** 2, axis=0)[: n // 2].real / (n - np.arange(n // 2))[:, None, None]
    found = np.full((modes.shape[1], highest), np.nan)
    for shell in np.unique(shells[(shells > 0) & (shells <= highest)]):
        decay = correlation[..., shells == shell].mean(-1)
        decay = decay / decay[0]
        for seed in range(modes.shape[1]):
            below = np.flatnonzero(decay[:, seed] < 0.5)
            if below.size:
                i = below[0]
                high, low = decay[i - 1, seed], decay[i, seed]
                found[seed, shell - 1] = i - 1 + (high - 0.5) / (high - low)
    return found


def slopes(k: np.ndarray, values: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Exponents over the shells of a window, NaN where a value is missing; rows are repetitions."""
    low, high = window
    inside = values[..., low - 1 : high]
    whole = np.all(np.isfinite(inside) & (inside > 0), axis=-1, keepdims=True)
    safe = np.where(whole, inside, 1.0)
    found = fit_power_law(jnp.asarray(k[low - 1 : high]), jnp.asarray(safe)).exponent
    return np.where(whole[..., 0], np.asarray(found), np.nan)


def over_seeds(name: str, values: np.ndarray) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measure, or that a run was too short for it."""
    if np.isfinite(values).all():
        return {name: Measure.over_seeds(values)}, {}
    return {}, {name: "a mode of the window did not lose half of its correlation within half of the run"}


def dataset(k: np.ndarray, structure: np.ndarray, lives: np.ndarray, arms: list[str]) -> xr.Dataset:
    """Spectra and half-lives by arm, seed and shell, with local slopes."""
    # Local slopes between means over bins a factor of √2 wide: between neighbours they are all noise.
    index = np.floor(2 * np.log2(np.arange(1, k.size + 1)) + 0.5).astype(int)
    bins = [np.flatnonzero(index == i) for i in np.unique(index)]
    middle = np.array([np.exp(np.log(k[one]).mean()) for one in bins])
    binned = np.stack([structure[..., one].mean((1, 2)) for one in bins], -1)
    return xr.Dataset(
        {
            "structure": (("arm", "seed", "k"), structure, {"units": "1/dx^d"}),
            "local_slope": (
                ("arm", "k_between"),
                np.asarray(local_exponents(jnp.asarray(middle), jnp.asarray(binned, middle.dtype))),
                {"units": "1"},
            ),
            "half_life": (("lived", "seed", "k_low"), lives, {"units": "dx²/D"}),
        },
        {
            "arm": arms,
            "lived": [arms[0], arms[-1]],
            "k": ("k", k, {"units": "1/dx"}),
            "k_between": ("k_between", np.sqrt(middle[1:] * middle[:-1]), {"units": "1/dx"}),
            "k_low": ("k_low", k[: lives.shape[-1]], {"units": "1/dx"}),
        },
    )


def say(session: Session, where: str, slope: np.ndarray, rate: np.ndarray, found: Simulation) -> None:
    """What the run without nonlinear terms gave, and whether the steps of the other were short enough."""
    session.note(
        f"Critical theory, {where}: without nonlinear terms the structure factor has the slope {slope.mean():.2f} "
        f"and z is {rate.mean():.2f}."
    )
    if not found.courant <= el.LARGEST_COURANT:
        session.note(
            f"Critical theory, {where}: the largest (|μ₁|/2 + |μ₂|) |∇φ| k_max dt was {found.courant:.2f}, above {el.LARGEST_COURANT}: "
            "for a moment the steps were longer than they should be."
        )
