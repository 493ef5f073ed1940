"""Learning-rate sweeps: the same grid for every arm, the same seeds for every arm and rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from gradatim.lab.clock import counted
from gradatim.lab.loop import dispatched_on_this_device
from gradatim.lab.measures import Measure
from gradatim.lab.session import Session

if TYPE_CHECKING:
    import xarray as xr

Arm = Callable[[Any], optax.GradientTransformation]
"An optimiser from its learning rate, which may be traced."
NEVER = -1
"`diverged_at` of a run whose state stayed finite."


def take_rows(data: Any, rows: Any) -> Any:
    """The examples of a batch: the given rows of every array of `data`."""
    return jax.tree.map(lambda array: array[rows], data)


def epochs(key: PRNGKeyArray, n_examples: int, *, batch_size: int, steps: int) -> Int[Array, "steps batch_size"]:
    """Rows of the batches of `steps` steps: a new permutation each epoch, a remainder too small for a batch left out."""
    if not 1 <= batch_size <= n_examples:
        raise ValueError(f"batch_size must lie in [1, {n_examples}], the number of examples, got {batch_size}")
    per_epoch = n_examples // batch_size
    keys = jax.random.split(key, -(-steps // per_epoch))
    orders = jax.lax.map(lambda k: jax.random.permutation(k, n_examples)[: per_epoch * batch_size], keys)
    return orders.reshape(-1, batch_size)[:steps]


def time_to_target(curve: Any, steps: Any, target: float, *, maximise: bool = False) -> np.ndarray:
    """The first of `steps` at which a curve (its last axis) is at the target or beyond, inf where it never is.

    Nothing is interpolated between two steps; NaN is not at the target.

    >>> time_to_target([[3.0, 2.0, 1.0], [3.0, 2.5, 2.2]], [0, 10, 20], 2.0).tolist()
    [10.0, inf]
    """
    curve, steps = np.asarray(curve, np.float64), np.asarray(steps, np.float64)
    reached = curve >= target if maximise else curve <= target
    return np.where(reached.any(-1), steps[reached.argmax(-1)], np.inf)


def choice_by_others(values: xr.DataArray, choice: str, *, over: str = "seed", maximise: bool = False) -> xr.DataArray:
    """For each repeat along `over` the number of the `choice` that is best in the mean of all the other repeats.

    A choice at which some other repeat is not finite is not taken while there is another. For what else was read at that choice: where
    the values themselves are wanted, `best_by_others` gives them.

    >>> import xarray as xr
    >>> losses = xr.DataArray([[1.0, 4.0, 4.0], [3.0, 3.0, 3.0]], dims=("rate", "seed"))
    >>> choice_by_others(losses, "rate").values.tolist()
    [1, 0, 0]

    **Raises:** `ValueError` for fewer than two repeats.
    """
    import xarray as xr

    if values.sizes[over] < 2:
        raise ValueError(f"{over} must have at least 2 entries, got {values.sizes[over]}: there are no others to choose by")
    ranked = (-values if maximise else values).where(np.isfinite(values), np.inf)
    best = [ranked.drop_isel({over: i}).mean(over).argmin(choice) for i in range(values.sizes[over])]
    return xr.concat(best, values[over] if over in values.coords else over)


def best_by_others(values: xr.DataArray, choice: str, *, over: str = "seed", maximise: bool = False) -> xr.DataArray:
    """Each repeat's value at the `choice` that is best in the mean of all the other repeats, along `over`.

    What is chosen on the repeats by which it is judged looks better than it is. Here no repeat has a say in its own choice
    ([`choice_by_others`][gradatim.lab.choice_by_others]). The mean of these values errs neither way; where choices are nearly tied they
    are not independent, and their interval is that of `Measure.leave_one_out`.

    >>> import xarray as xr
    >>> losses = xr.DataArray([[1.0, 4.0, 4.0], [3.0, 3.0, 3.0]], dims=("rate", "seed"))
    >>> best_by_others(losses, "rate").values.tolist()
    [3.0, 4.0, 4.0]

    **Raises:** `ValueError` for fewer than two repeats.
    """
    chosen = choice_by_others(values, choice, over=over, maximise=maximise)
    return values.isel({choice: chosen}).drop_vars(choice, errors="ignore").transpose(over, ...)


@dataclass(frozen=True)
class Sweep:
    """Curves of every arm, rate and seed.

    **Arguments:** `data`: each metric over `(arm, rate, seed, step)`, NaN from where a run diverged, and `diverged_at` over
    `(arm, rate, seed)`: the steps after which its state was first not finite, or -1.
    """

    data: xr.Dataset

    @property
    def final(self) -> xr.Dataset:
        """Each metric after the last step."""
        return self.data.drop_vars("diverged_at").isel(step=-1)

    def time_to_target(self, metric: str, target: float, *, maximise: bool = False) -> xr.DataArray:
        """Steps of each run to the target, inf where it never gets there."""
        curves = self.data[metric].transpose(..., "step")
        return curves.isel(step=-1, drop=True).copy(data=time_to_target(curves, curves.step, target, maximise=maximise))

    def best_rate(self, arm: str, metric: str, *, maximise: bool = False) -> float:
        """The rate with the best mean of the final metric over seeds, among those at which no seed diverged.

        **Raises:** `ValueError` if some seed diverges at every rate.
        """
        means = self._of(arm, self.final[metric]).mean("seed", skipna=False)
        worse = np.inf if not maximise else -np.inf
        ranked = means.where(np.isfinite(means), worse)
        if not np.isfinite(ranked).any():
            raise ValueError(f"{arm!r} diverges at every rate of {self.data.rate.values.tolist()}: sweep smaller ones")
        best = ranked.values.argmax() if maximise else ranked.values.argmin()
        return float(ranked.rate[best])

    def at_best(self, arm: str, metric: str, *, maximise: bool = False) -> xr.DataArray:
        """The curves of a metric over `(seed, step)` at the arm's best rate for it."""
        return self._of(arm, self.data[metric]).sel(rate=self.best_rate(arm, metric, maximise=maximise))

    def paired(
        self, ours: str, control: str, metric: str, *, maximise: bool = False, kind: Literal["difference", "log-ratio"] = "difference"
    ) -> Measure:
        """The final metric of two arms, seed by seed, each at its own best rate."""
        a, b = (self.at_best(arm, metric, maximise=maximise).isel(step=-1).values for arm in (ours, control))
        return Measure.paired(a, b, kind)

    def _of(self, arm: str, values: xr.DataArray) -> xr.DataArray:
        arms = values.arm.values.tolist()
        if arm not in arms:
            raise ValueError(f"arm must be one of {', '.join(arms)}, got {arm!r}")
        return values.sel(arm=arm)


class _Run(eqx.Module):
    params: Any
    optimizer: Any
    diverged_at: Array


def learning_rate_sweep(
    session: Session,
    arms: Mapping[str, Arm],
    rates: Sequence[float],
    *,
    init: Callable[[PRNGKeyArray], Any],
    loss: Callable[[Any, Any], Any],
    evaluate: Callable[[Any, Any], dict[str, Any]],
    data: Any,
    order: Callable[[PRNGKeyArray], Any],
    batch: Callable[[Any, Any], Any] = take_rows,
    steps: int,
    n_seeds: int,
    every: int | None = None,
    label: str = "sweep",
) -> Sweep:
    """Trains every arm at every rate from every seed; arms and rates share a seed's first parameters and its batches.

    Seeds and rates of an arm run together in one compiled loop, or, where a step with a convolution runs on a CPU, one after
    another through one compiled step. A run that diverges is recorded, and the others go on.

    **Arguments:** `arms`: each makes its optimiser from a learning rate, a traced scalar; `rates`: the grid; `init(key)`:
    parameters; `loss(params, batch)`: a scalar; `evaluate(params, data)`: named scalars, every `every` steps (by default a
    hundredth of `steps`); `data`: any pytree of arrays; `order(key)`: what tells batches apart, stacked over the `steps` steps:
    rows ([`epochs`][gradatim.lab.epochs]), or keys; `batch(data, entry)`: the batch of one step.

    **Raises:** `ValueError` if there are no arms, no rates, or a rate twice.
    """
    import xarray as xr

    if not arms or not rates or len(set(rates)) != len(rates):
        raise ValueError(f"a sweep needs arms, and rates that differ, got arms {list(arms)} and rates {list(rates)}")
    keys = jax.vmap(jax.random.split)(jax.random.split(session.key, n_seeds))
    # Before the arms: what draws random numbers takes longest to compile, and is the same for all.
    with counted(session.seconds):
        starts = _for_each(init, keys[:, 0])
        orders = _for_each(order, keys[:, 1])
    # In the parameters' dtype, so that a rate does not promote the updates.
    grid = jnp.asarray(rates, jnp.result_type(*jax.tree.leaves(eqx.filter(starts, eqx.is_inexact_array))))
    every = every or max(steps // 100, 1)
    common: dict[str, Any] = {"steps": steps, "every": every}
    curves: dict[str, dict[str, np.ndarray]] = {}
    diverged_at: dict[str, np.ndarray] = {}
    first, entries = eqx.filter_eval_shape(lambda *trees: _seed(trees, 0), starts, orders)

    def value(params: Any, i: Any, args: Any) -> Any:
        entries, data = args
        return loss(params, batch(data, jax.tree.map(lambda entries: entries[i], entries)))

    # If a step holds a convolution, so does the loss: no optimiser does.
    run = _one_after_another if dispatched_on_this_device(value, first, (entries, data)) else _together
    for name, arm in arms.items():
        begin, step = _begin(arm), _step(arm, loss, batch)
        curves[name], diverged_at[name] = run(session, begin, step, evaluate, starts, grid, orders, data, f"{label} {name}", common)
    n_rows = len(_watch_points(steps, every))
    metrics = next(iter(curves.values()))
    variables: dict[str, Any] = {
        metric: (("arm", "rate", "seed", "step"), np.stack([curves[name][metric].reshape(len(rates), n_seeds, n_rows) for name in arms]))
        for metric in metrics
    }
    variables["diverged_at"] = (("arm", "rate", "seed"), np.stack(list(diverged_at.values())))
    coordinates = {"arm": list(arms), "rate": list(rates), "seed": np.arange(n_seeds), "step": _watch_points(steps, every)}
    result = xr.Dataset(variables, coordinates)
    ended = (result.diverged_at != NEVER) & (result.step >= result.diverged_at)
    return Sweep(result.assign({metric: result[metric].where(~ended) for metric in metrics}))


@eqx.filter_jit
def _for_each(draw: Callable[[PRNGKeyArray], Any], keys: Any) -> Any:
    """What is drawn from each key, stacked; one after another, for XLA compiles random numbers of many axes many times longer."""
    _, others = eqx.partition(eqx.filter_eval_shape(draw, keys[0]), lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return eqx.combine(jax.lax.map(lambda key: eqx.filter(draw(key), eqx.is_array), keys), others)


def _begin(arm: Arm) -> Callable[[Any, Any], _Run]:
    @eqx.filter_jit
    def begin(params: Any, rate: Any) -> _Run:
        return _Run(params, arm(rate).init(eqx.filter(params, eqx.is_inexact_array)), jnp.asarray(NEVER, jnp.int32))

    return begin


def _step(arm: Arm, loss: Callable[[Any, Any], Any], batch: Callable[[Any, Any], Any]) -> Callable[[_Run, Any, Any], _Run]:
    def step(run: _Run, i: Any, args: Any) -> _Run:
        rate, order, data = args
        examples = batch(data, jax.tree.map(lambda entries: entries[i], order))
        gradient = eqx.filter_grad(loss)(run.params, examples)
        updates, optimizer = arm(rate).update(gradient, run.optimizer, eqx.filter(run.params, eqx.is_inexact_array))
        return _Run(eqx.apply_updates(run.params, updates), optimizer, run.diverged_at)

    return step


def _together(
    session: Session,
    begin: Any,
    step: Any,
    evaluate: Any,
    starts: Any,
    grid: Any,
    orders: Any,
    data: Any,
    label: str,
    common: dict[str, Any],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rates and seeds of an arm as one batch, rates slowest."""
    n_rates, n_seeds = len(grid), _n_seeds(starts)
    rates = jnp.repeat(grid, n_seeds)
    seeds = jnp.tile(jnp.arange(n_seeds), n_rates)
    runs = eqx.filter_jit(lambda starts, seeds, rates: eqx.filter_vmap(begin)(_seed(starts, seeds), rates))(starts, seeds, rates)

    def one(run: _Run, rate: Any, seed: Any, i: Any, orders: Any, data: Any) -> _Run:
        after = step(run, i, (rate, _seed(orders, seed), data))
        finite = jnp.stack(
            [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter((after.params, after.optimizer), eqx.is_inexact_array))]
        )
        first = jnp.where(finite.all() | (run.diverged_at != NEVER), run.diverged_at, i + 1)
        return _Run(after.params, after.optimizer, first)

    def all_of_them(runs: _Run, i: Any, args: Any) -> _Run:
        rates, seeds, orders, data = args
        axes = (eqx.if_array(0), 0, 0, None, None, None)
        return eqx.filter_vmap(one, in_axes=axes)(runs, rates, seeds, i, orders, data)

    def watch(runs: _Run, args: Any) -> dict[str, Any]:
        return eqx.filter_vmap(evaluate, in_axes=(eqx.if_array(0), None))(runs.params, args[-1])

    loop = session.loop(all_of_them, runs, args=(rates, seeds, orders, data), watch=watch, label=label, on_nonfinite="keep", **common)
    history = {metric: values.T for metric, values in loop.history.items() if metric != "step"}
    return history, np.asarray(loop.state.diverged_at).reshape(n_rates, n_seeds)


def _one_after_another(
    session: Session,
    begin: Any,
    step: Any,
    evaluate: Any,
    starts: Any,
    grid: Any,
    orders: Any,
    data: Any,
    label: str,
    common: dict[str, Any],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One run at a time: the rate and the seed's batches are arguments, so that all share one compiled step."""
    n_rates, n_seeds = len(grid), _n_seeds(starts)
    points = _watch_points(**common)
    diverged_at = np.full((n_rates, n_seeds), NEVER)
    curves: dict[str, np.ndarray] = {}

    def watch(run: _Run, args: Any) -> dict[str, Any]:
        return evaluate(run.params, args[-1])

    for r in range(n_rates):
        for s in range(n_seeds):
            loop = session.loop(
                step,
                begin(_one_seed(starts, jnp.asarray(s)), grid[r]),
                args=(grid[r], _one_seed(orders, jnp.asarray(s)), data),
                watch=watch,
                label=f"{label} {float(grid[r]):.3g} seed {s}",
                chunk=1,
                on_nonfinite="stop",
                **common,
            )
            on_grid = np.isin(points, loop.history["step"])
            for metric, values in loop.history.items():
                if metric != "step":
                    rows = curves.setdefault(metric, np.full((n_rates * n_seeds, len(points)), np.nan))
                    rows[r * n_seeds + s, on_grid] = values[np.isin(loop.history["step"], points)]
            if loop.diverged_at is not None:
                diverged_at[r, s] = loop.diverged_at
    return curves, diverged_at


def _seed(per_seed: Any, seed: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[seed] if eqx.is_array(leaf) else leaf, per_seed)


_one_seed = eqx.filter_jit(_seed)


def _n_seeds(starts: Any) -> int:
    return len(jax.tree.leaves(eqx.filter(starts, eqx.is_array))[0])


def _watch_points(steps: int, every: int) -> np.ndarray:
    return np.unique([*range(0, steps, every), steps])
