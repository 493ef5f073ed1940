"""Errors of the two limits, and their orders: C1 and C2 in part, C3 and C4."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import chemotaxis as ct

from .config import Config, Rates
from .start import ill_prepared

NORMS = ("cells", "attractant", "signal", "attractant_gradient", "cells_at_end")
Errors = dict[str, np.ndarray]


def run_rates(whole: Config, session: Session) -> Findings:
    """Intervals with and without an initial layer, both limits; a ball in four dimensions and a square beside them."""
    config = whole.rates
    elliptic = {"eps": np.asarray(config.time_scales), "tau": np.full(len(config.time_scales), config.spreading)}
    joint = {"eps": np.asarray(config.joint), "tau": np.asarray(config.joint)}
    alone = {"eps": np.full(len(config.spreadings), config.small_time_scale), "tau": np.asarray(config.spreadings)}
    grid = ct.Box((config.cells,))
    n0, c0, w0 = ill_prepared(grid)
    _, well_c, well_w = ct.IndirectChemotaxis(grid, 0.0, config.spreading).init(n0)
    ill = _Study(session, "rates, ill", grid, "pes", (n0, c0, w0), elliptic, "eps", config)
    well = _Study(session, "rates, well", grid, "pes", (n0, well_c, well_w), elliptic, "eps", config)
    both = _Study(session, "rates, joint", grid, "ids", (n0, c0, w0), joint, "eps", config)
    spread = _Study(session, "rates, spreading", grid, "ids", (n0, c0, w0), alone, "tau", config)
    measures = {
        "C1.cell_order": ill.order("cells"),
        "C2.cell_order": both.order("cells"),
        "C3.cell_order": _range(
            [ill.order("cells"), well.order("cells")], "ill-prepared; the interval holds well-prepared ones too", first=True
        ),
        "C3.signal_order_ill_prepared": _range([ill.order("attractant"), ill.order("signal")], "both signals"),
        "C3.signal_order_well_prepared": _range([well.order("attractant"), well.order("signal")], "both signals"),
        "C4.joint_order": both.order("cells"),
        "C4.spreading_order": spread.order("cells"),
        "C4.signal_joint_order": _range([both.order("attractant"), both.order("signal")], "both signals"),
    }
    data = {f"rates/{name}": study.dataset() for name, study in {"ill": ill, "well": well, "joint": both, "spreading": spread}.items()}
    data["rates/ball"] = _ball(config, session)
    data["rates/square"] = _square(config, session)
    return Findings(measures, xr.DataTree.from_dict(data))


@functools.partial(jax.jit, static_argnames=("grid", "limit", "time", "n_layer", "n_after"))
def _errors(
    start: tuple[Any, ...],
    eps: Any,
    tau: Any,
    *,
    grid: ct.AbstractGrid,
    limit: Literal["pes", "ids"],
    time: float,
    n_layer: int,
    n_after: int,
) -> dict[str, Any]:
    model = ct.IndirectChemotaxis(grid, 1.0, 1.0)
    found = ct.convergence_study(model, *start, eps=eps, tau=tau, limit=limit, t_end=time, n_layer=n_layer, n_after=n_after)
    return {name: getattr(found, name) for name in NORMS}


class _Study:
    """The errors of several cases, and with steps twice as long."""

    def __init__(
        self,
        session: Session,
        label: str,
        grid: ct.AbstractGrid,
        limit: Literal["pes", "ids"],
        start: tuple[Any, ...],
        cases: dict[str, np.ndarray],
        parameter: str,
        config: Rates,
    ):
        def study(divisor: int) -> dict[str, Any]:
            return _errors(
                start,
                jnp.asarray(cases["eps"]),
                jnp.asarray(cases["tau"]),
                grid=grid,
                limit=limit,
                time=config.time,
                n_layer=config.layer_steps // divisor,
                n_after=config.later_steps // divisor,
            )

        self.cases, self.parameter = cases, parameter
        self._compute = lambda divisor: {
            name: np.asarray(e) for name, e in session.once(f"{label}, steps / {divisor}", study, divisor).items()
        }
        self.errors: Errors = self._compute(1)

    @functools.cached_property
    def coarse(self) -> Errors:
        """The errors with steps twice as long."""
        return self._compute(2)

    def orders(self, errors: Errors, norm: str) -> np.ndarray:
        """Between neighbours."""
        p = self.cases[self.parameter]
        return np.log(errors[norm][:-1] / errors[norm][1:]) / np.log(p[:-1] / p[1:])

    def order(self, norm: str) -> Measure:
        """That of the last pair, with the change under steps twice as long as a bound on its error in time."""
        fine, coarse = (float(self.orders(errors, norm)[-1]) for errors in (self.errors, self.coarse))
        return Measure.exact(fine, abs(fine - coarse))

    def dataset(self) -> xr.Dataset:
        """Errors by case."""
        variables: dict[str, Any] = {name: ("case", self.errors[name], {"units": "1"}) for name in NORMS}
        variables |= {f"{name}_order": ("pair", self.orders(self.errors, name), {"units": "1"}) for name in NORMS}
        variables |= {name: ("case", values, {"units": "1"}) for name, values in self.cases.items()}
        return xr.Dataset(variables)


def _range(measures: list[Measure], what: str, *, first: bool = False) -> Measure:
    rows = [m.intervals()[0] for m in measures]
    values, lows, highs = zip(*rows, strict=True)
    return Measure(values[0] if first else float(np.mean(values)), min(lows), max(highs), f"range of the last pair's orders: {what}")


def _ball(config: Rates, session: Session) -> xr.Dataset:
    """Well-prepared cells at half the critical mass in four dimensions: the limit holds there as on an interval."""
    grid = ct.Radial(4, config.ball_cells)
    shape = np.exp(-(grid.centres[0] ** 2) / (2 * 0.2**2))
    mass = 0.5 * float(ct.critical_mass(4, tau=config.spreading))
    cells = jnp.asarray(mass * shape / (grid.volumes * shape).sum())
    eps = np.asarray(config.time_scales[-2:]) / 10
    cases = {"eps": eps, "tau": np.full(2, config.spreading)}
    study = _Study(session, "rates, ball", grid, "pes", (cells,), cases, "eps", config)
    order = study.orders(study.errors, "cells")[-1]
    session.note(
        f"four dimensions, half the critical mass, well prepared: the cells' largest error is of observed order {order:.3f} between "
        f"ε = {eps[0]:g} and {eps[1]:g}"
    )
    return study.dataset()


def _square(config: Rates, session: Session) -> xr.Dataset:
    """Two dimensions: data of x alone beside the interval, and a product of cosines with both limits at two time scales."""
    n = config.square_cells
    line, square = ct.Box((n,)), ct.Box((n, n))
    x, y = (np.asarray(c) for c in square.centres)
    scales = (config.time_scales[-2], config.time_scales[-1])
    time = min(config.time, 0.2)
    # Well-prepared signals: a twentieth of the time scale is short enough.
    steps = max(round(20 * time / scales[1]), 8) // 8 * 8
    dt = time / steps

    def run(model: ct.IndirectChemotaxis, cells: Any) -> Any:
        return model.evolve(model.init(cells), dt=dt, n_steps=steps, every=steps // 8).cells

    @jax.jit
    def along_line(cells: Any, eps: Any) -> dict[str, Any]:
        return {"end": run(ct.IndirectChemotaxis(line, eps, config.spreading), cells)[-1]}

    @jax.jit
    def differences(cells: Any) -> dict[str, Any]:
        def full(eps: Any, tau: Any) -> Any:
            return run(ct.IndirectChemotaxis(square, eps, tau), cells)

        eps = jnp.asarray(scales)
        fields = jax.vmap(full)(jnp.tile(eps, 2), jnp.concatenate([jnp.full(2, config.spreading), eps]))
        simple = [run(ct.IndirectChemotaxis(square, 0.0, tau), cells) for tau in (config.spreading, 0.0)]
        distances = fields.reshape(2, 2, *fields.shape[1:]) - jnp.stack(simple)[:, None]
        norms = jax.vmap(jax.vmap(jax.vmap(square.norm)))(distances).max(2)
        return {"end": fields[0, -1], "pes": norms[0], "ids": norms[1]}

    wave = 5 * (1 + 0.8 * np.cos(np.pi * x))
    on_line = session.once("interval beside the square", along_line, jnp.asarray(wave), jnp.asarray(scales[0]))
    alone = session.once("data of x alone in the square", differences, jnp.asarray(np.broadcast_to(wave[:, None], (n, n))))
    product = 5 * (1 + 0.8 * np.cos(np.pi * x)[:, None] * np.cos(np.pi * y)[None, :])
    crossed = session.once("product of cosines in the square", differences, jnp.asarray(product))
    gap = float(np.abs(np.asarray(alone["end"]) - np.asarray(on_line["end"])[:, None]).max())
    orders = {limit: float(np.log2(crossed[limit][0] / crossed[limit][1]) / np.log2(scales[0] / scales[1])) for limit in ("pes", "ids")}
    session.note(
        f"two dimensions: data of x alone end within {gap:.1e} of the interval's; for a product of cosines, well prepared, the error of n "
        f"is of observed order {orders['pes']:.3f} (elliptic limit) and {orders['ids']:.3f} (direct limit, both parameters)"
    )
    return xr.Dataset(
        {
            "elliptic": ("eps", np.asarray(crossed["pes"]), {"units": "1"}),
            "direct": ("eps", np.asarray(crossed["ids"]), {"units": "1"}),
            "distance_from_interval": ((), gap, {"units": "1"}),
        },
        {"eps": ("eps", list(scales), {"units": "1"})},
    )
