from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import thermomigration
from gradatim.papers.thermomigration import many, simulation, single


@pytest.fixture(scope="module")
def findings():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return thermomigration.run(thermomigration.SCALES["smoke"], session)


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "thermomigration.toml")


def test_every_part_is_measured_or_says_why_not(findings, paper):
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(findings.measures) | set(findings.untested) == parts
    assert not set(findings.measures) & set(findings.untested)


def test_iron_bars_hold_and_the_experiment_stays_untested(findings, paper):
    verdict = paper.claims[0].judge(findings.measures, "smoke", findings.untested)
    assert verdict["verdict"] == "untested" and "could not be read" in verdict["reason"]
    assert [part["verdict"] for part in verdict["parts"].values()] == ["holds", "holds", "holds", "untested", "untested"]


def test_a_slab_that_is_lost_is_untested_and_the_rest_is_judged():
    config = thermomigration.Slabs()
    runs = [
        (case, width, *((np.nan, np.nan) if (case.name, width) == ("thermal", 240) else (1.01 * case.theory, 1e-7)))
        for width, cases in single._slab_cases(config).items()
        for case in [*cases, *([single._Case("total law", *single._DRIVES["competing"], config.gradient, "total")] if width == 240 else [])]
    ]
    errors = dict.fromkeys(single._DRIVES, 0.01) | {"thermal": np.nan}
    found = single._judge_slabs(config, runs, errors)
    lost = "not measured: the slab of width 240 in a gradient of 0.0005 (thermal) was lost"
    parts = {"C2.thermal_velocity_ratio", "C2.equal_heats_velocity", "C4.slab_velocity_error", "C4.slab_profile_error"}
    assert found.untested == dict.fromkeys(parts, lost)
    assert found.measures["C2.chemical_velocity_ratio"].value == pytest.approx(1.01)
    assert np.isnan(simulation.steady_speed(np.arange(8.0), np.array([1.0] * 7 + [np.nan]))).all()


def test_pairs_have_a_bound_on_the_error_of_the_time_step(findings):
    for part in ("small_growth", "large_growth", "isothermal_small_growth", "swapped_minus_isothermal"):
        measure = findings.measures[f"C5.{part}"]
        assert 0 < measure.high - measure.low < 0.1 * abs(findings.measures["C5.isothermal_small_growth"].value)


def test_figures_are_drawn_from_the_findings(findings):
    figures = thermomigration.draw(findings)
    assert set(figures) == {"profiles", "velocities", "pairs", "many_particles", "centre_of_mass"}
    assert all(ax.get_title(loc="left") or ax.get_title() or ax.get_ylabel() for figure in figures.values() for ax in figure.axes)


def test_data_have_units(findings):
    for name, node in findings.data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.parametrize("scale", thermomigration.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(thermomigration.SCALES[scale])
    assert 0 < thermomigration.memory(thermomigration.SCALES[scale]) < 4e9


def test_arrangements_do_not_touch_and_are_a_function_of_the_seed():
    config = thermomigration.Many()
    (centres, radii), again = (many._arrangement(config, np.random.default_rng(3)) for _ in range(2))
    assert (centres == again[0]).all() and radii.size == config.particles
    apart = centres[:, None] - centres[None]
    apart[..., 1] = (apart[..., 1] + 64) % 128 - 64
    gaps = np.hypot(*np.moveaxis(apart, -1, 0)) - radii[:, None] - radii[None] + 1e9 * np.eye(radii.size)
    assert gaps.min() > 2 * simulation.DELTA


def test_too_many_particles_are_refused():
    with pytest.raises(ValueError, match=r"many\.particles must fit into many\.shape"):
        many._arrangement(replace(thermomigration.Many(), particles=400), np.random.default_rng(0))
