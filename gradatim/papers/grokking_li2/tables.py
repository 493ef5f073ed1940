"""C5 and C9: how many features reproduce a table, how nodes repel each other, and what is left to learn."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import (
    all_pairs,
    cyclic_group,
    feature_energy,
    learned_prediction,
    node_coupling,
    overlap_without,
    pair_features,
    residual_energy,
    ridge_readout,
    split_pairs,
)

ORDER = 11
PHASES = tuple(range(2, 13))
"Nodes a frequency of which the residual is followed."
ENOUGH = 8
"Real nodes a frequency that reproduce it, whatever their phases."
COUPLED, COUPLED_PAIRS, COUPLED_DECAY = 16, 60, 0.1
"Nodes whose couplings are compared, pairs that they see, and weight decay."
LEARNED = (1, 2)
"Frequencies that are reproduced first."
PENALTY = 1e-8
"Of the ridge regression that reproduces them, over the largest eigenvalue."


def run_tables(session: Session, key: PRNGKeyArray) -> Findings:
    """Reconstruction by complex and real nodes, signs of couplings, energies that are left."""
    random = host_generator(key)
    frequencies = np.arange(1, (ORDER - 1) // 2 + 1)
    complex_residual = residual_of(squares_of_characters(ORDER))
    curves = {way: [residual_of(real_nodes(random, ORDER, frequencies, n, way)) for n in PHASES] for way in ("free", "inverse", "same")}
    at = {n: dict(zip(curves, values, strict=True)) for n, *values in zip(PHASES, *curves.values(), strict=True)}
    session.note(
        f"C5: relative residual of {ORDER} elements with n real nodes a frequency: {ENOUGH} with random phases {at[ENOUGH]['free']:.2g}, "
        f"{ENOUGH - 1} {at[ENOUGH - 1]['free']:.3f}; {ENOUGH} with v = ±u read at the inverse, as the maxima are said to be, "
        f"{at[ENOUGH]['inverse']:.3f}, twelve {at[PHASES[-1]]['inverse']:.3f}; {ENOUGH} with v = ±u read plainly {at[ENOUGH]['same']:.2g}, "
        f"which random phases u let span"
    )
    agreement = _sign_agreement(random, key)
    left = _energy_left(random, frequencies)
    others = [left[k - 1] for k in frequencies if k not in LEARNED]
    session.note(f"C9: energy left of frequencies not learned, over that before: {np.round(others, 4).tolist()}")
    measures = {
        "C5.complex_residual": Measure.exact(complex_residual),
        "C5.real_residual": Measure.exact(at[ENOUGH]["free"]),
        "C5.in_phase_residual": Measure.exact(at[ENOUGH]["inverse"]),
        "C9.sign_agreement": Measure.exact(agreement),
        "C9.learned_energy_left": Measure.exact(float(max(left[k - 1] for k in LEARNED))),
    }
    data = xr.Dataset(
        {
            "residual": (("way", "nodes"), np.array(list(curves.values())), {"units": "1", "long_name": "relative residual of the table"}),
            "energy_left": ("frequency", left, {"units": "1", "long_name": "energy after two frequencies are learned, over before"}),
        },
        {"way": list(curves), "nodes": list(PHASES), "frequency": frequencies},
        {"order": ORDER, "complex_residual": complex_residual, "learned": list(LEARNED)},
    )
    return Findings(measures, xr.DataTree.from_dict({"tables": data}))


def squares_of_characters(order: int) -> Complex[np.ndarray, "pairs nodes"]:
    """Features of the 2M - 2 complex nodes u = χ, v = ±χ, a pair for each character but the trivial one."""
    group = cyclic_group(order)
    first, second = np.indices((order, order)).reshape(2, -1)
    chi = group.characters[1:]
    return np.concatenate([(chi[:, first] + sign * chi[:, second]) ** 2 for sign in (1, -1)]).T


def real_nodes(
    random: np.random.Generator, order: int, frequencies: np.ndarray, per_frequency: int, way: str
) -> Float[np.ndarray, "pairs nodes"]:
    """Features of nodes of one frequency each: u[a] = cos(ka + φ), and v of free phase, or ±u read at the inverse or plainly."""
    first, second = np.indices((order, order)).reshape(2, -1)
    columns = []
    for k, number in itertools.product(frequencies, range(per_frequency)):
        phase, other = random.uniform(0, 2 * np.pi, 2)
        angle = 2 * np.pi * k / order
        sign = 1 if number % 2 == 0 else -1
        # u[b⁻¹] = cos(-kb + φ).
        v = {"free": np.cos(angle * second + other), "inverse": sign * np.cos(angle * second - phase)}.get(
            way, sign * np.cos(angle * second + phase)
        )
        columns.append((np.cos(angle * first + phase) + v) ** 2)
    return np.stack(columns, axis=1)


def residual_of(features: np.ndarray) -> float:
    """Of the centred table, relative, by least squares with centred features."""
    order = round(len(features) ** 0.5)
    targets = np.eye(order)[cyclic_group(order).table.ravel()]
    targets = targets - targets.mean(axis=0)
    F = features - features.mean(axis=0)
    weights, *_ = np.linalg.lstsq(F, targets.astype(F.dtype), rcond=1e-10)
    return float(np.linalg.norm(targets - F @ weights) / np.linalg.norm(targets))


def _sign_agreement(random: np.random.Generator, key: PRNGKeyArray) -> float:
    train, _ = split_pairs(cyclic_group(ORDER), key=key, n_train=COUPLED_PAIRS)
    pairs = np.array(list(itertools.combinations(range(COUPLED), 2)))

    @jax.jit
    def both(weights: Array, table: Array) -> tuple[Array, Array]:
        features = pair_features(weights, table, jnp.square)
        overlap, _ = overlap_without(features, jnp.asarray(pairs), decay=COUPLED_DECAY)
        return node_coupling(features, decay=COUPLED_DECAY), overlap

    coupling, overlap = jax.device_get(both(jnp.asarray(random.normal(size=(2 * ORDER, COUPLED))), train.pairs))
    coupling = coupling[pairs[:, 0], pairs[:, 1]]
    return float(np.mean(np.sign(coupling) == -np.sign(overlap)))


def _energy_left(random: np.random.Generator, frequencies: np.ndarray) -> np.ndarray:
    """By frequency: the energy of a node of it against what a read-out on nodes of the learned ones leaves, over that against all."""
    table, group = all_pairs(cyclic_group(ORDER)), cyclic_group(ORDER)
    F = real_nodes(random, ORDER, np.array(LEARNED), ENOUGH, "free")
    F = F - F.mean(axis=0)
    penalty = PENALTY * float(np.linalg.norm(F, ord=2)) ** 2
    outputs = F @ np.asarray(ridge_readout(jnp.asarray(F), table.labels, ORDER, decay=penalty))
    known = learned_prediction(group, LEARNED)[np.asarray(table.labels)]
    if not np.allclose(outputs, known, atol=1e-3):
        raise RuntimeError("the read-out must say what its frequencies can: the closed form differs")
    angles = 2 * np.pi * frequencies / ORDER * np.arange(ORDER)[:, None]
    waves = np.cos(angles + random.uniform(0, 2 * np.pi, len(frequencies)))
    residual = np.eye(ORDER)[np.asarray(table.labels)] - outputs

    @jax.jit
    def left(w: Array, residual: Array) -> Array:
        return residual_energy(pair_features(w, table.pairs, jnp.square), residual) / feature_energy(w, table)

    return np.asarray(left(jnp.asarray(np.concatenate([waves, waves])), jnp.asarray(residual)))
