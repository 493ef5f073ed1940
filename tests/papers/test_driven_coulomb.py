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
