"""C1: correlations of the driven electrolyte, sampled in two dimensions and summed in three."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import BlockMean, PeriodicGrid, fit_power_law
from gradatim.physics import electrolyte as el

from .config import Correlations

STRIP_TIMES = (0.0, 3.0, 30.0, 300.0)
"Times after the field is switched on, in 1/(D κ²)."


class _Sampling(NamedTuple):
    state: el.Fluctuations
    density: BlockMean
    charge: BlockMean


@eqx.filter_jit
def _samplers(fields: Array, steps: Array, grid: PeriodicGrid) -> el.FluctuationSampler:
    return jax.vmap(lambda field, dt: el.FluctuationSampler(el.DrivenElectrolyte(field=field, dim=2), grid, dt))(fields, steps)


@eqx.filter_jit
def _parts(samplers: el.FluctuationSampler) -> list[el.FluctuationSampler]:
    """All but the last two, and each of these."""
    return [jax.tree.map(take, samplers) for take in (lambda leaf: leaf[:-2], lambda leaf: leaf[-2], lambda leaf: leaf[-1])]


@eqx.filter_jit
def _theory(fields: Array, grid: PeriodicGrid) -> el.StructureFactor:
    k = grid.wavevectors()
    return jax.vmap(lambda field: el.DrivenElectrolyte(field=field, dim=2).structure_factor(k))(fields)


@eqx.filter_jit
def _start(keys: Array, samplers: el.FluctuationSampler) -> _Sampling:
    def one(key: Array, sampler: el.FluctuationSampler) -> _Sampling:
        empty = jnp.zeros(sampler.grid.spectrum_shape)
        return _Sampling(sampler.initial(key), BlockMean(empty), BlockMean(empty))

    return jax.vmap(jax.vmap(one, (0, None)))(keys, samplers)


@eqx.filter_jit
def _errors(mean: BlockMean) -> Array:
    return jax.vmap(jax.vmap(lambda mean: mean.standard_error))(mean)


def _sample(state: _Sampling, i: Any, samplers: el.FluctuationSampler) -> _Sampling:
    del i

    def one(state: _Sampling, sampler: el.FluctuationSampler) -> _Sampling:
        moved = sampler(state.state)
        density, charge = sampler.grid.structure_factor(moved.spectra) / 2
        return _Sampling(moved, state.density.update(density), state.charge.update(charge))

    # Seeds within fields.
    return jax.vmap(jax.vmap(one, (0, None)))(state, samplers)


def _independent(grid: PeriodicGrid) -> float:
    """Steps far longer than the slowest mode takes to relax."""
    return 20 * (max(grid.box) / (2 * np.pi)) ** 2


def _means(session: Session, label: str, samplers: el.FluctuationSampler, n: int, seeds: int, key: Array) -> _Sampling:
    """Means of S_cc and S_ρρ over n samples, by sampler and seed."""
    n_samplers = samplers.root.shape[0]
    states = _start(jax.random.split(key, n_samplers * seeds).reshape(n_samplers, seeds), samplers)
    return session.loop(_sample, states, steps=n, args=samplers, every=n, label=label).state


def run_correlations(config: Correlations, session: Session) -> Findings:
    """All measures of C1."""
    keys = jax.random.split(jax.random.fold_in(session.key, 0), 3)
    grid = PeriodicGrid((config.cells,) * 2, float(config.cells))
    # The last two make the strip of pictures: equilibrium, and the field in steps of one Debye time.
    fields = np.asarray([*config.fields, 0.0, config.strip_field])
    steps = jnp.asarray([_independent(grid)] * (len(config.fields) + 1) + [1.0])
    samplers = _samplers(jnp.asarray(fields), steps, grid)
    here, equilibrium, driven_on = _parts(samplers)
    found = _means(session, "modes of all fields", here, config.samples, config.seeds, keys[0])
    theory = _theory(jnp.asarray(fields[:-2]), grid)
    # Not the mean; nor the Nyquist modes, which in a real field do not feel the drive.
    keep = np.ones(grid.spectrum_shape, bool)
    keep[0, 0] = False
    keep[(config.cells + 1) // 2 : config.cells // 2 + 1] = False
    within = np.zeros((len(config.fields), config.seeds, 2))
    pairs = ((found.density, theory.density), (found.charge, theory.charge))
    for j, (mean, exact) in enumerate(pairs):
        deviation = np.abs(np.asarray(mean.value) - np.asarray(exact)[:, None])
        within[..., j] = (deviation <= 3 * np.asarray(_errors(mean)))[..., keep].mean(-1)
    driven = tuple(field for field in config.fields if field > 0)
    small = PeriodicGrid((8, 8), config.smallest_box)
    lowest = _samplers(jnp.asarray(driven), jnp.full(len(driven), _independent(small)), small)
    smallest = _means(session, "smallest modes", lowest, config.smallest_samples, config.seeds, keys[1])
    density = np.asarray(smallest.density.value)
    ratio = density[..., 1, 0] / density[..., 0, 1]
    limit = 1 / (1 + np.asarray(driven) ** 2)
    measures = {
        "C1.modes_within_three_errors": Measure.over_seeds(within.mean((0, 2))),
        "C1.anisotropy_error": Measure.over_seeds(np.abs(ratio / limit[:, None] - 1).max(0)),
    }
    space, slopes = _space(config, session)
    measures |= slopes
    order = np.argsort(np.fft.fftfreq(config.cells))
    kx = 2 * np.pi * np.fft.fftfreq(config.cells)[order]
    ky = 2 * np.pi * np.arange(config.cells // 2 + 1) / config.cells
    strip = _strip(session, equilibrium, driven_on, keys[2])
    dims = ("field", "kx", "ky")
    data = xr.Dataset(
        {
            "sampled": (dims, np.asarray(found.density.value).mean(1)[:, order], {"units": "2C₀"}),
            "sampled_charge": (dims, np.asarray(found.charge.value).mean(1)[:, order], {"units": "2C₀"}),
            "theory": (dims, np.asarray(theory.density)[:, order], {"units": "2C₀"}),
            "theory_charge": (dims, np.asarray(theory.charge)[:, order], {"units": "2C₀"}),
            "share_within": (("field", "seed", "correlation"), within, {"units": "1"}),
            "ratio": (("driven", "seed"), ratio, {"units": "1"}),
            "ratio_limit": ("driven", limit, {"units": "1"}),
            "strip": (("time", "x", "y"), strip, {"units": "root mean square at t = 0"}),
            **space,
        },
        {
            "field": ("field", list(config.fields), {"units": "k_B T κ/Q"}),
            "driven": ("driven", list(driven), {"units": "k_B T κ/Q"}),
            "correlation": ["density", "charge"],
            "kx": ("kx", kx, {"units": "κ"}),
            "ky": ("ky", ky, {"units": "κ"}),
            "time": ("time", list(STRIP_TIMES), {"units": "1/(D κ²)"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"correlations": data}))


def _space(config: Correlations, session: Session) -> tuple[dict[str, Any], dict[str, Measure]]:
    """G_cc and G_ρρ along and across the field in unbounded space, their slopes, and the first in a periodic box."""
    low, high = config.distances
    distances = np.geomspace(low / 4, high, 61)
    points = jnp.asarray(distances[None, :, None] * np.eye(3)[:2, None, :])

    @jax.jit
    def all_of(field: Array) -> tuple[Array, ...]:
        electrolyte = el.DrivenElectrolyte(field=field)
        functions = (el.density_correlation, el.charge_correlation, el.far_density_correlation, el.far_charge_correlation)
        return tuple(function(electrolyte, points) for function in functions)

    found, charge, far, far_charge = map(np.asarray, all_of(jnp.asarray(config.space_field)))
    still = np.asarray(all_of(jnp.asarray(0.0))[0])
    n = config.space_cells
    grid = PeriodicGrid((n,) * 3, float(n))

    def lines(field: Array) -> Array:
        density, _ = el.correlations_on_grid(el.DrivenElectrolyte(field=field), grid)
        return jnp.stack([density[1 : n // 2, 0, 0], density[0, 1 : n // 2, 0]])

    boxed = np.asarray(session.once("Fourier sum in a box", jax.jit(lines), jnp.asarray(config.space_field)))
    r = np.arange(1.0, n // 2)
    near, fitted = (r > 5) & (r < n / 8), distances >= low * (1 - 1e-9)
    measures, slopes, fits = {}, [], []
    for i, (where, box, sign) in enumerate(zip(("along", "across"), boxed, (1.0, -1.0), strict=True)):
        for name, line in ((f"slope_{where}_field", sign * found[i]), (f"charge_slope_{where}_field", -charge[i])):
            measures[f"C1.{name}"] = Measure.exact(*_far_exponent(distances[fitted], line[fitted]))
            fits.append(float(fit_power_law(jnp.asarray(distances[fitted]), jnp.asarray(line[fitted])).exponent))
        begin = np.log(found[i, 1] / found[i, 0]) / np.log(distances[1] / distances[0])
        in_box = np.polyfit(np.log(r[near]), np.log(np.maximum(sign * box[near], 1e-12)), 1)[0] if near.sum() > 2 else np.nan
        slopes.append((begin, in_box))
    session.note(
        f"The power law of C1 is reached slowly, with corrections of second order in the Debye length over the distance: "
        f"{low / 4:g} Debye lengths away the local slope is {slopes[0][0]:.2f} along the field and {slopes[1][0]:.2f} across, "
        f"and a line through its logarithm from {low:g} to {high:g} of them has the slopes {fits[0]:.2f} and {fits[2]:.2f}, for the charge "
        f"{fits[1]:.2f} and {fits[3]:.2f}. Judged is the local slope {high:g} Debye lengths away."
    )
    if near.sum() > 2:
        session.note(
            f"In a periodic box of {n} Debye lengths, between 5 of them and an eighth of its side, the density correlation falls with the "
            f"exponents {slopes[0][1]:.2f} along the field and {slopes[1][1]:.2f} across: too near for the power law, and images add to it."
        )
    dims = ("direction", "r")
    units = {"units": "2C₀ κ³"}
    return (
        {
            "correlation_in_space": (dims, found, units),
            "charge_in_space": (dims, charge, units),
            "without_field": (dims, still, units),
            "far_theory": (dims, far, units),
            "far_charge_theory": (dims, far_charge, units),
            "correlation_in_box": (("direction", "r_box"), boxed, units),
            "r": ("r", distances, {"units": "1/κ"}),
            "r_box": ("r_box", r, {"units": "1/κ"}),
            "direction": ["along", "across"],
        },
        measures,
    )


def _far_exponent(r: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The local slope at the largest distance, and how far it is from that at half of it."""
    slopes, middles = np.diff(np.log(values)) / np.diff(np.log(r)), np.sqrt(r[1:] * r[:-1])
    half = slopes[np.argmin(np.abs(np.log(2 * middles / r[-1])))]
    return float(slopes[-1]), float(abs(slopes[-1] - half))


class _Strip(NamedTuple):
    sampler: el.FluctuationSampler
    smooth: Array


def _move(state: el.Fluctuations, i: Any, strip: _Strip) -> el.Fluctuations:
    del i
    return strip.sampler(state)


def _smoothed(state: el.Fluctuations, strip: _Strip) -> dict[str, Array]:
    return {"density": strip.sampler.grid.backward(strip.smooth * state.spectra[0])}


def _strip(session: Session, equilibrium: el.FluctuationSampler, driven: el.FluctuationSampler, key: Array) -> np.ndarray:
    """The density, smoothed over a few Debye lengths, from equilibrium on through the switching on of the field."""
    state = eqx.filter_jit(lambda sampler, key: sampler(sampler.initial(key)))(equilibrium, key)
    strip = _Strip(driven, jnp.exp(2 * driven.grid.laplacian()))
    label = "field switched on"
    seen = session.loop(_move, state, steps=int(STRIP_TIMES[-1]), args=strip, every=3, watch=_smoothed, label=label).history
    frames = np.stack([seen["density"][int(time) // 3] for time in STRIP_TIMES])
    return frames / frames[0].std()
