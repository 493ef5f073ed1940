"""Width scaling by weight decay (arXiv:2510.15262): do singular values, gains and best settings stay the same from width to width?

One sublayer learns a Markov chain, where a run takes seconds and grids can be afforded; a decoder of two layers learns to predict
Shakespeare's characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, rank_correlation
from gradatim.optim import WidthScaling, transfer_report, width_slopes

from .chain import MATRICES
from .config import Config as Config
from .config import Noise as Noise
from .config import Text as Text
from .config import Transfer as Transfer
from .figures import draw as draw
from .noise import walk_by_noise
from .plateau import NAMES, RULES
from .text import HIDDEN, check_sizes, train_on_text
from .training import Runs, best_points, lanes

PRECISION = "single"
N_SYMBOLS = 84
"Of the text, for an estimate of memory."
TRACY_WIDOM = 0.38
"Mean of the Tracy-Widom law of real matrices, 1.2065, times 2^(-5/3): how far the largest singular value of d x d noise is below 2 √d."
SCALES = {
    "smoke": Config(
        noise=Noise(widths=(4, 16), rate=0.05, decays=(0.2,)),
        vocabulary=32, n_successors=4, batch_size=32, widths=(8, 32), steps=100, pairs_width=8,
        # As many pairs at the first width as there are beside: programs are shared.
        transfer=Transfer(
            widths=(8, 32), rates=(0.01, 0.02), decays=(0.25, 1.0), vector_widths=(8, 32), vector_rates=(0.003, 0.006, 0.012), steps=60
        ),
        text=Text(widths=(8, 16), head_dim=8, n_layers=1, context=16, batch_size=4, steps=60, n_validation=8, n_seeds=3),
    ),
    "laptop": Config(),
    "full": Config(
        noise=Noise(widths=(32, 64, 128, 256, 512)), vocabulary=4096, n_successors=32, batch_size=4096, widths=(256, 512, 1024, 2048),
        rate=0.0025, decay=1.4, steps=40_000, pairs_width=512,
        transfer=Transfer(
            widths=(256, 2048), rates=(0.000625, 0.00125, 0.0025, 0.005, 0.01), decays=(0.0875, 0.35, 1.4, 2.0),
            vector_widths=(256, 2048), steps=20_000,
        ),
        text=Text(
            widths=(256, 512, 1024, 2048), head_dim=64, n_layers=12, context=256, batch_size=8, rate=0.004, decay=0.4, steps=20_000,
            n_validation=512,
        ),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: of all runs that go together, parameters six times over (moments, gradient, a copy to return to); on the chain logits of a
    batch and of all tokens four times; on the text what the gradient needs of a batch.
    """
    t = config.transfer
    logits = (config.batch_size + config.vocabulary) * config.vocabulary
    n_runs = [
        (config.widths[-1], len(RULES) * config.n_seeds),
        (t.widths[-1], len(t.rates) * len(t.decays) * (config.n_seeds + 1)),
        (t.vector_widths[-1], 2 * len(t.vector_rates) * config.n_seeds),
    ]
    together = [(width, min(n, lanes(width, config.vocabulary))) for width, n in n_runs]
    runs = max(n * (6 * (2 * width**2 + 2 * config.vocabulary * width) + 4 * logits) for width, n in together)
    return 4 * max(runs, 6 * config.n_seeds * max(config.noise.widths) ** 2, _text_numbers(config))


def _text_numbers(config: Config) -> int:
    t = config.text
    width, units = max(t.widths), int(HIDDEN * max(t.widths))
    parameters = t.n_layers * (4 * width**2 + 3 * width * units) + 2 * N_SYMBOLS * width
    kept = t.n_layers * (12 * width + 4 * units + 3 * width // t.head_dim * t.context) + 4 * N_SYMBOLS
    return t.n_seeds * (6 * parameters + t.batch_size * t.context * kept)


def run(config: Config, session: Session) -> Findings:
    """Noise alone; on the chain three rules over widths, pairs at one width, and the grids; on the text the rules over widths."""
    check_sizes(config.text)
    noise = walk_by_noise(config, session)
    runs = Runs(config, session)
    rules, pairs, grid, vectors = runs.by_rule(), runs.by_pair(), runs.by_grid(), runs.by_vector_rate()
    text = train_on_text(config, session)
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}

    def judge(part: str, make: Callable[[], Measure]) -> None:
        try:
            measures[part] = make()
        except ValueError as error:
            untested[part] = f"not measured: {error}"

    def judge_widths(prefix: str, widths: tuple[int, ...], data: xr.Dataset) -> tuple[dict[str, xr.DataArray], xr.DataArray]:
        slopes = {name: _slopes(widths, data[name]) for name in ("top", "gain", "sublayer_gain")}
        exponents = _slopes(widths, data["top"] / data["root_ratio"])
        made = {
            "C2.{}width_exponent": lambda: _farthest(0.75, *exponents.sel(rule="root").values),
            "C3.{}top_value_slope": lambda: _farthest(0.0, *slopes["top"].sel(rule="root").values),
            "C3.{}distance_to_next_rule": lambda: _least(_margins(slopes["top"])),
            "C6.{}rank_correlation": lambda: Measure.over_seeds(_rank_correlations(slopes["top"], slopes["gain"])),
        }
        # The chain has two matrices, between which any two slopes have an order.
        if prefix:
            made["C6.{}rank_correlation_within_a_rule"] = lambda: _least(_correlations_within_rules(slopes["top"], slopes["gain"]))
        for part, make in made.items():
            if len(widths) < 4:
                untested[part.format(prefix)] = f"not measured: an exponent takes four widths or more, got {', '.join(map(str, widths))}"
            else:
                judge(part.format(prefix), make)
        return slopes, exponents

    judge("C1.top_value_spread", lambda: _farthest(1.0, *_spreads(pairs)))
    judge("C1.shape_distance", lambda: _farthest(0.0, *_distances(pairs)))
    judge("C1.noise_level", lambda: _farthest(1.0, *noise["rms_ratio"].values.reshape(-1, config.n_seeds)))
    slopes, exponents = judge_widths("", config.widths, rules)
    text_slopes, text_exponents = judge_widths("text_", config.text.widths, text)
    t = config.transfer
    best_vector, best_decayed = (
        [best_points(vectors["loss"].isel(width=w, vector_decay=d).values, t.vector_rates) for w in range(len(t.vector_widths))]
        for d in range(2)
    )
    judge("C4.best_rate_shift", lambda: _shift(best_vector, 0, t.vector_rates, "vector rate", t.vector_widths))
    judge("C4.decay_cost", lambda: _decay_cost(vectors, best_vector, best_decayed))
    grids = {"rate": t.rates, "decay": t.decays}
    best = [best_points(grid["loss"].sel(scaled=1, width=w).values, *grids.values()) for w in t.widths]
    for axis, (name, line) in enumerate(grids.items()):
        judge(f"C5.{name}_shift", lambda axis=axis, line=line, name=name: _shift(best, axis, line, name, t.widths))
    noise_exponent = width_slopes(config.noise.widths, noise["top"].mean("decay").values)[0]
    _notes(config, session, rules, slopes, exponents, noise_exponent, runs.entropy)
    _edge_notes(config, session, grid, best, best_vector)
    _transfer_notes(config, session, grid, best)
    _text_notes(config, session, text, text_slopes, text_exponents)
    trees = {"noise": noise, "rules": rules, "pairs": pairs, "grid": grid, "vectors": vectors, "text": text}
    for data in trees.values():
        for name in data:
            data[name].attrs["units"] = "nat" if name in ("loss", "surprise") else "1"
    return Findings(measures, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)


def _slopes(widths: tuple[int, ...], values: xr.DataArray) -> xr.DataArray:
    """Log-log slopes over width, each seed's own: `(rule, [matrix or sublayer,] seed)`."""
    others = [dim for dim in ("rule", "matrix", "sublayer") if dim in values.dims]
    ordered = values.transpose("width", *others, "seed")
    slopes = width_slopes(widths, ordered.values.reshape(len(widths), -1))[0]
    return ordered.isel(width=0, drop=True).copy(data=slopes.reshape(ordered.shape[1:]))


def _farthest(target: float, *rows: np.ndarray) -> Measure:
    """The mean over seeds of the row that lies farthest from the target: the worst case decides."""
    # A row that is not finite is the farthest, not one that compares with none.
    return Measure.over_seeds(max(rows, key=lambda row: np.nan_to_num(abs(np.mean(row) - target), nan=np.inf)))


def _margins(top: xr.DataArray) -> np.ndarray:
    """How much smaller the root rule's |slope| is than the smaller one of the other rules, `(matrix, seed)`."""
    sizes = abs(top)
    return (sizes.sel(rule=["constant", "proportional"]).min("rule", skipna=False) - sizes.sel(rule="root")).values


def _least(rows: np.ndarray) -> Measure:
    """The mean over seeds of the row that is least."""
    return Measure.over_seeds(rows[rows.mean(1).argmin()])


def _shift(best: list[np.ndarray], axis: int, line: tuple[float, ...], name: str, widths: tuple[int, ...]) -> Measure:
    """How far the best point moves from the first width to the last, in cells of the grid."""
    first, last = (points[:, axis] for points in (best[0], best[-1]))
    for cells, width in ((first, widths[0]), (last, widths[-1])):
        _check_inside(cells, len(line), name, width)
    return Measure.over_seeds(last - first)


def _check_inside(cells: np.ndarray, size: int, name: str, width: int) -> None:
    for edge, word in ((0, "smallest"), (size - 1, "largest")):
        on_edge = int((cells == edge).sum())
        if on_edge:
            seeds = f"for {on_edge} of {len(cells)} seeds"
            raise ValueError(f"the {word} {name} of the grid is best at width {width} {seeds}, a better one may lie outside")


def _decay_cost(vectors: xr.Dataset, best: list[np.ndarray], best_decayed: list[np.ndarray]) -> Measure:
    """Loss with decayed vectors minus that without, each at its own best rate, at the width where it is least."""
    for points, name in ((best, "vector rate"), (best_decayed, "rate of decayed vectors")):
        for cells, width in zip(points, vectors.width.values, strict=True):
            _check_inside(cells[:, 0], vectors.sizes["vector_rate"], name, int(width))
    least = vectors["loss"].min("vector_rate").transpose("width", "vector_decay", "seed").values
    costs = least[:, 1] - least[:, 0]
    return Measure.over_seeds(costs[costs.mean(1).argmin()])


def _spreads(pairs: xr.Dataset) -> np.ndarray:
    """Largest over smallest σ/√(η/λ) of the pairs, `(matrix, seed)`."""
    level = pairs["top"] / pairs["root_ratio"]
    return (level.max("pair") / level.min("pair")).transpose("matrix", "seed").values


def _distances(pairs: xr.Dataset) -> np.ndarray:
    """Largest distance between scaled spectra of any two pairs at any rank, `(matrix, seed)`."""
    spectra = pairs["spectrum"]
    return (spectra.max("pair") - spectra.min("pair")).max("fraction").transpose("matrix", "seed").values


def _rank_correlations(top: xr.DataArray, gain: xr.DataArray) -> list[float]:
    """Spearman's, for each seed, of the slopes of singular value and gain over rules and matrices."""
    x, y = (a.transpose("seed", "rule", "matrix").values.reshape(a.sizes["seed"], -1) for a in (top, gain))
    return [float(rank_correlation(a, b[None])[0]) for a, b in zip(x, y, strict=True)]


def _correlations_within_rules(top: xr.DataArray, gain: xr.DataArray) -> np.ndarray:
    """Spearman's of the slopes over the matrices under one rule, `(rule, seed)`: rules, which move both alike, have no part in it."""
    one = [_rank_correlations(top.sel(rule=[rule]), gain.sel(rule=[rule])) for rule in top.rule.values]
    return np.array(one)


def _notes(
    config: Config, session: Session, rules: xr.Dataset, slopes: dict[str, xr.DataArray], exponents: xr.DataArray, noise: Any, entropy: Any
) -> None:
    widths = config.noise.widths
    finite = width_slopes(widths, np.sqrt(widths) * (1 - TRACY_WIDOM * np.asarray(widths) ** (-2 / 3)))[0][0]
    session.note(
        f"exponent of the top singular value under noise alone, widths {widths[0]} to {widths[-1]}: {_mean(noise)} (theory 0.5 for wide "
        f"matrices, {finite:.3f} at these widths: the largest value is below 2 √d by a factor of about 1 - {TRACY_WIDOM} d^(-2/3))"
    )
    for rule, name in NAMES.items():
        by_matrix = [
            f"{m}: top/√(η/λ) {_mean(exponents.sel(rule=rule, matrix=m))}, top {_mean(slopes['top'].sel(rule=rule, matrix=m))}, "
            f"gain {_mean(slopes['gain'].sel(rule=rule, matrix=m))}"
            for m in MATRICES
        ]
        session.note(
            f"exponents of width, {name}: {'; '.join(by_matrix)}; gain of the sublayer {_mean(slopes['sublayer_gain'].sel(rule=rule))}"
        )
    widest = rules["loss"].isel(width=-1) - entropy
    losses = ", ".join(f"{name} {_mean(widest.sel(rule=rule))}" for rule, name in NAMES.items())
    session.note(f"loss above the entropy at width {config.widths[-1]}, nats: {losses}")
    middle = rules["spectrum"].sel(rule="root", fraction=0.5).mean("seed")
    ends = ", ".join(f"{m} {float(middle.sel(matrix=m)[0]):.3f} to {float(middle.sel(matrix=m)[-1]):.3f}" for m in MATRICES)
    session.note(f"shape of the spectrum over widths, median over top singular value, narrowest to widest: {ends}")


def _text_notes(config: Config, session: Session, text: xr.Dataset, slopes: dict[str, xr.DataArray], exponents: xr.DataArray) -> None:
    for rule, name in NAMES.items():
        for quantity, values in (("top/√(η/λ)", exponents), ("top", slopes["top"]), ("gain", slopes["gain"])):
            by_matrix = ", ".join(f"{m} {_mean(values.sel(rule=rule, matrix=m))}" for m in values.matrix.values)
            session.note(f"text, exponents of width, {name}, {quantity}: {by_matrix}")
        gains = slopes["sublayer_gain"].sel(rule=rule)
        by_sublayer = ", ".join(f"{s} {_mean(gains.sel(sublayer=s))}" for s in gains.sublayer.values)
        session.note(f"text, exponents of width, {name}, gain of a sublayer: {by_sublayer}")
    widest = text["loss"].isel(width=-1)
    losses = ", ".join(f"{name} {_mean(widest.sel(rule=rule))}" for rule, name in NAMES.items())
    session.note(
        f"text, validation loss at width {config.text.widths[-1]}, nats a character: {losses}; of who knows but how often each character "
        f"is: {float(text['surprise']):.3f}"
    )
    t = config.text
    session.note(
        f"the language model is of this size: {t.n_layers} layers, widths {', '.join(map(str, t.widths))}, "
        f"{t.steps * t.batch_size * t.context} characters of Shakespeare a run; best settings are sought on the chain alone"
    )


def _edge_notes(config: Config, session: Session, grid: xr.Dataset, best: list[np.ndarray], best_vector: list[np.ndarray]) -> None:
    t = config.transfer
    places = [(f"width {w}", points, ("rate", "decay"), (t.rates, t.decays)) for w, points in zip(t.widths, best, strict=True)]
    places += [(f"width {w}", points, ("vector rate",), (t.vector_rates,)) for w, points in zip(t.vector_widths, best_vector, strict=True)]
    for where, points, names, values in places:
        for name, column, line in zip(names, points.T, values, strict=True):
            on_edge = ((column == 0) | (column == len(line) - 1)).sum()
            session.note(
                f"best {name} at {where}, cells of the grid from 0: {_mean(column)}"
                + (f"; on the grid's edge for {on_edge} of {len(column)} seeds" if on_edge else "")
            )
    plain = grid["loss"].sel(scaled=0).isel(seed=[0]).values
    first, last = (best_points(plain[w], t.rates, t.decays)[0] for w in (0, -1))
    shifts = ", ".join(f"{name} {shift:.2f}" for name, shift in zip(("rate", "decay"), last - first, strict=True))
    session.note(f"without the rule the best point moves from width {t.widths[0]} to {t.widths[-1]} by, in cells: {shifts} (one seed)")


def _transfer_notes(config: Config, session: Session, grid: xr.Dataset, best: list[np.ndarray]) -> None:
    """What the proxy's best pair costs at the other widths, and why the smallest decay may be the best."""
    t = config.transfer
    try:
        report = transfer_report(grid["loss"].sel(scaled=1).transpose("width", "rate", "decay", "seed").values, t.rates, t.decays)
    except ValueError as error:
        session.note(f"cost of the transferred pair not measured: {error}")
        return
    rate, decay = float(report.best_rate[0]), float(report.best_decay[0])
    for width, regret, error in zip(t.widths[1:], report.regret[1:], report.regret_standard_error[1:], strict=True):
        session.note(
            f"the best pair of width {t.widths[0]}, η {rate:g} and λ {decay:g} of the base width, costs at width {width} by the rule "
            f"{regret:.4f} ± {error:.4f} nats more than the best pair there"
        )
    if any((points[:, 1] == 0).any() for points in best):
        pairs = [WidthScaling(config.widths[0], w).scale(rate, decay)["matrix"] for w in t.widths]
        waits = " and ".join(f"{1 / (p.learning_rate * p.weight_decay):.0f} at width {w}" for w, p in zip(t.widths, pairs, strict=True))
        session.note(
            "the smallest decay of the grid is best: every token is fresh, so that decay has nothing to regularise, and it takes about "
            f"1/(η λ) steps to act, which for the best pair of width {t.widths[0]} are {waits}; a run here has {t.steps}"
        )


def _mean(values: Any) -> str:
    values = np.asarray(values)
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(values.size):.3f}"
