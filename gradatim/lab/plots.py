"""One look for all figures: colours that everyone can tell apart, clean axes, labels with units."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.lab.measures import student_factor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"Okabe and Ito's palette (Color Universal Design, 2008), dark colours first."
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"A second sign for each colour, for scatters printed in grey."
DPI = 150
PANEL = (4.2, 3.1)
"Width and height of one panel, inches."


@contextmanager
def style() -> Iterator[None]:
    """The shared look, for figures that are made and saved inside."""
    import matplotlib as mpl
    from cycler import cycler

    settings: dict[Any, Any] = {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": "medium",
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "font.size": 9.5,
        "image.cmap": "cividis",
        "figure.dpi": DPI,
    }
    with mpl.rc_context(settings):
        yield


def figure(
    n_rows: int = 1, n_columns: int = 1, *, panel: tuple[float, float] = PANEL, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure in the shared look, known to nobody else (no pyplot), and its axes, always of shape `(n_rows, n_columns)`.

    **Arguments:** `panel`: width and height of each panel, inches.
    """
    from matplotlib.figure import Figure

    with style():
        fig = Figure(figsize=(panel[0] * n_columns, panel[1] * n_rows), layout="constrained")
        axes = fig.subplots(n_rows, n_columns, sharex=sharex, sharey=sharey, squeeze=False)
    return fig, axes


def label(ax: Axes, x: str, y: str, *, x_unit: str = "", y_unit: str = "", title: str = "") -> None:
    """Names both axes, with their units in brackets."""
    ax.set_xlabel(f"{x} [{x_unit}]" if x_unit else x)
    ax.set_ylabel(f"{y} [{y_unit}]" if y_unit else y)
    if title:
        ax.set_title(title, loc="left")


def log_ticks(ax: Axes, values: Any, **style: Any) -> None:
    """A logarithmic first axis, marked at these values alone: what a decade would be marked at runs into each other."""
    values = np.asarray(values)
    if ax.get_xscale() != "log":
        ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values], **style)
    ax.set_xticks([], minor=True)


def interval(ax: Axes, x: Any, values: Any, *, name: str = "", colour: str | None = None, marker: str = "", is_log: bool = False) -> None:
    """The mean of repetitions (the first axis of `values`) as a line, and its 95 % interval (Student's t) as a band.

    Points at which a repetition is not finite are left out; a single repetition has no band.

    **Arguments:** `is_log`: for an axis in logarithms the geometric mean and its interval, which ends above zero; points at which a
    repetition is not positive are left out too.
    """
    x, values = np.asarray(x), np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != x.size:
        raise ValueError(f"values must have shape (repetitions, {x.size}), got {values.shape}")
    n = len(values)
    whole = (np.isfinite(values) & ((values > 0) | (not is_log))).all(axis=0)
    kept = np.where(whole, values, 1.0)
    kept, back = (np.log(kept), np.exp) if is_log else (kept, np.asarray)
    mean = np.where(whole, kept.mean(axis=0), np.nan)
    (line,) = ax.plot(x, back(mean), label=name, color=colour, marker=marker)
    if n > 1:
        half = student_factor(n) * kept.std(axis=0, ddof=1) / np.sqrt(n)
        ax.fill_between(x, back(mean - half), back(mean + half), where=whole, color=line.get_color(), alpha=0.2, linewidth=0)


def png(fig: Figure) -> bytes:
    """A figure as a PNG image; the same figure gives the same bytes.

    Laid out and drawn once, where `Figure.savefig` draws twice.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    with style():
        fig.set_dpi(DPI)
        canvas = FigureCanvasAgg(fig)
        canvas.draw()
        image = io.BytesIO()
        # Without the library's version in it, the same picture is the same file.
        nameless: dict[str, Any] = {"Software": None}
        imsave(image, np.asarray(canvas.buffer_rgba()), format="png", dpi=DPI, metadata=nameless)
    return image.getvalue()
