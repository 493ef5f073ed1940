"""Sparse codes learned for a task, beside penalised logistic regression and a dictionary learned without labels (C6)."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.datasets import breast_cancer
from gradatim.implicit import custom_fixed_point, iterate, prox_elastic_net, proximal_gradient
from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.lab.measures import student_factor

from .config import Dictionary

BOUNDS = (0.6, 0.75)
"Where the validation and the test part of a split begin, shares of all tumours."
GAMMA = 1.0
"Weight of the square in the elastic net."
DECAY = 1e-3
"Penalty of the classifier on the codes while a dictionary is trained."
INVERSE_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"The same grid for every logistic regression; the validation set chooses."
ARMS = ("task-driven", "unsupervised", "l1 logistic", "l2 logistic")


class Splits(NamedTuple):
    """Features, standardised by the training part, and labels: one row a split."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def run_dictionary(config: Dictionary, session: Session) -> Findings:
    """C6: the area under the curve of each arm on every split."""
    splits = _split(config, session)
    X, y = (jnp.asarray(part, float) for part in splits.train)
    first = np.linalg.svd(splits.train[0], full_matrices=False)[2][:, : config.atoms]
    dictionaries = {
        "task-driven": _learn(config, session, X, y, jnp.asarray(first), supervised=True),
        "unsupervised": _learn(config, session, X, y, jnp.asarray(first), supervised=False),
    }
    # All parts at once: one program.
    whole, sizes = jnp.asarray(np.concatenate([x for x, _ in splits], axis=1)), [x.shape[1] for x, _ in splits]
    labels = [y for _, y in splits]
    encode, areas = _encode(config), {}
    chosen: dict[str, list[tuple[int, int]]] = {name: [] for name in ARMS}
    for name, dictionary in dictionaries.items():
        codes = np.asarray(session.once(f"codes, {name}", encode, dictionary, whole))
        encoded = np.split(codes, np.cumsum(sizes)[:-1], axis=2)
        candidates = [
            [[_Part(codes[i, s], y[s]) for codes, y in zip(encoded, labels, strict=True)] for i in range(len(config.strengths))]
            for s in range(config.splits)
        ]
        areas[name] = np.array([_best(candidate, 0.0, chosen[name]) for candidate in candidates])
    for name, l1_ratio in (("l1 logistic", 1.0), ("l2 logistic", 0.0)):
        parts = [[_Part(x[s], y[s]) for x, y in splits] for s in range(config.splits)]
        areas[name] = np.array([_best([candidate], l1_ratio, chosen[name]) for candidate in parts])
    _note_edges(config, session, chosen)
    table = 100 * np.stack([areas[name] for name in ARMS])
    rival = max((2, 3), key=lambda i: table[i].mean())
    session.note(f"dictionary: of the penalties, {ARMS[rival]} is the better, at {table[rival].mean():.2f} points on average")
    measures = {
        "C6.gain_over_logistic": over_splits(table[0] - table[rival]),
        "C6.gain_over_unsupervised": over_splits(table[0] - table[1]),
    }
    data = xr.Dataset({"area": (("arm", "split"), table, {"units": "points"})}, {"arm": list(ARMS), "split": np.arange(config.splits)})
    return Findings(measures, xr.DataTree.from_dict({"dictionary": data}))


def over_splits(gains: np.ndarray) -> Measure:
    """The mean over random splits of the same tumours, which overlap and are no independent repetitions.

    The variance of the mean is s² (1/J + n_test / n_train) over J splits, not s² / J (Nadeau and Bengio, Machine Learning 52, 2003).
    """
    n, mean = gains.size, float(gains.mean())
    half = student_factor(n) * float(gains.std(ddof=1)) * math.sqrt(1 / n + (1 - BOUNDS[1]) / BOUNDS[1])
    return Measure(mean, mean - half, mean + half, f"corrected t over {n} overlapping splits", tuple(gains.tolist()))


def _split(config: Dictionary, session: Session) -> Splits:
    table = breast_cancer()
    session.uses(table.provenance)
    random = host_generator(session.key)
    n = len(table.labels)
    bounds = [0, *(round(bound * n) for bound in BOUNDS), n]
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[], [], []]
    for _ in range(config.splits):
        X = np.hstack([table.features, random.normal(size=(n, config.noise_features))])
        order = random.permutation(n)
        rows = [order[a:b] for a, b in pairwise(bounds)]
        mean, spread = X[rows[0]].mean(0), X[rows[0]].std(0)
        for part, chosen in zip(parts, rows, strict=True):
            part.append(((X[chosen] - mean) / spread, table.labels[chosen]))
    return Splits(*((np.stack([x for x, _ in part]), np.stack([y for _, y in part])) for part in parts))


def _codes(config: Dictionary, dictionary: Any, X: Any, strength: Any) -> Any:
    """argmin_c ½‖x - cD‖² + λ(‖c‖₁ + γ/2 ‖c‖²) for each row x, differentiable in D through the proximal-gradient fixed point."""
    gram, products = dictionary @ dictionary.T, X @ dictionary.T
    rate = 1 / jax.lax.stop_gradient(jnp.linalg.eigvalsh(gram)[-1])

    def objective(code: Any, problem: Any) -> Any:
        product, gram = problem
        return code @ gram @ code / 2 - product @ code

    step = proximal_gradient(objective, lambda v, eta, strength: prox_elastic_net(v, eta, strength, GAMMA), stepsize=rate)
    solve = custom_fixed_point(step)(iterate(step, n_steps=config.inner_steps))
    return jax.vmap(lambda product: solve(jnp.zeros_like(product), (product, gram), strength))(products)


def _encode(config: Dictionary) -> Any:
    """Codes over strengths and splits."""
    strengths = jnp.asarray(config.strengths)
    over_splits = jax.vmap(lambda D, X, strength: _codes(config, D, X, strength), in_axes=(0, 0, None))
    return jax.jit(lambda dictionaries, X: jax.vmap(over_splits, in_axes=(0, None, 0))(dictionaries, X, strengths))


def _learn(config: Dictionary, session: Session, X: Any, y: Any, first: Any, *, supervised: bool) -> Any:
    """Dictionaries over strengths and splits, from the leading right singular vectors."""
    n_strengths = len(config.strengths)
    adam = optax.adam(config.rate)

    def loss(params: Any, X: Any, y: Any, strength: Any) -> Any:
        D, w, b = params
        codes = _codes(config, D, X, strength)
        if not supervised:
            # At the best codes the derivative of the objective in D is the partial one.
            return jnp.mean(jnp.sum((X - jax.lax.stop_gradient(codes) @ D) ** 2, axis=1)) / 2
        margins = (2 * y - 1) * (codes @ w + b)
        return jnp.mean(jax.nn.softplus(-margins)) + DECAY / 2 * jnp.sum(w**2)

    gradient = jax.vmap(jax.value_and_grad(loss), in_axes=(0, 0, 0, None))
    gradient = jax.vmap(gradient, in_axes=(0, None, None, 0))

    def step(state: Any, i: Any, args: Any) -> Any:
        params, memory, _ = state
        values, slopes = gradient(params, *args)
        updates, memory = adam.update(slopes, memory)
        moved: Any = optax.apply_updates(params, updates)
        D, w, b = moved
        return (D / jnp.linalg.norm(D, axis=-1, keepdims=True), w, b), memory, values

    start = jnp.tile(first[None], (n_strengths, 1, 1, 1))
    params = (start, jnp.zeros(start.shape[:3]), jnp.zeros(start.shape[:2]))
    name = "task-driven" if supervised else "unsupervised"
    loop = session.loop(
        step,
        (params, adam.init(params), jnp.zeros(start.shape[:2])),
        steps=config.outer_steps,
        args=(X, y, jnp.asarray(config.strengths)),
        watch=lambda state, _: {"loss": state[2]},
        label=f"dictionary, {name}",
    )
    return loop.state[0][0]


class _Part(NamedTuple):
    features: Any
    labels: np.ndarray


def _note_edges(config: Dictionary, session: Session, chosen: dict[str, list[tuple[int, int]]]) -> None:
    """How often the best point of a grid was its last."""
    for name, points in chosen.items():
        grids: list[tuple[str, tuple[float, ...], list[int]]] = [("penalties", INVERSE_PENALTIES, [penalty for _, penalty in points])]
        if name in ARMS[:2]:
            grids.append(("strengths", config.strengths, [strength for strength, _ in points]))
        for what, grid, indices in grids:
            low, high = indices.count(0), indices.count(len(grid) - 1)
            if low or high:
                session.note(
                    f"dictionary: {name} chose the first of its {what} {grid} in {low} and the last in {high} of {len(indices)} splits"
                )


def _best(candidates: list[list[_Part]], l1_ratio: float, chosen: list[tuple[int, int]]) -> float:
    """The test area of the logistic regression with the best validation area, over inverse penalties and candidate features.

    What was chosen, candidate and penalty, is added to `chosen`; of equals the first one.
    """
    # Takes a second to import.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    # Before version 1.8 the kind of penalty was a word.
    is_word = getattr(LogisticRegression(), "penalty", "deprecated") != "deprecated"
    kind: dict[str, Any] = {"penalty": "l1" if l1_ratio else "l2"} if is_word else {"l1_ratio": l1_ratio}
    best, area, point = -1.0, float("nan"), (0, 0)
    for i, (train, validation, test) in enumerate(candidates):
        for j, inverse in enumerate(INVERSE_PENALTIES):
            model = LogisticRegression(C=inverse, solver="liblinear", random_state=0, **kind)
            with warnings.catch_warnings():
                # Weak penalties of separable data converge slowly; the validation set does not choose them.
                warnings.simplefilter("ignore")
                model.fit(np.asarray(train.features), train.labels)
            scores = [roc_auc_score(part.labels, model.decision_function(np.asarray(part.features))) for part in (validation, test)]
            if scores[0] > best:
                best, area, point = float(scores[0]), float(scores[1]), (i, j)
    chosen.append(point)
    return area
