from pathlib import Path

import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import Measure, read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import thermodynamic_forcing
from gradatim.papers.thermodynamic_forcing import boxes, judging, motion, whistlers
from gradatim.physics import plasma


@pytest.fixture(scope="module")
def run():
    session = Session(jax.random.key(0), precision="single", scale="smoke")
    return thermodynamic_forcing.run(thermodynamic_forcing.SCALES["smoke"], session), session


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "thermodynamic_forcing.toml")


def test_every_part_is_measured_or_says_why_not(run, paper):
    findings, _ = run
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(findings.measures) | set(findings.untested) == parts
    assert not set(findings.measures) & set(findings.untested)


def test_what_smoke_can_judge_is_the_gas_and_the_single_particle(run, paper):
    findings, session = run
    verdicts = {claim.id: claim.judge(findings.measures, "smoke", findings.untested)["verdict"] for claim in paper.claims}
    assert verdicts["C1"] == "holds" and verdicts["C2"] == "holds" and verdicts["C6"] == "holds"
    assert any("effective electric field" in note for note in session.notes)
    assert any("Gauss's law" in note for note in session.notes)


def test_charge_is_conserved_in_every_box(run):
    findings, _ = run
    names = [arm.name for arm in boxes.arms(thermodynamic_forcing.SCALES["smoke"].boxes)]
    for name in names:
        assert float(findings.data[name]["gauss_error"].max()) < 2e-5, name


def test_figures_are_drawn_from_the_findings(run):
    findings, _ = run
    figures = thermodynamic_forcing.draw(findings)
    assert set(figures) == {"heat_flux", "waves", "anisotropy", "spectrum", "strip", "distribution", "particles"}
    assert all(ax.get_title(loc="left") or ax.get_title() or ax.get_ylabel() for figure in figures.values() for ax in figure.axes)


def test_data_have_units(run):
    findings, _ = run
    for name, node in findings.data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.parametrize("scale", thermodynamic_forcing.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(thermodynamic_forcing.SCALES[scale])
    assert 0 < thermodynamic_forcing.memory(thermodynamic_forcing.SCALES[scale]) < 6e10


def test_waves_are_counted_by_helicity_and_without_the_noise_of_the_grid():
    arm, scales = boxes.arms(thermodynamic_forcing.Boxes())[0], plasma.PlasmaScales(0.1, 40.0)
    seen = {"negative": np.array([[[1.0, 2.0, 500.0]]]), "positive": np.array([[[0.1, 0.2, 500.0]]])}
    run = boxes.Run(arm, seen, np.array([0.5, 3.9, 30.0]), plasma.Vector(0.0, 0.0, 0.0), scales)
    assert np.allclose([run.energy("negative"), run.energy("positive")], np.reshape([3.0, 0.3], (2, 1, 1)) / (2 * 0.1 / 40))


def test_anisotropy_is_told_in_units_of_one_over_beta():
    arm = boxes.arms(thermodynamic_forcing.Boxes())[3]
    seen = {"parallel": np.array([[1.1, 1.0]]), "perpendicular": np.array([[0.95, 1.0]])}
    run = boxes.Run(arm, seen, np.ones(1), plasma.Vector(0.0, 0.0, 0.0), plasma.PlasmaScales(0.1, 40.0))
    assert np.allclose(run.delta_beta, [[-0.15 * 40, 0.0]])


def test_oracle_foldings_of_a_steady_drive_are_its_rate_times_time():
    # Fastest wave at η β = 3: K = 0.780, γ β / Ω = 0.3284; at K = 2 it is damped, which noise is not.
    time = np.linspace(0, 10, 11)
    found = whistlers.foldings(np.array([0.78, 2.0]), time, 40.0, heat_flux=np.full(11, 3.0), anisotropy=np.zeros(11))
    assert np.allclose(found[:, 0], 2 * 0.3284 / 40 * time, rtol=1e-3) and (found[:, 1] == 0).all()
    assert abs(whistlers.fastest(3.0) - 0.780) < 0.005
    # Anisotropy of the firehose's sign holds whistlers back.
    stilled = whistlers.foldings(np.array([0.78]), time, 40.0, heat_flux=np.full(11, 3.0), anisotropy=np.full(11, -6.0))
    assert (stilled == 0).all()


def test_arms_differ_in_one_thing_at_a_time():
    arms = {arm.name: arm for arm in boxes.arms(thermodynamic_forcing.Boxes())}
    both, heat, shear = (arms[name] for name in ("both_across", "heat_across", "shear_across"))
    assert both._replace(name="", has_shear=False) == heat._replace(name="")
    assert both._replace(name="", has_heat=False) == shear._replace(name="")
    along, idle = arms["heat_along"], arms["no_force"]
    assert along._replace(name="", has_heat=False) == idle._replace(name="")
    assert np.isclose(arms["low_beta"].time, 1.05 * 0.6 * 40)


def test_measures_are_those_of_the_boxes_and_times_they_name(run):
    findings, _ = run
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    heat, shear, both, alone = (data[name] for name in ("heat_along", "shear_across", "both_across", "heat_across"))

    def end(box, name):
        return box[name].values[:, -1]

    def others(values, seed):
        return np.delete(values, seed, axis=0).mean(axis=0)

    config = thermodynamic_forcing.SCALES["smoke"].boxes
    assert config.looks < 60
    time = both["time"].values
    middle = abs(time / time[-1] - 2 / 3) <= 0.6 / config.looks
    late = slice(-(config.looks // 3), None)
    energies = [(box["energy_positive"] + box["energy_negative"]).values[:, middle].mean(axis=1) for box in (both, alone)]
    along, across = (shear[f"{name}_pressure"].values for name in ("parallel", "perpendicular"))
    ratio = along / across
    helicities = [shear[f"energy_{sign}"].values[:, late].mean(axis=1) for sign in ("positive", "negative")]
    beta = float(shear.attrs["beta"])
    for name, samples in {
        "C3.helicity_ratio": end(heat, "energy_negative") / end(heat, "energy_positive"),
        "C3.flux_over_linear": end(heat, "heat_flux") / end(data["without_waves"], "heat_flux"),
        "C4.peak_anisotropy": ratio.max(axis=1),
        "C4.final_delta_beta": beta * 3 * ((across - along) / (along + 2 * across))[:, -1],
        "C4.helicity_balance": helicities[0] / helicities[1],
        "C5.flux_difference": end(both, "heat_flux") - end(alone, "heat_flux"),
        "C5.early_energy_ratio": energies[0] / energies[1],
    }.items():
        np.testing.assert_allclose(findings.measures[name].samples, samples, rtol=1e-3, atol=1e-5, err_msg=name)
    falls = ratio[:, -1] - ratio[range(3), [others(ratio, i)[:-1].argmax() for i in range(3)]]
    np.testing.assert_allclose(findings.measures["C4.final_minus_peak"].value, falls.mean(), rtol=1e-3, atol=1e-5)


def test_an_anisotropy_that_still_rises_is_not_below_its_peak():
    looks = np.arange(20.0)
    rising = np.stack([1 + 0.01 * looks, 1 + 0.02 * looks, 1 + 0.03 * looks])
    # The last of the means of five looks less the last that shares none of them; all have it, so that Student's interval is right.
    found = judging.final_minus_peak(rising, 5)
    np.testing.assert_allclose(found.intervals(), Measure.over_seeds([0.05, 0.1, 0.15]).intervals())


def test_the_peak_is_where_the_other_seeds_have_theirs():
    ratio = np.ones((3, 12))
    ratio[0, 3], ratio[1, 6], ratio[2, 6], ratio[:, -1] = 1.9, 1.4, 1.4, [1.1, 1.2, 1.3]
    # The first would look at 6, where it has 1; the others at 3, where the first's is the highest.
    np.testing.assert_allclose(judging.final_minus_peak(ratio, 1).value, np.mean([0.1, 0.2, 0.3]))
    ratio[0, 3] = 1.3
    np.testing.assert_allclose(judging.final_minus_peak(ratio, 1).value, np.mean([0.1, -0.2, -0.1]))


def test_peaks_that_are_nearly_tied_widen_the_interval():
    ratio = np.ones((5, 12))
    ratio[:, 3], ratio[:, 6] = [1.4, 1.4, 1.0, 1.1, 1.2], [1.0, 1.1, 1.4, 1.4, 1.25]
    peaks = [np.delete(ratio, seed, axis=0)[:, :-1].mean(axis=0).argmax() for seed in range(5)]
    assert set(peaks) == {3, 6}
    ((value, low, high),) = judging.final_minus_peak(ratio, 1).intervals()
    ((mean, lower, upper),) = Measure.over_seeds(1 - ratio[range(5), peaks]).intervals()
    np.testing.assert_allclose(value, mean)
    assert low < lower and upper < high


def test_the_early_flux_is_farthest_from_its_line_within_the_window():
    eta = np.array([0.1, 0.3, 0.5, 0.7])
    error, look = judging.early_error(0.6 * eta * np.array([[2, 1.02, 1.07, 2], [2, 0.9, 1.07, 2]]), eta, 0.6)
    np.testing.assert_allclose(error, [0.07, 0.1], atol=1e-6)
    assert look.tolist() == [2, 1]
    # A run that ends before the window is judged at its end.
    np.testing.assert_allclose(judging.early_error(np.array([[0.5, 0.03]]), np.array([0.0, 0.1]), 0.6)[0], 0.5)


def test_the_bend_of_the_line_itself_is_told_at_either_beta(run, paper):
    findings, session = run
    told = [note for note in session.notes if note.startswith("early heat flux at beta")]
    assert [note.split(":")[0] for note in told] == ["early heat flux at beta 40", "early heat flux at beta 1"]
    assert all("the line is their linear response" in note for note in told)
    criterion = next(claim for claim in paper.claims if claim.id == "C7").parts[0]
    assert "linear response" in criterion.control
    for name, box in (("without_waves", "heat_along"), ("without_waves_low_beta", "low_beta")):
        free, waves = (findings.data[key]["heat_flux"].values for key in (name, box))
        assert free.shape == waves.shape
        # They begin as the same electrons, and the waves of so short a run do little.
        np.testing.assert_allclose(free[:, 0], waves[:, 0], atol=1e-5)


def test_measures_of_known_early_fluxes():
    config, arm, scales = thermodynamic_forcing.Boxes(), boxes.arms(thermodynamic_forcing.Boxes())[0], plasma.PlasmaScales(0.1, 40.0)
    eta = np.array([0.0, 0.3, 0.5])
    line = float(plasma.heat_flux_growth(config.theta)) * eta
    off, bent = np.array([1.04, 0.9, 1.08])[:, None] * line, np.tile(1.2 * line, (3, 1))
    seen = {"heat_flux": off * scales.theta * scales.thermal_speed, "time": eta * config.gradient_length}
    session = Session(jax.random.key(0), precision="single")
    found = boxes._early_flux(config, session, [(boxes.Run(arm, seen, np.ones(1), plasma.Vector(0.0, 0.0, 0.0), scales), bent)])
    np.testing.assert_allclose(found["C7.early_flux_error"].samples, [0.04, 0.1, 0.08], rtol=1e-5)
    (note,) = session.notes
    assert "is 0.073, at η" in note and "without waves 0.200" in note and f"the flux is {3.02 / 3.6:.3f} of theirs" in note


def test_the_order_of_known_errors_and_how_far_neighbours_are_from_it():
    assert motion._order(np.array([10.0, 20, 40, 80]), np.array([1, 1 / 4, 1 / 8, 1 / 32])) == pytest.approx((1.6, 0.6))
