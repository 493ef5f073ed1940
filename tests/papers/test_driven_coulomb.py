from pathlib import Path

import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import driven_coulomb
from gradatim.papers.driven_coulomb import critical, settling


@pytest.fixture(scope="module")
def findings():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return driven_coulomb.run(driven_coulomb.SCALES["smoke"], session)


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "driven_coulomb.toml")


def test_every_part_is_measured_or_says_why_not(findings, paper):
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(findings.measures) | set(findings.untested) == parts
    assert not set(findings.measures) & set(findings.untested)


def test_what_needs_no_simulation_is_judged_at_smoke_scale(findings, paper):
    verdicts = {claim.id: claim.judge(findings.measures, "smoke", findings.untested)["verdict"] for claim in paper.claims}
    assert verdicts["C2"] == verdicts["C5"] == "holds" and verdicts["C3"] == "untested"
    # The sign is found, not put in: with the stress at the wall plates repel at all fields.
    assert findings.measures["C3.lowest_amplitude"].low > 0


def test_figures_are_drawn_from_the_findings(findings):
    figures = driven_coulomb.draw(findings)
    names = {"structure_factors", "plate_force", "critical_spectra", "critical_field", "field_switched_on", "ions_in_time", "settling"}
    assert names <= set(figures)
    assert all(ax.get_title(loc="left") or ax.get_xlabel() or ax.get_ylabel() for figure in figures.values() for ax in figure.axes)


def test_data_have_units(findings):
    for name, node in findings.data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.parametrize("scale", driven_coulomb.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(driven_coulomb.SCALES[scale])
    assert 0 < driven_coulomb.memory(driven_coulomb.SCALES[scale]) < 16e9


def test_correlations_settle_by_diffusion_and_only_along_the_field(findings):
    measure = findings.measures["C4.correlation_time_slope"]
    # Of 240 copies.
    assert abs(measure.value + 2) < 0.6
    structure = findings.data["settling"]["structure"]
    # To 1/(1 + E²) along the field, and nowhere across it.
    assert np.allclose(structure.isel(time=-1), [0.2, 0.2, 0.2, 1.0], rtol=0.35)


def test_half_way_of_a_known_curve():
    time = np.linspace(0, 10, 1001)
    assert abs(settling.half_way(time, 0.2 + 0.8 * np.exp(-time)) - np.log(2)) < 1e-3


def test_the_charge_falls_by_two_powers_more_than_the_density(findings):
    for where in ("along", "across"):
        density, charge = (findings.measures[f"C1.{name}_{where}_field"].value for name in ("slope", "charge_slope"))
        assert abs(charge - density + 2) < 0.15


def test_half_life_of_a_known_process():
    rng = np.random.default_rng(0)
    modes = np.zeros((20000, 3, 2), complex)
    kept = np.array([0.9, 0.97])
    for i in range(1, len(modes)):
        modes[i] = kept * modes[i - 1] + np.sqrt(1 - kept**2) * (rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2)))
    found = critical.half_lives(modes, np.array([1, 2]), 3)
    assert np.allclose(found[:, :2].mean(0), np.log(0.5) / np.log(kept), rtol=0.1) and np.isnan(found[:, 2]).all()


def test_a_window_without_half_lives_is_left_untested():
    values = critical.slopes(np.arange(1.0, 6), np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, np.nan, 3.0, 4.0, 5.0]]), (1, 4))
    measures, untested = critical.over_seeds("C6.dynamic_exponent_1d", values)
    assert not measures and "C6.dynamic_exponent_1d" in untested and np.isclose(values[0], 1)


def exponents(x, y):
    """Of y in x along the last axis, by least squares through the logarithms."""
    x, y = np.log(x), np.log(y)
    return ((x - x.mean()) * (y - y.mean(-1, keepdims=True))).sum(-1) / ((x - x.mean()) ** 2).sum()


def test_exponents_are_those_of_the_runs_and_windows_they_name(findings):
    config, data = driven_coulomb.SCALES["smoke"], findings.data
    value = {name: np.array(measure.samples or (measure.value,)) for name, measure in findings.measures.items()}

    def of_shells(where, name, window):
        low, high = window
        node = data[where].to_dataset()
        k = node["k"].values[low - 1 : high]
        return exponents(k, node[name].values[0, :, low - 1 : high])

    for where, life, dim in (("line", config.line.window, "1d"), ("plane", config.plane.life_window, "2d")):
        window = getattr(config, where).window
        np.testing.assert_allclose(value[f"C6.dynamic_exponent_{dim}"], -of_shells(where, "half_life", life), rtol=1e-6)
        np.testing.assert_allclose(value[f"C7.structure_slope_{dim}"], of_shells(where, "structure", window), rtol=1e-6)
    line, plane = data["line"]["structure"].values, data["plane"]["number_variance"]
    kept = slice(config.line.window[0] - 1, max(config.line.window[1], config.line.control_window[1]))
    ratio = np.exp(np.log(line[1, :, kept] / line[0, :, kept]).mean(-1))
    np.testing.assert_allclose(value["C6.boosted_spectrum_ratio"], ratio, rtol=1e-6)
    np.testing.assert_allclose(value["C7.number_variance_exponent_2d"], exponents(plane["side"].values, plane.values[0]), rtol=1e-6)
    settled = data["settling"].to_dataset()
    np.testing.assert_allclose(
        value["C4.correlation_time_slope"], exponents(settled["along"].values, settled["half_way"].values), rtol=1e-6
    )


def test_what_is_judged_of_correlations_and_plates_is_the_worst(findings):
    measures, space, plates = findings.measures, findings.data["correlations"].to_dataset(), findings.data["plates"].to_dataset()
    np.testing.assert_allclose(measures["C1.modes_within_three_errors"].samples, space["share_within"].mean(["field", "correlation"]))
    field = space["driven"].values[:, None]
    np.testing.assert_allclose(measures["C1.anisotropy_error"].samples, abs(space["ratio"].values * (1 + field**2) - 1).max(axis=0))
    far = space.isel(r=slice(-2, None))
    for name, part in (("slope", "correlation_in_space"), ("charge_slope", "charge_in_space")):
        for direction in ("along", "across"):
            found = exponents(far["r"].values, abs(far[part].sel(direction=direction).values))
            np.testing.assert_allclose(measures[f"C1.{name}_{direction}_field"].value, found, rtol=1e-6)
    for dim in (2, 3):
        found = exponents(plates["separation"].values, plates["force"].sel(dim=dim).values)
        np.testing.assert_allclose(measures[f"C2.distance_slope_{dim}d"].value, found, rtol=1e-6)
    at_the_wall = plates["amplitude"].sel(case=["2d wall", "3d wall"])
    np.testing.assert_allclose(measures["C3.lowest_amplitude"].value, at_the_wall.min())
    slopes = exponents(plates["time"].values, abs(plates["relaxation"].values))
    np.testing.assert_allclose(measures["C4.relaxation_slope"].value, slopes[abs(slopes + 1).argmax()], rtol=1e-6)
