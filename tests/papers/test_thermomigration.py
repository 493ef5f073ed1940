from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import Measure, read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import thermomigration
from gradatim.papers.thermomigration import many, pairs, simulation, single


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


def test_a_share_of_a_mean_has_the_error_of_that_mean():
    whole = np.array([0.5, 1.0, 1.5, 1.1, 0.9, 1.3, 0.7])
    # A constant part of a mean that scatters; and a part that scatters with it, and is the same share of it every time.
    fixed, shared = (many._share_of_mean(part, whole) for part in (np.full(7, 0.2), 0.2 * whole))
    assert fixed is not None and shared is not None
    _, low, high = Measure.over_seeds(whole).intervals()[0]
    np.testing.assert_allclose(fixed.intervals(), [(0.2, 0.2 / high, 0.2 / low)])
    np.testing.assert_allclose(shared.intervals(), [(0.2, 0.2, 0.2)])
    assert many._share_of_mean(np.full(7, 0.2), -whole) == fixed
    assert many._share_of_mean(whole, whole - 1) is None and many._share_of_mean(whole, 0 * whole) is None


def test_measures_of_known_shifts():
    without, within = np.array([0.1, -0.2, 0.4]), np.array([1.0, 1.1, 0.9])
    measures, untested = many._judge_shifts(without, within)
    np.testing.assert_allclose(measures["C6.shift"].samples, within)
    np.testing.assert_allclose(measures["C6.shift_over_isothermal"].samples, within - without)
    np.testing.assert_allclose(measures["C6.isothermal_shift_share"].samples, without)
    assert not untested
    assert set(many._judge_shifts(without, within - 1)[1]) == {"C6.isothermal_shift_share"}


def test_too_many_particles_are_refused():
    with pytest.raises(ValueError, match=r"many\.particles must fit into many\.shape"):
        many._arrangement(replace(thermomigration.Many(), particles=400), np.random.default_rng(0))


def test_measures_of_known_slabs():
    config = thermomigration.Slabs()
    widest, ours = config.widths[-1], {"thermal": 1.1, "chemical": 0.9, "competing": 1.3}

    def speed(case, width):
        if case.name == "reversal":
            return 0.01 * (0.25 - (case.heats[1] - case.heats[0]))
        if case.name == "gradients":
            return 3 * case.gradient**2
        if case.name == "equal heats":
            return -0.05 * 1.1 * single._Case("thermal", *single._DRIVES["thermal"], config.gradient).theory
        return case.theory * (0.8 if case.name == "total law" else ours[case.name] + 240 / width - 240 / widest)

    cases = [(case, width) for width, some in single._slab_cases(config).items() for case in some]
    cases.append((single._Case("total law", *single._DRIVES["competing"], config.gradient, "total"), widest))
    errors = dict(zip(single._DRIVES, (0.01, 0.03, 0.02), strict=True))
    found = single._judge_slabs(config, [(case, width, speed(case, width), 1e-9) for case, width in cases], errors)
    for name, value in {
        **{f"C2.{drive}_velocity_ratio": ratio for drive, ratio in ours.items()},
        "C2.equal_heats_velocity": 0.05,
        "C2.total_law_ratio": 0.8,
        "C2.reversal_heat_difference": 0.25,
        "C3.gradient_exponent": 2,
        "C4.slab_velocity_error": 0.3,
        "C4.velocity_error_with_width": [0.3 + 240 / width - 240 / widest for width in config.widths],
        "C4.slab_profile_error": 0.03,
    }.items():
        np.testing.assert_allclose(found.measures[name].value, value, rtol=1e-6, err_msg=name)
    assert not found.untested


def test_measures_are_those_of_the_pairs_and_gradients_they_name(findings):
    measures, data = findings.measures, {name: node.to_dataset() for name, node in findings.data.children.items()}
    centre = data["many"]["centre"].values
    without, within = centre[-1] - centre[0]
    np.testing.assert_allclose(measures["C6.shift"].samples, within)
    np.testing.assert_allclose(measures["C6.shift_over_isothermal"].samples, within - without)
    discs = data["discs"]
    ratio = (discs["velocity"] / discs["theory"]).values
    np.testing.assert_allclose(measures["C4.disc_velocity_ratio"].value, ratio[discs["radius"].values.argmax()])
    both, config = data["pairs"], thermomigration.SCALES["smoke"].pairs
    near, steepest = both["gap"].values == config.gap, max(config.gradients)
    still, steep = (int(np.flatnonzero(near & (both["gradient"].values == g))[0]) for g in (0.0, steepest))
    last = both["elongation"].values[-1]
    np.testing.assert_allclose(measures["C3.shape_change"].value, abs(last[steep] - last[still]))
    swapped = int(np.flatnonzero(near & (both["gradient"].values == -steepest))[0])
    growth = pairs._late_growth(both["area"].values)
    for name, value in {
        "C5.small_growth": growth[steep, 1],
        "C5.large_growth": growth[steep, 0],
        "C5.isothermal_small_growth": growth[still, 1],
        "C5.swapped_minus_isothermal": growth[swapped, 1] - growth[still, 1],
    }.items():
        np.testing.assert_allclose(measures[name].value, value, err_msg=name)
