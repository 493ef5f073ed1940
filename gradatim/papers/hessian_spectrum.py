"""Outliers and bulk of the Hessian, on clusters and on MNIST (Sagun, Evci, Güney, Dauphin and Bottou, arXiv:1706.04454).

Clusters, initialisation and plain gradient descent are those of the authors' code, with one difference: runs that are compared stop at
the same loss, for late in training every eigenvalue of separable data goes to zero with the loss, and a count that is tied to the
largest one follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from gradatim import datasets
from gradatim.lab import Between, Findings, Measure, OneOf, Session, plots
from gradatim.landscape import bulk_edge, count_outliers, hessian_spectrum, line_loss
from gradatim.numerics import GaussNewtonOperator, HessianOperator, ResidualOperator, dense_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAR_ZERO = 1e-3
"Below this share of λmax an eigenvalue counts as near zero."
ROUND_OFF = 1e-9
"Negative eigenvalues smaller than this share of λmax are not counted (float64 leaves about 1e-15)."
LOOKS = 40
"Points at which each loop's losses are recorded."
FITTED = 1e-3
"Loss at which a network counts as fitted."
RULES = ("above 20 %", "above 10 %", "largest gap", "bulk edge")
PATHS = ("continued", "forked")
_Part = tuple[dict[str, Measure], dict[str, xr.Dataset]]


@dataclass(frozen=True)
class WidthConfig:
    """Networks of growing width on the same data."""

    data: Annotated[str, OneOf("clusters", "mnist")] = "clusters"
    "Two clusters, or MNIST averaged down to 7 x 7 pixels."
    widths: Annotated[tuple[int, ...], Between(2, 200)] = (10, 20, 30)
    "Units of each of the two hidden layers."
    overlap: Annotated[float, Between(0.01, 100)] = 4.0
    "Standard deviation of a cluster; the centres are uniform in [-10, 10]."
    initial_std: Annotated[float, Between(1e-4, 10)] = 0.1
    "Standard deviation of all initial weights and biases."
    steps: Annotated[int, Between(1)] = 20000
    "Steps of gradient descent."
    target: Annotated[float, Between(1e-8, 10)] = 5e-4
    "Training loss at which widths are compared."


@dataclass(frozen=True)
class ClusterConfig:
    """One network, data of growing number and overlap of clusters."""

    width: Annotated[int, Between(2, 200)] = 20
    "Units of each of the two hidden layers."
    clusters: Annotated[tuple[int, ...], Between(2, 50)] = (2, 3, 5, 8)
    "Numbers of clusters, each a class."
    initial_std: Annotated[float, Between(1e-4, 10)] = 0.3
    "Standard deviation of all initial weights and biases."
    steps: Annotated[int, Between(1)] = 5000
    "Steps of gradient descent at most."
    target: Annotated[float, Between(1e-8, 10)] = 0.05
    "Training loss at which a run stops."
    overlaps: Annotated[tuple[float, ...], Between(0.01, 100)] = (1.0, 2.0, 4.0, 8.0)
    "Standard deviations of two clusters, for equally many steps."
    overlap_steps: Annotated[int, Between(1)] = 3000
    "Steps of gradient descent for each overlap."


@dataclass(frozen=True)
class SwitchConfig:
    """From large to small batches, on MNIST averaged down to 7 x 7 pixels."""

    examples: Annotated[int, Between(20, 5000)] = 1000
    "Training examples; the large batch holds all of them."
    over_width: Annotated[int, Between(2, 500)] = 60
    "Units of each hidden layer of the over-parametrised network."
    under_width: Annotated[int, Between(2, 500)] = 12
    "Units of each hidden layer of the network with fewer parameters than examples."
    large_rate: Annotated[float, Between(1e-5, 10)] = 0.1
    "Learning rate of the large batch."
    large_steps: Annotated[int, Between(1)] = 1500
    "Steps with the large batch."
    small_batch: Annotated[int, Between(1, 5000)] = 10
    "Examples of a small batch, drawn with replacement."
    over_rate: Annotated[float, Between(1e-5, 10)] = 0.05
    "Small-batch learning rate of the over-parametrised network: half the large batch's."
    under_rate: Annotated[float, Between(1e-5, 10)] = 0.1
    "Small-batch learning rate of the other: noise decides there."
    small_steps: Annotated[int, Between(1)] = 10000
    "Steps with small batches."
    points: Annotated[int, Between(3, 1001)] = 21
    "Points on each line."
    lanczos_steps: Annotated[int, Between(2, 500)] = 60
    "Products for the top of each spectrum."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    seeds: Annotated[int, Between(3, 100)] = 8
    "Repetitions of what runs on clusters: data and initialisation anew."
    switch_seeds: Annotated[int, Between(3, 100)] = 3
    "Repetitions of the switch of batches."
    examples: Annotated[int, Between(10, 100000)] = 100
    "Training examples of clusters."
    dimensions: Annotated[int, Between(1, 1000)] = 10
    "Features of clusters."
    learning_rate: Annotated[float, Between(1e-5, 10)] = 0.1
    "Learning rate of full-batch gradient descent."
    width: WidthConfig = WidthConfig()
    cluster: ClusterConfig = ClusterConfig()
    switch: SwitchConfig = SwitchConfig()
    max_size: Annotated[int, Between(1, 50000)] = 6000
    "Largest number of parameters for which the Hessian is made dense."
    density_steps: Annotated[int, Between(2, 1000)] = 60
    "Lanczos products of each probe of the density."
    density_probes: Annotated[int, Between(2, 1000)] = 10
    "Probes of the density."


SCALES = {
    "smoke": Config(
        seeds=3,
        dimensions=2,
        width=WidthConfig(widths=(4, 8), overlap=1.0, initial_std=0.3, steps=500, target=1e-2),
        cluster=ClusterConfig(width=8, clusters=(2, 4), steps=300, target=0.1, overlaps=(1.0, 8.0), overlap_steps=200),
        switch=SwitchConfig(examples=100, over_width=16, under_width=4, large_steps=100, small_steps=300, points=7, lanczos_steps=20),
        density_steps=30,
        density_probes=4,
    ),
    "laptop": Config(),
    "full": Config(
        seeds=5,
        switch_seeds=5,
        examples=1000,
        width=WidthConfig(data="mnist", widths=(10, 30, 50, 70), target=1e-3, steps=100_000),
        switch=SwitchConfig(over_width=200, large_steps=10_000, small_steps=100_000),
        max_size=10_000,
        density_steps=100,
        density_probes=30,
    ),
}
PRECISION = "double"


def memory(config: Config) -> int:
    """Peak bytes: a few dense matrices of the widest network, for every seed its parameters and activations."""
    classes, features = (10, 49) if config.width.data == "mnist" else (2, config.dimensions)
    width = max(config.width.widths)
    size = features * width + width + width**2 + width + classes * (width + 1)
    switched = config.switch.over_width
    basis = config.switch.lanczos_steps * (60 * switched + switched**2)
    activations = 20 * max(config.examples, config.switch.examples) * max(width, switched) * max(config.seeds, config.switch_seeds)
    return int(8 * (5 * min(size, config.max_size) ** 2 + basis + activations) + 400e6)


class Problem(eqx.Module):
    """A network of two hidden ReLU layers and the data of each repetition, with the repetitions along axis 0."""

    inputs: Float[Array, "seeds n features"]
    labels: Int[Array, "seeds n"]
    network: PyTree
    classes: int = eqx.field(static=True)

    def outputs(self, params: PyTree, inputs: Float[Array, "n features"]) -> Float[Array, "n classes"]:
        """Logits."""
        return jax.vmap(eqx.combine(params, self.network))(inputs)

    def losses(self, params: PyTree) -> Float[Array, " seeds"]:
        """The training loss of each repetition."""
        return jax.vmap(self.loss)(params, (self.inputs, self.labels))

    def loss(self, params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
        """Mean softmax cross-entropy."""
        return cross_entropy(self.outputs(params, batch[0]), batch[1])


def cross_entropy(outputs: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Mean softmax cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()


def blobs(
    key: PRNGKeyArray, *, n: int, dimensions: int, clusters: int, overlap: float
) -> tuple[Float[Array, "n features"], Int[Array, " n"]]:
    """Gaussian clusters of standard deviation `overlap` about centres uniform in [-10, 10]ᵈ, then each feature standardised."""
    key_centres, key_noise = jax.random.split(key)
    centres = jax.random.uniform(key_centres, (clusters, dimensions), minval=-10, maxval=10)
    labels = jnp.arange(n) % clusters
    inputs = centres[labels] + overlap * jax.random.normal(key_noise, (n, dimensions))
    return (inputs - inputs.mean(0, keepdims=True)) / inputs.std(0, keepdims=True), labels


def network(features: int, classes: int, width: int) -> tuple[PyTree, PyTree]:
    """Parameters (to be overwritten) and the rest of a network with two hidden ReLU layers."""
    model = eqx.nn.MLP(features, classes, width, 2, jax.nn.relu, key=jax.random.key(0))
    return eqx.partition(model, eqx.is_inexact_array)


def initialised(params: PyTree, keys: Array, *, std: float | None) -> PyTree:
    """One network for each key: normal weights and biases of one standard deviation; None: He's weights, zero biases."""

    def draw(key: PRNGKeyArray, leaf: Array) -> Array:
        if std is not None:
            return std * jax.random.normal(key, leaf.shape)
        return jnp.sqrt(2 / leaf.shape[1]) * jax.random.normal(key, leaf.shape) if leaf.ndim == 2 else jnp.zeros(leaf.shape)

    leaves, structure = jax.tree.flatten(params)

    def one(key: PRNGKeyArray) -> PyTree:
        return structure.unflatten([draw(k, leaf) for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)])

    return jax.vmap(one)(keys)


class Descent(eqx.Module):
    """Where gradient descent is, and where each repetition was when its loss first reached the target."""

    now: PyTree
    at_target: PyTree
    reached: Bool[Array, "*seeds"]


def descend(session: Session, problem: Problem, params: PyTree, *, steps: int, rate: float, target: float = 0.0, label: str) -> Any:
    """Full-batch gradient descent of all repetitions at once; the loop's state is a `Descent`."""
    args = (problem, jnp.asarray(rate), jnp.asarray(target))
    state = Descent(params, params, jnp.zeros(problem.labels.shape[0], bool))
    return session.loop(_full_step, state, steps=steps, args=args, every=max(steps // LOOKS, 1), watch=_watched_descent, label=label)


def descend_in_batches(
    session: Session, problem: Problem, params: PyTree, keys: Array, *, batch: int, steps: int, rate: float, label: str
) -> Any:
    """Stochastic gradient descent of all repetitions at once, on batches drawn with replacement."""
    args = (problem, jnp.asarray(rate), keys, batch)
    return session.loop(_batch_step, params, steps=steps, args=args, every=max(steps // LOOKS, 1), watch=_watched, label=label)


# One function each for all loops, with the data in `args`: equal shapes are then compiled once.
def _full_step(state: Descent, i: Array, args: tuple[Problem, Array, Array]) -> Descent:
    problem, rate, target = args

    def one(now: PyTree, held: PyTree, reached: Array, inputs: Array, labels: Array) -> Descent:
        loss, gradient = jax.value_and_grad(problem.loss)(now, (inputs, labels))
        moved = jax.tree.map(lambda p, g: p - rate * g, now, gradient)
        # Until then both move together, and then the one stays for good: the loss may rise again.
        reached = reached | (loss <= target)
        return Descent(moved, jax.tree.map(lambda p, q: jnp.where(reached, p, q), held, moved), reached)

    return jax.vmap(one)(state.now, state.at_target, state.reached, problem.inputs, problem.labels)


def _watched_descent(state: Descent, args: tuple[Any, ...]) -> dict[str, Array]:
    return {"loss": args[0].losses(state.now), "held_loss": args[0].losses(state.at_target)}


def _batch_step(params: PyTree, i: Array, args: tuple[Problem, Array, Array, int]) -> PyTree:
    problem, rate, keys, batch = args

    def one(params: PyTree, key: PRNGKeyArray, inputs: Array, labels: Array) -> PyTree:
        rows = jax.random.randint(jax.random.fold_in(key, i), (batch,), 0, labels.shape[0])
        gradient = jax.grad(problem.loss)(params, (inputs[rows], labels[rows]))
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    return jax.vmap(one)(params, keys, problem.inputs, problem.labels)


def _watched(params: PyTree, args: tuple[Any, ...]) -> dict[str, Array]:
    return {"loss": args[0].losses(params)}


@eqx.filter_jit
def dense_spectra(problem: Problem, params: PyTree, max_size: int) -> dict[str, Array]:
    """All eigenvalues of H, G and R = H - G for each repetition, largest first, and the loss."""

    def one(args: tuple[PyTree, Array, Array]) -> dict[str, Array]:
        params, inputs, labels = args
        h = dense_matrix(HessianOperator(problem.loss, params, (inputs, labels)), max_size=max_size)
        composed = (problem.outputs, cross_entropy, params, (inputs, labels))
        g = dense_matrix(GaussNewtonOperator(*composed), max_size=max_size)
        values = {"hessian": h, "gauss_newton": g, "residual": dense_matrix(ResidualOperator(*composed), max_size=max_size)}
        return {name: jnp.linalg.eigvalsh(matrix)[::-1] for name, matrix in values.items()}

    return {**jax.lax.map(one, (params, problem.inputs, problem.labels)), "loss": problem.losses(params)}


@eqx.filter_jit
def lanczos_tops(problem: Problem, params: PyTree, key: PRNGKeyArray, steps: int) -> dict[str, Array]:
    """The twenty largest Ritz values of H and the largest of G for each repetition, and the loss."""

    def one(args: tuple[PyTree, Array, Array]) -> dict[str, Array]:
        params, inputs, labels = args
        hessian = HessianOperator(problem.loss, params, (inputs, labels))
        gauss_newton = GaussNewtonOperator(problem.outputs, cross_entropy, params, (inputs, labels))
        h, g = (hessian_spectrum(operator, key=key, steps=steps).eigenvalues for operator in (hessian, gauss_newton))
        return {"hessian": h[: min(20, steps)], "gauss_newton": g[0]}

    return {**jax.lax.map(one, (params, problem.inputs, problem.labels)), "loss": problem.losses(params)}


def run(config: Config, session: Session) -> Findings:
    """Widths, clusters, overlaps, and the switch of batches."""
    keys = iter(jax.random.split(session.key, 8))
    measures: dict[str, Measure] = {}
    tree: dict[str, xr.Dataset] = {}
    for part in (_widths, _clusters, _overlaps, _switch):
        found, data = part(config, session, next(keys))
        measures |= found
        tree |= data
    return Findings(measures, xr.DataTree.from_dict(tree))


def _widths(config: Config, session: Session, key: PRNGKeyArray) -> _Part:
    c = config.width
    key_data, key_initial, key_probe = jax.random.split(key, 3)
    if c.data == "mnist":
        inputs, labels = _mnist(session, config.examples, config.seeds)
        classes = 10
    else:
        classes = 2
        inputs, labels = _blobs(config, key_data, classes, c.overlap)
    spectra: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    tree: dict[str, xr.Dataset] = {}
    for width in c.widths:
        template, static = network(inputs.shape[2], classes, width)
        problem = Problem(inputs, labels, static, classes)
        initial = initialised(template, jax.random.split(key_initial, config.seeds), std=c.initial_std)
        label = f"width {width}"
        loop = descend(session, problem, initial, steps=c.steps, rate=config.learning_rate, target=c.target, label=label)
        points = {"start": initial, "equal": loop.state.at_target, "end": loop.state.now}
        spectra[width] = {
            when: _numpy(session.once(f"{label} {when}", dense_spectra, problem, p, config.max_size)) for when, p in points.items()
        }
        variables = {
            f"{name}_{when}": (("seed", "index"), values[name])
            for when, values in spectra[width].items()
            for name in ("hessian", "gauss_newton", "residual")
        }
        losses = {f"loss_{when}": ("seed", values["loss"]) for when, values in spectra[width].items()}
        history = {"loss": (("step", "seed"), loop.history["loss"])}
        tree[f"/width/{width}"] = _dataset({**variables, **losses, **history}, {"step": loop.history["step"]}, unit="loss")
        if width == c.widths[-1]:
            density = session.once("density", _density, problem, loop.state.now, spectra[width]["end"], key_probe, config)
            tree["/density"] = _dataset({name: ("eigenvalue", values) for name, values in density.items()}, {}, unit="1/loss")
    start, equal, end = (spectra[c.widths[-1]][when] for when in ("start", "equal", "end"))
    before, wide, after = (values["hessian"] for values in (start, equal, end))
    narrow = spectra[c.widths[0]]["equal"]["hessian"]
    size, n_directions = wide.shape[1], config.examples * (classes - 1)
    session.note(
        f"C1: of {size} eigenvalues the rank of the Gauss-Newton part alone forces {max(0.0, 1 - n_directions / size):.3f} to zero; a "
        f"random symmetric matrix of that size has {2 * NEAR_ZERO * 2 / np.pi:.4f} of them below {NEAR_ZERO:g} of the largest; share near "
        f"zero when the loss first reached {c.target:g}: {_near_zero(wide).mean():.3f}"
    )
    counts = {w: _counts(spectra[w]["equal"], classes, config.examples) for w in c.widths}
    reached = {w: float(spectra[w]["equal"]["loss"].max()) for w in c.widths}
    means = {w: n.mean(1).tolist() for w, n in counts.items()}
    session.note(f"C2: highest loss at which networks are compared, by width: {reached}; mean counts {RULES}: {means}")
    tenth = RULES.index("above 10 %")
    measures = {
        "C1.near_zero_at_end": Measure.over_seeds(_near_zero(after)),
        "C1.near_zero_at_start": Measure.over_seeds(_near_zero(before)),
        "C1.outlier_share": Measure.over_seeds((after > 0.1 * after[:, :1]).mean(axis=1)),
        "C2.near_zero_gain": Measure.paired(_near_zero(wide), _near_zero(narrow)),
        "C2.outlier_ratio": Measure.paired(counts[c.widths[-1]][tenth], counts[c.widths[0]][tenth], "log-ratio"),
        "C2.top_ratio": Measure.paired(wide[:, 0], narrow[:, 0], "log-ratio"),
        "C5.negative_count": Measure.over_seeds((after < -ROUND_OFF * after[:, :1]).sum(1)),
        "C5.negative_size": Measure.over_seeds(np.maximum(-after[:, -1], 0) / after[:, 0]),
    }
    fitted = end["loss"] <= FITTED
    if fitted.sum() >= 3:
        measures["C4.residual_norm"] = Measure.over_seeds((_norm(end["residual"]) / _norm(after))[fitted])
        measures["C4.top_of_gauss_newton"] = Measure.over_seeds((end["gauss_newton"][:, 0] / after[:, 0])[fitted])
    rest = {when: float(np.mean(_norm(v["residual"]) / _norm(v["hessian"]))) for when, v in spectra[c.widths[-1]].items()}
    below = {when: float(np.mean(-v["hessian"][:, -1] / v["hessian"][:, 0])) for when, v in spectra[c.widths[-1]].items()}
    floor = -end["gauss_newton"][:, -1] / end["gauss_newton"][:, 0]
    session.note(
        f"C4: {fitted.sum()} of {fitted.size} repetitions end at a loss of at most {FITTED:g}, the highest at {end['loss'].max():.2g}; "
        f"residual norm over the Hessian's at the start, at a loss of {c.target:g}, at the end: {rest}; C5: |λmin|/λmax there: {below}; "
        f"most negative of the Gauss-Newton part over its largest (round-off) {floor.max():.1e}"
    )
    tree["/width"] = _dataset(
        {"count": (("width", "rule", "seed"), np.stack(list(counts.values())))}, {"width": list(c.widths), "rule": list(RULES)}, unit=""
    )
    return measures, tree


def _density(problem: Problem, params: PyTree, end: dict[str, np.ndarray], key: PRNGKeyArray, config: Config) -> dict[str, Array]:
    first = jax.tree.map(lambda x: x[0], (params, problem.inputs, problem.labels))
    values = jnp.asarray(end["hessian"][0])
    sigma = values[0] / 100
    grid = jnp.linspace(values[-1] - 5 * sigma, values[0] + 5 * sigma, 801)
    spectrum = hessian_spectrum(
        HessianOperator(problem.loss, first[0], first[1:]), key=key, steps=config.density_steps, n_probes=config.density_probes
    )
    estimate = spectrum.density(grid, sigma=sigma)
    offsets = (grid[:, None] - values[None]) / sigma
    exact = jnp.mean(jnp.exp(-(offsets**2) / 2), axis=1) / (sigma * jnp.sqrt(2 * jnp.pi))
    return {"grid": grid, "quadrature": estimate.value, "standard_error": estimate.standard_error, "dense": exact}


def _clusters(config: Config, session: Session, key: PRNGKeyArray) -> _Part:
    c = config.cluster
    counts, variables = [], {}
    for clusters in c.clusters:
        problem, start = _cluster_problem(config, key, clusters, 1.0)
        label = f"{clusters} clusters"
        end = descend(session, problem, start, steps=c.steps, rate=config.learning_rate, target=c.target, label=label).state.at_target
        values = _numpy(session.once(f"{label} spectra", dense_spectra, problem, end, config.max_size))
        counts.append(_counts(values, clusters, config.examples))
        variables[f"top_{clusters}"] = (("seed", "rank"), values["hessian"][:, : 3 * max(c.clusters)])
        variables[f"loss_{clusters}"] = ("seed", values["loss"])
    table = np.stack(counts, axis=1)  # rule, clusters, seed
    ranks = {rule: _spearman(c.clusters, table[i]) for i, rule in enumerate(RULES)}
    means = {rule: round(float(values.mean()), 3) for rule, values in ranks.items()}
    session.note(f"C3: mean Spearman correlation with the number of clusters by rule: {means}")
    per_cluster = table[RULES.index("above 20 %")] / np.asarray(c.clusters)[:, None]
    measures = {
        "C3.count_rank": Measure.over_seeds(ranks["above 20 %"]),
        "C3.count_per_cluster": Measure.over_seeds(np.exp(np.log(per_cluster).mean(axis=0))),
    }
    variables["count"] = (("rule", "clusters", "seed"), table)
    return measures, {"/clusters": _dataset(variables, {"rule": list(RULES), "clusters": list(c.clusters)}, unit="loss")}


def _overlaps(config: Config, session: Session, key: PRNGKeyArray) -> _Part:
    c = config.cluster
    found = []
    for overlap in c.overlaps:
        # One key for all: the same centres and noise, only wider.
        problem, start = _cluster_problem(config, key, 2, overlap)
        end = descend(session, problem, start, steps=c.overlap_steps, rate=config.learning_rate, label=f"overlap {overlap:g}").state.now
        label = f"overlap {overlap:g} top"
        found.append(_numpy(session.once(label, lanczos_tops, problem, end, key, config.density_steps)))
    top = np.stack([values["hessian"][:, 0] for values in found])
    gauss_newton, loss = (np.stack([values[name] for values in found]) for name in ("gauss_newton", "loss"))
    relative = _spearman(c.overlaps, gauss_newton / loss)
    session.note(f"C3: mean Spearman correlation of λmax(G) over the loss with the clusters' width: {relative.mean():.3f}")
    axes = ("overlap", "seed")
    variables = {"top": (axes, top), "top_gauss_newton": (axes, gauss_newton), "loss": (axes, loss)}
    measures = {"C3.overlap_rank": Measure.over_seeds(_spearman(c.overlaps, top))}
    return measures, {"/overlap": _dataset(variables, {"overlap": list(c.overlaps)}, unit="loss")}


def _switch(config: Config, session: Session, key: PRNGKeyArray) -> _Part:
    c, n_seeds = config.switch, config.switch_seeds
    inputs, labels = _mnist(session, c.examples, n_seeds)
    key_initial, key_continued, key_forked, key_probe = jax.random.split(key, 4)
    measures: dict[str, Measure] = {}
    tree: dict[str, xr.Dataset] = {}
    for regime, width, rate in (("over", c.over_width, c.over_rate), ("under", c.under_width, c.under_rate)):
        template, static = network(inputs.shape[2], 10, width)
        problem = Problem(inputs, labels, static, 10)
        start = initialised(template, jax.random.split(key_initial, n_seeds), std=None)
        large = descend(session, problem, start, steps=c.large_steps, rate=c.large_rate, label=f"{regime}: large batch").state.now
        ends = {
            name: descend_in_batches(
                session, problem, origin, jax.random.split(k, n_seeds), batch=c.small_batch, steps=c.small_steps, rate=rate, label=label
            ).state
            for name, origin, k, label in (
                ("continued", large, key_continued, f"{regime}: small batch from the large batch's end"),
                ("forked", start, key_forked, f"{regime}: small batch from the start"),
            )
        }
        tops = {
            name: _numpy(session.once(f"{regime} top {name}", lanczos_tops, problem, point, key_probe, c.lanczos_steps))
            for name, point in {"large": large, **ends}.items()
        }
        lines = {
            name: _numpy(session.once(f"{regime} line {name}", _lines, problem, large, point, c.points)) for name, point in ends.items()
        }
        share = {name: line["barrier"] / np.ptp(line["loss"], axis=1) for name, line in lines.items()}
        relative = {name: values["gauss_newton"] / values["loss"] for name, values in tops.items()}
        n_params = sum(leaf.size for leaf in jax.tree.leaves(template))
        session.note(
            f"C6, {n_params} parameters for {c.examples} examples: barrier as a share of the loss range "
            f"{ {name: np.round(values, 3).tolist() for name, values in share.items()} }, "
            f"λmax { {name: np.round(values['hessian'][:, 0], 3).tolist() for name, values in tops.items()} }, "
            f"λmax(G)/loss { {name: np.round(values, 1).tolist() for name, values in relative.items()} }, "
            f"loss { {name: np.round(values['loss'], 5).tolist() for name, values in tops.items()} }"
        )
        if regime == "over":
            top = {name: values["hessian"][:, 0] for name, values in tops.items()}
            measures = {
                "C6.barrier_share": Measure.over_seeds(share["continued"]),
                "C6.top_after_switch": Measure.paired(top["continued"], top["large"], "log-ratio"),
                "C6.large_over_small": Measure.paired(top["large"], top["forked"], "log-ratio"),
            }
        variables = {
            "line": (("path", "seed", "t"), np.stack([lines[path]["loss"] for path in PATHS])),
            "barrier": (("path", "seed"), np.stack([lines[path]["barrier"] for path in PATHS])),
            "top": (("point", "seed", "rank"), np.stack([values["hessian"] for values in tops.values()])),
            "top_gauss_newton": (("point", "seed"), np.stack([values["gauss_newton"] for values in tops.values()])),
            "loss": (("point", "seed"), np.stack([values["loss"] for values in tops.values()])),
        }
        coordinates = {"path": list(PATHS), "t": np.linspace(0, 1, c.points), "point": list(tops)}
        tree[f"/switch/{regime}"] = _dataset(variables, coordinates, unit="loss")
    return measures, tree


@eqx.filter_jit
def _lines(problem: Problem, start: PyTree, end: PyTree, n_points: int) -> dict[str, Array]:
    def one(args: tuple[PyTree, PyTree, Array, Array]) -> dict[str, Array]:
        start, end, inputs, labels = args
        line = line_loss(lambda params: problem.loss(params, (inputs, labels)), start, end, n_points=n_points)
        return {"loss": line.loss, "barrier": line.barrier}

    return jax.lax.map(one, (start, end, problem.inputs, problem.labels))


def _cluster_problem(config: Config, key: PRNGKeyArray, clusters: int, overlap: float) -> tuple[Problem, PyTree]:
    key_data, key_initial = jax.random.split(key)
    inputs, labels = _blobs(config, key_data, clusters, overlap)
    template, static = network(config.dimensions, clusters, config.cluster.width)
    start = initialised(template, jax.random.split(key_initial, config.seeds), std=config.cluster.initial_std)
    return Problem(inputs, labels, static, clusters), start


def _blobs(config: Config, key: PRNGKeyArray, clusters: int, overlap: float) -> tuple[Array, Array]:
    def one(key: PRNGKeyArray) -> tuple[Array, Array]:
        return blobs(key, n=config.examples, dimensions=config.dimensions, clusters=clusters, overlap=overlap)

    return jax.vmap(one)(jax.random.split(key, config.seeds))


def _mnist(session: Session, examples: int, seeds: int) -> tuple[Array, Array]:
    sets = [datasets.load("mnist-5k", n=examples, pool=7, seed=seed) for seed in range(seeds)]
    session.uses(sets[0].provenance)
    inputs = jnp.stack([jnp.asarray(one.images.reshape(examples, -1), float) for one in sets])
    return inputs, jnp.stack([jnp.asarray(one.labels) for one in sets])


def _counts(values: dict[str, np.ndarray], classes: int, examples: int) -> np.ndarray:
    """Outliers by each rule, for each seed."""

    def one(h: Array, g: Array) -> list[Array]:
        edge = bulk_edge(g, n_samples=examples * (classes - 1))
        return [
            count_outliers(h, fraction=0.2),
            count_outliers(h, fraction=0.1),
            count_outliers(h, "gap", n_classes=classes),
            count_outliers(h, "edge", edge=edge),
        ]

    return np.asarray(jax.vmap(one)(jnp.asarray(values["hessian"]), jnp.asarray(values["gauss_newton"])))


def _near_zero(values: np.ndarray) -> np.ndarray:
    return (np.abs(values) < NEAR_ZERO * values[:, :1]).mean(axis=1)


def _norm(values: np.ndarray) -> np.ndarray:
    return np.abs(values).max(axis=1)


def _spearman(x: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    """The rank correlation of each column with x; zero for a column without order."""
    from scipy import stats

    a = stats.rankdata(x) - (len(x) + 1) / 2
    b = stats.rankdata(values, axis=0) - (len(x) + 1) / 2
    spread = np.sqrt((a**2).sum() * (b**2).sum(axis=0))
    return np.where(spread > 0, a @ b / np.where(spread > 0, spread, 1), 0.0)


def _numpy(values: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def _dataset(variables: dict[str, Any], coordinates: dict[str, Any], *, unit: str) -> xr.Dataset:
    data = xr.Dataset(variables, {name: (name, values) for name, values in coordinates.items()})
    for name in data.data_vars:
        data[name].attrs["units"] = "" if str(name).startswith("count") else unit
    return data


def draw(findings: Findings) -> dict[str, Figure]:
    """Sorted spectra, their density, outliers against clusters and overlap, G beside H, and the lines between ends."""
    tree = findings.data
    return {
        "spectra": _draw_spectra(tree),
        "density": _draw_density(tree),
        "outliers": _draw_outliers(tree),
        "gauss_newton": _draw_gauss_newton(tree),
        "lines": _draw_lines(tree),
    }


def _group(tree: xr.DataTree, path: str) -> xr.Dataset:
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset()


def _by_width(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    node = tree["width"]
    assert isinstance(node, xr.DataTree)
    return {width: child.to_dataset() for width, child in node.children.items()}


def _draw_spectra(tree: xr.DataTree) -> Figure:
    fig, ((left, right),) = plots.figure(1, 2)
    for ax, when, title in ((left, "start", "At initialisation"), (right, "end", "After training")):
        for colour, (width, node) in zip(plots.COLOURS, _by_width(tree).items(), strict=False):
            values = node[f"hessian_{when}"].values
            name = f"{width} units, {values.shape[1]} parameters"
            for i, row in enumerate(values):
                ax.plot(np.linspace(0, 1, row.size), row / row[0], color=colour, lw=1, alpha=0.6, label=name if i == 0 else None)
        ax.set_yscale("symlog", linthresh=1e-6)
        ax.axhspan(-NEAR_ZERO, NEAR_ZERO, color="#eeeeee", zorder=0)
        ax.set_yticks([-1e-1, -1e-3, -1e-5, 0, 1e-5, 1e-3, 1e-1, 1])
        plots.label(ax, "share of eigenvalues, largest first", "eigenvalue / largest", title=title)
    right.legend(fontsize="small")
    return fig


def _draw_density(tree: xr.DataTree) -> Figure:
    data = _group(tree, "density")
    width, node = list(_by_width(tree).items())[-1]
    values = node["hessian_end"].values[0]
    apart = values > 0.1 * values[0]
    fig, ((ax,),) = plots.figure(panel=(6.4, 3.4))
    grid, density, error = (data[name].values for name in ("grid", "quadrature", "standard_error"))
    floor = 0.05 / (values.size * (grid[1] - grid[0]) * 100)
    ax.fill_between(grid, np.maximum(density - 2 * error, floor), np.maximum(density + 2 * error, floor), alpha=0.25, lw=0)
    ax.plot(grid, np.maximum(density, floor), label="stochastic Lanczos quadrature (± 2 standard errors)")
    ax.plot(grid, np.maximum(data["dense"].values, floor), "--", color=plots.COLOURS[1], lw=1, label="all eigenvalues, same smoothing")
    ax.plot(values[apart], np.full(apart.sum(), floor * 1.5), "v", color=plots.COLOURS[2], label=f"{apart.sum()} outliers above λmax/10")
    ax.plot(values[~apart], np.full((~apart).sum(), floor * 1.5), "|", color=plots.COLOURS[7], label=f"bulk of {(~apart).sum()}")
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    plots.label(ax, "eigenvalue λ", "density", x_unit="loss", y_unit="1/loss", title=f"Hessian after training, {width} units")
    ax.legend(fontsize="small")
    return fig


def _draw_outliers(tree: xr.DataTree) -> Figure:
    fig, ((left, right),) = plots.figure(1, 2)
    count = _group(tree, "clusters")["count"]
    clusters = count["clusters"].values
    for rule, marker, colour in zip(RULES, plots.MARKERS, plots.COLOURS, strict=False):
        plots.interval(left, clusters, count.sel(rule=rule).values.T, name=rule, marker=marker, colour=colour)
    left.plot(clusters, clusters, ":", color="black", label="one each")
    left.set_yscale("log", base=2)
    left.set_ylim(bottom=0.5)
    left.legend(fontsize="small")
    plots.label(left, "clusters", "outliers", title="More clusters, equal loss")
    overlap = _group(tree, "overlap")
    for name, colour, label in (("top", plots.COLOURS[0], "λmax(H)"), ("loss", plots.COLOURS[1], "loss")):
        for i, row in enumerate(overlap[name].values.T):
            right.plot(overlap["overlap"].values, row, color=colour, marker="o", lw=1, alpha=0.6, label=label if i == 0 else None)
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.legend(fontsize="small")
    plots.label(right, "standard deviation of a cluster", "λmax, loss", title="Less separable, equal steps")
    return fig


def _draw_gauss_newton(tree: xr.DataTree) -> Figure:
    fig, axes = plots.figure(1, 2)
    node = list(_by_width(tree).values())[-1]
    for ax, when, title in zip(axes[0], ("start", "end"), ("At initialisation", "After training"), strict=True):
        h, g, r = (node[f"{name}_{when}"].values[0] for name in ("hessian", "gauss_newton", "residual"))
        n = min(40, h.size)
        index = np.arange(1, n + 1)
        for values, marker, name in ((h, "o", "H"), (g, "x", "G"), (r, ".", "R = H - G")):
            ax.plot(index, values[:n], marker, label=name)
        ax.set_yscale("symlog", linthresh=1e-6 * abs(h[0]))
        plots.label(ax, "index", "eigenvalue", y_unit="loss", title=f"{title}: ‖R‖/‖H‖ = {np.abs(r).max() / np.abs(h).max():.2g}")
    axes[0, 1].legend(fontsize="small")
    return fig


def _draw_lines(tree: xr.DataTree) -> Figure:
    fig, axes = plots.figure(1, 2)
    titles = {"over": "More parameters than examples", "under": "Fewer parameters than examples"}
    names = {"continued": "small batch from the large batch's end", "forked": "small batch from the start"}
    for ax, (regime, title) in zip(axes[0], titles.items(), strict=True):
        data = _group(tree, f"switch/{regime}")
        tops = data["top"].values[:, :, 0].mean(axis=1)
        top = dict(zip(data["point"].values.tolist(), tops, strict=True))
        for colour, path in zip(plots.COLOURS, PATHS, strict=False):
            for i, row in enumerate(data["line"].sel(path=path).values):
                name = f"{names[path]}: λmax {top['large']:.2g} → {top[path]:.2g}"
                ax.plot(data["t"].values, row, color=colour, lw=1.2, alpha=0.7, label=name if i == 0 else None)
        ax.set_yscale("log")
        ax.legend(fontsize="x-small")
        plots.label(ax, "from the large batch's end (0) to the other (1)", "training loss", title=title)
    return fig
