from pathlib import Path

import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import indirect_chemotaxis
from gradatim.papers.indirect_chemotaxis import balls
from gradatim.physics.chemotaxis import Flag


@pytest.fixture(scope="module")
def findings():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        found = indirect_chemotaxis.run(indirect_chemotaxis.SCALES["smoke"], session)
        return found, session.notes


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "indirect_chemotaxis.toml")


def test_every_part_is_measured_or_says_why_not(findings, paper):
    found, _ = findings
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(found.measures) | set(found.untested) == parts
    assert not set(found.measures) & set(found.untested)


def test_entropy_falls_and_small_waves_grow_as_theory_says(findings):
    found, _ = findings
    assert found.measures["C6.entropy_rise"].value <= 1e-12
    waves = found.data["waves"]
    np.testing.assert_allclose(
        waves["rate"], np.stack([np.interp(waves["density"], waves["theory_density"], t) for t in waves["theory"]]), rtol=1e-3
    )


def test_signals_follow_the_root_of_the_time_scale(findings):
    assert abs(findings[0].measures["C4.signal_joint_order"].value - 0.5) < 0.12


def test_two_dimensions_agree_with_one(findings):
    found, notes = findings
    assert float(found.data["rates/square"]["distance_from_interval"]) < 1e-8
    assert any("two dimensions" in note for note in notes)


def test_every_figure_is_drawn_and_labelled(findings):
    figures = indirect_chemotaxis.draw(findings[0])
    assert set(figures) == {"aggregation", "strips", "rates", "layer", "entropy", "waves", "critical_mass"}
    assert all(ax.get_title(loc="left") or ax.get_title() or ax.get_ylabel() for figure in figures.values() for ax in figure.axes)


def test_data_have_units(findings):
    for node in findings[0].data.subtree:
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), node.path


@pytest.mark.parametrize("scale", indirect_chemotaxis.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(indirect_chemotaxis.SCALES[scale])
    assert 0 < indirect_chemotaxis.memory(indirect_chemotaxis.SCALES[scale]) < 8e9


def test_a_bracket_lies_between_falling_and_collapsing_peaks():
    times = np.linspace(0, 1, balls.LOOKS + 1)
    peak = np.stack([1 - times / 2, 2 - times, 1 + times, 1 + 5 * times])
    flag = np.zeros(peak.shape, int)
    flag[3, 20:] = Flag.COLLAPSE
    runs = balls._Runs(np.array([0.8, 0.9, 1.1, 1.3]), peak, flag)
    assert runs.fall() == [True, True, False, False] and balls._bracket(runs) == (0.9, 1.3)
    assert balls._change(runs) == (0.9, 1.1)
    assert balls._bracket(balls._Runs(runs.shares, peak, 0 * flag)) is None


def test_orders_are_those_of_the_last_pair_of_the_study_they_name(findings):
    def order(name, norm, parameter):
        study = findings[0].data[f"rates/{name}"].to_dataset()
        (before, last), (coarse, fine) = study[norm].values[-2:], study[parameter].values[-2:]
        return np.log(before / last) / np.log(coarse / fine)

    def signals(name):
        return np.mean([order(name, norm, "eps") for norm in ("attractant", "signal")])

    for part, value in {
        "C1.cell_order": order("ill", "cells", "eps"),
        "C2.cell_order": order("joint", "cells", "eps"),
        "C3.cell_order": order("ill", "cells", "eps"),
        "C3.signal_order_ill_prepared": signals("ill"),
        "C3.signal_order_well_prepared": signals("well"),
        "C4.joint_order": order("joint", "cells", "tau"),
        "C4.spreading_order": order("spreading", "cells", "tau"),
        "C4.signal_joint_order": signals("joint"),
    }.items():
        np.testing.assert_allclose(findings[0].measures[part].value, value, rtol=1e-9, err_msg=part)
