"""C1, C2, C6, C8, C10, C11 and C12: networks of pairs in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import FiniteGroup, cyclic_group, dihedral_group, repelled_collection_time, simulate_collection

from .config import Decays, Few, Grams, Phase, Solved, Starts, Window
from .judging import Criterion, crossings, epoch_ratio, epochs_to_generalise
from .training import NOT_LOOKED_AT, Method, Replicas, Trained, features_of, train

LOOKS = 60
"At which a training is watched."
GRAM_LOOKS = 20
"The same where Gram matrices are: each look is as dear as several steps."
UNITS = {"loss": "1", "accuracy": "1", "gradient": "1", "nodes": "1", "samples": "1", "alignment": "1"}


def curves(trained: Trained, arms: list[str], seeds: int) -> dict[str, Any]:
    """What was watched, by arm and seed."""
    found = {}
    for name, values in trained.history.items():
        if name != "step" and not (values == NOT_LOOKED_AT).all():
            rows = values.reshape(len(values), len(arms), seeds)
            found[name] = (("step", "arm", "seed"), rows, {"units": UNITS[name.rsplit("_", 1)[-1]]})
    return found


def every(epochs: int) -> int:
    """Steps between two looks."""
    return max(epochs // LOOKS, 1)


def n_pairs(fraction: float, order: int) -> int:
    """How many pairs a fraction of the table is."""
    return min(max(1, round(fraction * order**2)), order**2)


def run_decays(config: Decays, session: Session, key: PRNGKeyArray) -> Findings:
    """C1 and C2: with decay and without, and the Gram matrices with it."""
    group, arms = cyclic_group(config.order), ["with decay", "without"]
    common = {"n_train": config.n_train, "rate": config.rate}
    settings: dict[str, Any] = {"key": key, "epochs": config.epochs, "every": every(config.epochs), "has_grams": True}
    replicas = Replicas.of([{**common, "decay": config.decay}, {**common, "decay": 0.0}], config.seeds)
    trained = train(session, group, replicas, width=config.width, label="decay", **settings)
    accuracy = trained.history["test_accuracy"][-1].reshape(2, config.seeds)
    _note_ratios(session, config.order, config.width, trained.history, config.seeds)
    features = features_of(trained, group)
    purity, found = features.mean("purity").reshape(2, -1), features.found().reshape(2, -1)
    session.note(
        f"C1: test accuracy {accuracy.round(3).tolist()} with decay and without, train accuracy "
        f"{trained.history['train_accuracy'][-1].reshape(2, -1).round(3).tolist()}, purity {purity.round(3).tolist()}, frequencies found "
        f"{found.tolist()} of {(config.order - 1) // 2}"
    )
    first = np.asarray(trained.networks.first)[0]
    strongest = np.argsort(-features.length[0] * (features.purity[0] > 0.5), kind="stable")[:16]
    data = xr.Dataset(
        {
            **curves(trained, arms, config.seeds),
            "purity": (("arm", "seed"), purity, {"units": "1"}),
            "shown": (("input", "node"), first[:, strongest], {"units": "1", "long_name": "weights of the longest pure nodes, with decay"}),
        },
        {"step": trained.history["step"], "arm": arms},
        {"order": config.order, "width": config.width},
    )
    return Findings({"C1.accuracy_gain_from_decay": Measure.paired(accuracy[0], accuracy[1])}, xr.DataTree.from_dict({"decays": data}))


def run_grams(config: Grams, session: Session, key: PRNGKeyArray) -> Findings:
    """C2: off-diagonal entries over diagonal ones along training, of many nodes and of few."""
    group = cyclic_group(config.order)
    arm = {"n_train": n_pairs(config.train_fraction, config.order), "rate": config.rate, "decay": config.decay}
    ratios, accuracy, steps = [], [], np.zeros(0)
    for width in (config.few_nodes, config.width):
        trained = train(
            session,
            group,
            Replicas.of([arm], config.seeds),
            key=key,
            width=width,
            epochs=config.epochs,
            every=max(config.epochs // GRAM_LOOKS, 1),
            label=f"Gram matrices, {width} nodes",
            has_grams=True,
        )
        ratios.append(_note_ratios(session, config.order, width, trained.history, config.seeds))
        accuracy.append(trained.history["test_accuracy"])
        steps = trained.history["step"]
    data = xr.Dataset(
        {
            "off_diagonal": (("width", "step", "seed"), np.stack(ratios), {"units": "1", "long_name": "the larger of both Gram matrices"}),
            "test_accuracy": (("width", "step", "seed"), np.stack(accuracy), {"units": "1"}),
        },
        {"width": [config.few_nodes, config.width], "step": steps},
        {"order": config.order},
    )
    return Findings({"C2.off_diagonal_ratio": Measure.over_seeds(ratios[-1].max(axis=0))}, xr.DataTree.from_dict({"grams": data}))


def _note_ratios(session: Session, order: int, width: int, history: Mapping[str, np.ndarray], seeds: int) -> np.ndarray:
    """The larger of both ratios by look and seed, of the first replicas."""
    both = np.stack([history[f"off_diagonal_{name}"][:, :seeds] for name in ("nodes", "samples")])
    session.note(
        f"C2: off-diagonal over diagonal of {order} elements and {width} nodes, of nodes and of samples, mean over seeds: largest over "
        f"training {both.max(axis=1).mean(axis=1).round(3).tolist()}, at the start "
        f"{both[:, 0].mean(axis=1).round(3).tolist()}"
    )
    return both.max(axis=0)


def run_phase(config: Phase, session: Session, key: PRNGKeyArray) -> Findings:
    """C6: the constant and the fraction at which test accuracy comes to one half, order by order."""
    groups: dict[str, FiniteGroup] = {f"cyclic {n}": cyclic_group(n) for n in config.orders}
    groups |= {f"dihedral {2 * n}": dihedral_group(n) for n in config.sides}
    orders = np.array([group.order for group in groups.values()])
    accuracy = np.empty((len(groups), config.seeds, len(config.constants)))
    for number, (name, group) in enumerate(groups.items()):
        fractions = [c * math.log(group.order) / group.order for c in config.constants]
        arms = [{"n_train": n_pairs(f, group.order), "rate": config.rate, "decay": config.decay} for f in fractions]
        trained = train(
            session,
            group,
            Replicas.of(arms, config.seeds),
            key=jax.random.fold_in(key, number),
            width=config.width,
            epochs=config.epochs,
            every=config.epochs,
            label=f"phase, {name}",
        )
        accuracy[number] = trained.history["test_accuracy"][-1].reshape(len(arms), config.seeds).T
    crossing = np.stack([crossings(config.constants, rows) for rows in accuracy])
    fraction = crossing * (np.log(orders) / orders)[:, None]
    n = len(config.orders)
    mean = crossing[:n].mean(axis=0)
    deviation = abs(crossing[:n] / mean - 1).max(axis=0)
    for name, rows, c in zip(groups, accuracy, crossing, strict=True):
        at_the_edge = ((c == config.constants[0]) | (c == config.constants[-1])).sum()
        edge = f", {at_the_edge} of them at the edge of the grid" if at_the_edge else ""
        session.note(
            f"C6, {name}: mean test accuracy {rows.mean(axis=0).round(3).tolist()} at {list(config.constants)}; crosses one half at "
            f"{c.round(3).tolist()}{edge}"
        )
    data = xr.Dataset(
        {
            "accuracy": (("group", "seed", "constant"), accuracy, {"units": "1", "long_name": "test accuracy at the end"}),
            "crossing": (("group", "seed"), crossing, {"units": "1"}),
            "fraction": (("group", "seed"), fraction, {"units": "1"}),
        },
        {"group": list(groups), "constant": list(config.constants), "order": ("group", orders)},
        {"n_cyclic": n},
    )
    measures = {
        "C6.critical_constant": Measure.over_seeds(mean),
        "C6.constant_deviation": Measure.over_seeds(deviation),
    }
    untested = {}
    if len(orders) > n:
        measures["C6.dimension_ratio"] = _dimension_ratio(session, orders, crossing, n)
    else:
        untested["C6.dimension_ratio"] = "all groups are commutative"
    if n > 1:
        measures["C6.critical_fractions"] = Measure.paired_sequence(list(fraction[:n]))
    else:
        untested["C6.critical_fractions"] = "one group has no order"
    return Findings(measures, xr.DataTree.from_dict({"phase": data}), untested)


def _dimension_ratio(session: Session, orders: np.ndarray, crossing: np.ndarray, n_cyclic: int) -> Measure:
    """The constant of the dihedral groups over that of the cyclic one nearest in order, geometric mean over the groups of each seed."""
    nearest = [int(abs(orders[:n_cyclic] - order).argmin()) for order in orders[n_cyclic:]]
    logs = np.log(crossing[n_cyclic:] / crossing[nearest])
    measure = Measure.paired(np.exp(logs.mean(axis=0)), np.ones(crossing.shape[1]), "log-ratio")
    session.note(
        f"C6: constants of the dihedral groups, d = 2, of {orders[n_cyclic:].tolist()} elements over those of cyclic ones of "
        f"{orders[nearest].tolist()}, mean over seeds: {np.exp(logs.mean(axis=1)).round(3).tolist()}; d² is 4, and the authors' code takes "
        "d/2, which is 1"
    )
    return measure


def run_window(config: Window, session: Session, key: PRNGKeyArray) -> Findings:
    """C8: a small rate and a large one, at fractions between those that never and those that always generalise."""
    group = cyclic_group(config.order)
    log_ratio = math.log(config.order) / config.order
    cases = [(c, rate) for c in config.constants for rate in config.rates]
    arms = [{"n_train": n_pairs(c * log_ratio, config.order), "rate": rate, "decay": config.decay} for c, rate in cases]
    trained = train(
        session,
        group,
        Replicas.of(arms, config.seeds),
        key=key,
        width=config.width,
        epochs=config.epochs,
        every=every(config.epochs),
        label="window",
    )
    shape = (len(config.constants), 2, config.seeds)
    accuracy = trained.history["test_accuracy"][-1].reshape(shape)
    features = features_of(trained, group)
    energy = (features.mean("energy") / config.order).reshape(shape)
    session.note(
        f"C8: at the end of {config.epochs} epochs, rates {list(config.rates)} by constants {list(config.constants)}: test accuracy "
        f"{accuracy.mean(axis=2).round(3).tolist()}, energy over order, mean over nodes, on the training pairs "
        f"{energy.mean(axis=2).round(5).tolist()}"
    )
    data = xr.Dataset(
        {
            "accuracy": (("constant", "rate", "seed"), accuracy, {"units": "1"}),
            "energy": (("constant", "rate", "seed"), energy, {"units": "M"}),
            "curve": (
                ("step", "constant", "rate", "seed"),
                trained.history["test_accuracy"].reshape(-1, *shape),
                {"units": "1", "long_name": "test accuracy"},
            ),
        },
        {"constant": list(config.constants), "rate": list(config.rates), "step": trained.history["step"]},
        {"order": config.order},
    )
    by_seed = {name: values.mean(axis=0) for name, values in (("accuracy", accuracy), ("energy", energy))}
    measures = {
        "C8.accuracy_difference": Measure.paired(by_seed["accuracy"][0], by_seed["accuracy"][1]),
        "C8.energy_difference": Measure.paired(by_seed["energy"][1], by_seed["energy"][0]),
    }
    return Findings(measures, xr.DataTree.from_dict({"window": data}))


def run_few(config: Few, session: Session, key: PRNGKeyArray) -> Findings:
    """C10: both optimisers at the best of as many rates each, and the collection of features in simulation."""
    group = cyclic_group(config.order)
    grids = {"adam": config.adam_rates, "muon": config.muon_rates}
    if len(set(map(len, grids.values()))) != 1:
        raise ValueError(f"adam_rates and muon_rates must be as many, got {len(config.adam_rates)} and {len(config.muon_rates)}")
    pilots: dict[str, dict[str, np.ndarray]] = {}
    judged: dict[str, dict[str, np.ndarray]] = {}
    best: dict[str, float] = {}
    settings: dict[str, Any] = {"key": key, "width": config.width, "epochs": config.epochs, "every": every(config.epochs)}
    common = {"n_train": n_pairs(config.train_fraction, config.order), "decay": config.decay}
    for name, rates in grids.items():
        method: Method = "muon" if name == "muon" else "adam"
        arms = [{**common, "rate": rate} for rate in rates]
        replicas = Replicas.of(arms, config.pilots)
        pilots[name] = train(session, group, replicas, label=f"few nodes, {name}, pilots", method=method, **settings).history
        losses = pilots[name]["test_loss"][-1].reshape(len(rates), config.pilots)
        chosen = _best(losses)
        best[name] = rates[chosen]
        # Several rates are nearly tied, so that seeds which choose for each other are tied through the choice, and a minimum over the
        # rates is too low and not smooth enough for a jackknife. Given what pilots have chosen, the judged seeds are independent.
        replicas = Replicas.of([arms[chosen]], config.seeds, first=config.pilots)
        judged[name] = train(session, group, replicas, label=f"few nodes, {name}", method=method, **settings).history
        edge = ", at the edge of the grid" if chosen in (0, len(rates) - 1) else ""
        session.note(
            f"C10, {name}: mean test loss of {config.pilots} pilots {losses.mean(axis=1).round(4).tolist()} at the rates {list(rates)}; "
            f"best {best[name]:g}{edge}, where that of {config.seeds} judged seeds is {judged[name]['test_loss'][-1].mean():.4g}"
        )
    alignment, stepped = (
        np.concatenate([part["muon"][name] for part in (pilots, judged)], axis=1) for name in ("alignment", "step_alignment")
    )
    session.note(
        f"C10: cosine of the gradient and Muon's step, with momentum and decay, which is not always a descent: negative at "
        f"{100 * np.mean(stepped < 0):.1f} % of the looks, {np.nanmin(stepped):.3f} at least; of the gradient's own orthogonal factor "
        f"{np.nanmin(alignment):.3f} at least"
    )
    ratio, simulated = _collection(config, session, jax.random.fold_in(key, 1))
    measures = {"C10.smallest_alignment": Measure.exact(float(np.nanmin(alignment))), "C10.collection_ratio": ratio}
    untested = {}
    ends = {name: history["test_loss"][-1] for name, history in judged.items()}
    diverged = {name: int((~np.isfinite(end)).sum()) for name, end in ends.items()}
    if any(diverged.values()):
        untested["C10.loss_over_adam"] = f"judged seeds diverge at the rates that the pilots chose: {diverged}"
    else:
        measures["C10.loss_over_adam"] = Measure.paired(ends["muon"], ends["adam"], "log-ratio")
    data = xr.Dataset(
        {
            "pilot_loss": (
                ("arm", "step", "grid", "pilot"),
                np.stack([pilots[name]["test_loss"].reshape(-1, len(rates), config.pilots) for name, rates in grids.items()]),
                {"units": "1", "long_name": "test loss"},
            ),
            "test_loss": (("arm", "step", "seed"), np.stack([history["test_loss"] for history in judged.values()]), {"units": "1"}),
            "rate": (("arm", "grid"), np.array(list(grids.values())), {"units": "1", "long_name": "learning rate"}),
            "best_rate": ("arm", np.array(list(best.values())), {"units": "1", "long_name": "of the pilots"}),
            "alignment": (("step", "run"), alignment, {"units": "1"}),
            "step_alignment": (("step", "run"), stepped, {"units": "1"}),
        },
        {"arm": list(grids), "step": judged["adam"]["step"]},
        {"width": config.width, "order": config.order},
    )
    return Findings(measures, xr.DataTree.from_dict({"few": data, "collection": simulated}), untested)


def _best(losses: np.ndarray) -> int:
    """Of axes (rate, seed): the rate of the least mean, among those that no seed diverges at."""
    means = losses.mean(axis=1)
    if not np.isfinite(means).any():
        raise ValueError("training diverges at every rate: try smaller ones")
    return int(np.where(np.isfinite(means), means, np.inf).argmin())


def _collection(config: Few, session: Session, key: PRNGKeyArray) -> tuple[Measure, xr.Dataset]:
    """Simulated over predicted numbers of nodes, of the tail that is farthest off."""
    measures, rows, equal = [], [], []
    for number, tail in enumerate(config.tails):
        counts = {}
        for held in (0.5, 1.0):
            each = jax.random.fold_in(jax.random.fold_in(key, number), int(2 * held))
            counts[held] = np.asarray(
                simulate_collection(each, config.features, tail=tail, held_strength=held, n_trials=config.trials), np.float64
            )
        predicted = repelled_collection_time(config.features, tail)
        value, half = counts[0.5].mean() / predicted, 1.96 * counts[0.5].std(ddof=1) / config.trials**0.5 / predicted
        measures.append(Measure(value, value - half, value + half, f"normal over {config.trials} trials"))
        rows.append((counts[0.5].mean(), predicted))
        equal.append(counts[1.0].mean())
    known = config.features * (1 / np.arange(1, config.features + 1)).sum()
    session.note(
        f"C10: nodes to collect {config.features} maxima, simulated and predicted, by tail index {list(config.tails)}: "
        f"{np.round(rows, 2).tolist()}; with equal chances {np.round(equal, 2).tolist()}, predicted {known:.2f}"
    )
    worst = max(measures, key=lambda m: abs(m.intervals()[0][0] - 1))
    simulated, predicted = np.array(rows).T
    data = xr.Dataset(
        {
            "simulated": ("tail", simulated, {"units": "nodes"}),
            "predicted": ("tail", predicted, {"units": "nodes"}),
            "equal_chances": ("tail", equal, {"units": "nodes"}),
        },
        {"tail": list(config.tails)},
        {"features": config.features, "known": known},
    )
    return worst, data


def run_starts(config: Starts, session: Session, key: PRNGKeyArray) -> Findings:
    """C11: the usual start of the read-out against zero, where data are scarce and where they are not."""
    group, arms = cyclic_group(config.order), ["usual", "zero"]
    tree: dict[str, xr.Dataset] = {}
    found: dict[str, Measure | str] = {}
    for name, fraction, epochs in (("scarce", config.scarce, config.scarce_epochs), ("ample", config.ample, config.ample_epochs)):
        common = {"n_train": n_pairs(fraction, config.order), "rate": config.rate, "decay": config.decay}
        replicas = Replicas.of([{**common, "readout_scale": scale} for scale in (1.0, 0.0)], config.seeds)
        # Looked at often: the times are what is compared.
        look = max(epochs // 200, 1)
        trained = train(session, group, replicas, key=key, width=config.width, epochs=epochs, every=look, label=f"starts, {name}")
        times = epochs_to_generalise(trained.history["test_accuracy"], trained.history["step"]).reshape(2, -1)
        found[name] = epoch_ratio(session, f"C11, {name} data", times[0], times[1], last=epochs, criterion="at least")
        tree[f"starts_{name}"] = xr.Dataset(
            curves(trained, arms, config.seeds), {"step": trained.history["step"], "arm": arms}, {"fraction": fraction}
        )
    session.note(f"C11: usual over zero start where data are ample: {found['ample']!r}")
    return _judged({"C11.epoch_ratio": found["scarce"]}, tree)


def run_solved(config: Solved, session: Session, key: PRNGKeyArray) -> Findings:
    """C12: the read-out by ridge regression at every step, against the trained one."""
    tree: dict[str, xr.Dataset] = {}
    found: dict[str, Measure | str] = {}
    sizes: tuple[tuple[str, Criterion], ...] = (("small", "at least"), ("large", "at most"))
    for (name, criterion), order, epochs in zip(sizes, config.orders, config.epochs, strict=True):
        arm = {"n_train": n_pairs(config.train_fraction, order), "rate": config.rate, "decay": config.decay}
        replicas, group = Replicas.of([arm], config.seeds), cyclic_group(order)
        settings: dict[str, Any] = {"key": key, "width": config.width, "epochs": epochs, "every": max(epochs // 100, 1)}
        solved = train(session, group, replicas, label=f"ridge, {order} elements", method="ridge", **settings)
        trained = train(session, group, replicas, label=f"gradient, {order} elements", **settings)
        times = [epochs_to_generalise(each.history["test_accuracy"], each.history["step"]) for each in (solved, trained)]
        found[f"C12.epoch_ratio_{name}"] = epoch_ratio(
            session,
            f"C12, {order} elements",
            times[0],
            times[1],
            last=epochs,
            criterion="at least" if criterion == "at least" else "at most",
        )
        both = {way: each.history["test_accuracy"] for way, each in (("ridge", solved), ("gradient", trained))}
        tree[f"solved_{name}"] = xr.Dataset(
            {"test_accuracy": (("way", "step", "seed"), np.stack(list(both.values())), {"units": "1"})},
            {"way": list(both), "step": solved.history["step"]},
            {"order": order},
        )
    return _judged(found, tree)


def _judged(found: Mapping[str, Measure | str], tree: Mapping[str, xr.Dataset]) -> Findings:
    measures = {name: value for name, value in found.items() if isinstance(value, Measure)}
    reasons = {name: value for name, value in found.items() if isinstance(value, str)}
    return Findings(measures, xr.DataTree.from_dict(dict(tree)), reasons)
