import io
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy import stats

from gradatim.lab import plots


def test_figure_has_a_grid_of_axes_and_no_global_state():
    before = dict(mpl.rcParams)
    fig, axes = plots.figure(2, 3)
    assert axes.shape == (2, 3) and plots.figure()[1].shape == (1, 1)
    assert tuple(fig.get_size_inches()) == pytest.approx((3 * plots.PANEL[0], 2 * plots.PANEL[1]))
    assert not axes[0, 0].spines["top"].get_visible()
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_lines_take_the_palette_in_order():
    _, axes = plots.figure()
    colours = [axes[0, 0].plot([0, 1])[0].get_color() for _ in plots.COLOURS]
    assert colours == list(plots.COLOURS) and len({to_rgb(colour) for colour in colours}) == len(colours) == len(plots.MARKERS)


def test_a_logarithmic_axis_is_marked_at_the_values_alone():
    _, axes = plots.figure()
    ax = axes[0, 0]
    ax.plot([0.02, 0.2], [1, 2])
    plots.log_ticks(ax, [0.02, 0.05, 0.2])
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.02", "0.05", "0.2"]
    assert not ax.get_xticks(minor=True).size
    # A base of one's own stays.
    ax.set_xscale("log", base=2)
    plots.log_ticks(ax, [1, 4])
    assert ax.xaxis.get_transform().base == 2


def test_interval_is_the_mean_with_students_band():
    _, axes = plots.figure()
    values = np.array([[1.0, 2.0, np.nan], [2.0, 4.0, 1.0], [3.0, 6.0, 1.0]])
    plots.interval(axes[0, 0], [0, 1, 2], values, name="ours")
    (line,), (band,) = axes[0, 0].lines, axes[0, 0].collections
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 4.0, np.nan])
    half = stats.sem([2.0, 4.0, 6.0]) * stats.t.ppf(0.975, 2)
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(4 + half) and corners[:, 0].max() == 1
    assert line.get_label() == "ours"


def test_interval_in_logarithms_is_that_of_the_geometric_mean_and_stays_positive():
    _, axes = plots.figure()
    values = np.array([[1e-6, 1.0, 0.0], [1.0, 2.0, 1.0], [1.0, 4.0, 1.0]])
    plots.interval(axes[0, 0], [0, 1, 2], values, is_log=True)
    (line,), (band,) = axes[0, 0].lines, axes[0, 0].collections
    np.testing.assert_allclose(line.get_ydata(), [1e-2, 2.0, np.nan])
    half = stats.sem(np.log([1.0, 2.0, 4.0])) * stats.t.ppf(0.975, 2)
    corners = band.get_paths()[0].vertices
    assert 0 < corners[:, 1].min() < 1e-2 and corners[corners[:, 0] == 1][:, 1].max() == pytest.approx(2 * np.exp(half))
    # The control: around the mean of the same numbers the band reaches below zero.
    plots.interval(axes[0, 0], [0, 1, 2], values)
    assert axes[0, 0].collections[1].get_paths()[0].vertices[:, 1].min() < 0


def test_one_repetition_has_no_band():
    _, axes = plots.figure()
    plots.interval(axes[0, 0], [0, 1], [[1.0, 2.0]])
    assert not axes[0, 0].collections


def test_interval_refuses_other_shapes():
    _, axes = plots.figure()
    with pytest.raises(ValueError, match=r"values must have shape \(repetitions, 2\), got \(3, 3\)"):
        plots.interval(axes[0, 0], [0, 1], np.ones((3, 3)))


def test_labels_carry_units():
    _, axes = plots.figure()
    plots.label(axes[0, 0], "time", "loss", x_unit="s", title="a")
    assert (axes[0, 0].get_xlabel(), axes[0, 0].get_ylabel(), axes[0, 0].get_title(loc="left")) == ("time [s]", "loss", "a")
    plots.label(axes[0, 0], "step", "energy", y_unit="J")
    assert (axes[0, 0].get_xlabel(), axes[0, 0].get_ylabel(), axes[0, 0].get_title(loc="left")) == ("step", "energy [J]", "a")


def test_a_figure_drawn_once_is_the_figure_that_matplotlib_saves():
    def draw():
        fig, axes = plots.figure(1, 2)
        axes[0, 0].loglog([1, 1000], [1, 1e-3])
        plots.label(axes[0, 0], "time", "loss", x_unit="s")
        return fig

    image, expected = plots.png(draw()), io.BytesIO()
    draw().savefig(expected, format="png", dpi=plots.DPI, metadata={"Software": None})
    assert image == expected.getvalue() == plots.png(draw())
    assert int.from_bytes(image[16:20]) == pytest.approx(2 * plots.PANEL[0] * plots.DPI, abs=1)
