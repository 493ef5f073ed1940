from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gradatim.implicit import LayeredNetwork, activities, chain_connections, relax
from gradatim.lab import Measure, Session, read_paper, validate
from gradatim.papers import jacobian_homeostasis as paper
from gradatim.papers.jacobian_homeostasis import judging, training

TOML = Path(paper.__file__).parents[1] / "jacobian_homeostasis.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        yield paper.run(SMOKE, session), session


def test_every_part_is_measured_or_says_why_not(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts and not set(smoke[0].measures) & set(smoke[0].untested)
    assert all("settle" in reason for reason in smoke[0].untested.values())


def test_what_is_exact_holds_at_any_size(smoke):
    verdicts = {claim.id: claim.judge(smoke[0].measures, "smoke")["verdict"] for claim in read_paper(TOML).claims}
    assert {verdicts[claim] for claim in ("C1", "C2", "C4")} == {"holds"}
    assert smoke[0].measures["C5.estimator_error"].value < 0.01


def test_an_asymmetric_network_keeps_its_error_when_the_nudge_shrinks(smoke):
    errors = smoke[0].data["nudging"]["gradient_error"].mean("seed")
    assert errors.sel(angle=90, radius=0.02) > 0.3 and errors.sel(angle=0, radius=0.02) < 0.05
    assert (smoke[0].data["nudging"]["residual"] < 1e-12).all()


def test_errors_stop_falling_with_more_points_near_the_radius_of_convergence(smoke):
    nudging = smoke[0].data["nudging"].to_dataset().sel(angle=45)
    assert (nudging["convergence"] > 0.3).all() and (nudging["convergence"] < 3).all()
    errors = nudging["response_error"].mean("seed")
    assert errors.sel(points=6, radius=0.1) < 1e-3 * errors.sel(points=1, radius=0.1)
    assert errors.sel(points=6, radius=1.0) > 1e-2 * errors.sel(points=1, radius=1.0)


def test_the_same_weights_images_and_probes_for_all_arms_of_a_seed(smoke):
    data = smoke[0].data
    angles, loop = data["angles"].to_dataset().isel(epoch=0), data["loop"].to_dataset().isel(epoch=0)
    for angle in training.ANGLES:
        assert (angles["accuracy"].sel(arm=f"EP {angle:g}").values == angles["accuracy"].sel(arm=f"RBP {angle:g}").values).all()
    assert np.allclose(angles["angle"].sel(arm="EP 45"), 45, atol=1e-2) and (angles["angle"].sel(arm="EP 0") == 0).all()
    assert np.allclose(angles["cosine"].sel(arm="EP 0"), 1, atol=1e-4)
    assert (loop["score"].sel(arm="with") == loop["score"].sel(arm="without")).all()


def test_the_loss_of_a_loop_is_weight_decay(smoke):
    loop = smoke[0].data["loop"].to_dataset().isel(epoch=-1)
    fallen = {word: loop["antisymmetric"].sel(arm=word) - loop["antisymmetric"].sel(arm="without") for word in ("with", "decay")}
    assert (fallen["decay"] < 0).all() and np.allclose(fallen["with"], fallen["decay"], rtol=0.3)


def test_the_loss_lowers_the_antisymmetric_part(smoke):
    last = smoke[0].data["homeostasis"].to_dataset().isel(epoch=-1)["antisymmetric"]
    assert (last.sel(arm="90, with") < last.sel(arm="90, without")).all()


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"nudging", "angles", "homeostasis", "loop", "rates"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for fig in figures.values() for ax in fig.axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 2e9 < 16e9 > paper.memory(paper.SCALES["full"])


def test_slopes_leave_out_round_off_and_what_lies_beyond():
    radii = np.array([1e-3, 0.01, 0.1, 0.2, 1.0])
    errors = np.array([[1e-13, 1e-8, 1e-4, 1.6e-3, 0.3]])
    assert np.allclose(judging.slopes(radii, errors, np.array([0.2])), 4, atol=1e-2)
    assert np.isnan(judging.slopes(radii, errors, np.array([0.01])))


def test_circles_that_were_not_asked_for_are_untested(smoke):
    findings, session = smoke
    trees = {name: node.to_dataset() for name, node in findings.data.children.items()}
    trees["nudging"] = trees["nudging"].sel(points=[1, 2, 4])
    judged = judging.judge(SMOKE, trees, session)
    assert judged.untested["C2.slope_6"] == "no circle of 6 points among [1, 2, 4]"


def test_cosines_of_seeds_whose_networks_swing_on_are_left_out_and_weights_are_read_all_the_same(smoke):
    findings, session = smoke
    trees = {name: node.to_dataset().copy(deep=True) for name, node in findings.data.children.items()}
    for name in ("angles", "homeostasis", "loop"):
        trees[name]["compared_residual"][:] = 1e-4
    before = judging.judge(SMOKE, trees, session)
    assert not before.untested
    trees["homeostasis"]["compared_residual"].loc[{"arm": "90, with", "seed": 1}] = np.nan
    judged = judging.judge(SMOKE, trees, session)
    reason = "too few seeds whose networks settle for all images whose gradients are compared, got 2 of 3"
    assert judged.untested == {"C5.cosine_gain": reason}
    assert judged.measures == {name: measure for name, measure in before.measures.items() if name != "C5.cosine_gain"}


def test_an_image_for_which_a_network_swings_on_is_not_recognised():
    sizes = {"in": 16, "l1": 8, "l2": 8, "out": 10}
    network = LayeredNetwork(sizes, chain_connections(sizes), classes=10, gain=0.6, key=jax.random.key(0), dtype=jnp.float32)
    inputs = jax.random.normal(jax.random.key(1), (40, 16), jnp.float32)
    config = replace(SMOKE.training, watched=10)

    def watched(scale, labels):
        at = jax.tree.map(lambda w: (scale * w)[None, None], network)
        images = training.Images(inputs, jnp.zeros(40, int), inputs, labels)
        lanes = training.Lane(*(jnp.zeros(1),) * 5)
        work = training.Work(images, jnp.zeros((1, 1, 1), int), jax.random.key(0)[None], lanes, config)
        return {
            name: float(np.squeeze(value)) for name, value in training.watch(training.State(at, None), work).items() if name != "cosine"
        }

    free = jax.vmap(lambda x: relax(network, network.drive(x), steps=60, tolerance=1e-4))(inputs)
    labels = jax.vmap(lambda r: network.predict(r).argmax())(jax.vmap(lambda u: activities(network, u))(free.state))
    calm = watched(1.0, labels)
    assert calm["accuracy"] == 100 and calm["unsettled"] == 0 and calm["compared_residual"] <= training.SETTLED
    wild = watched(30.0, labels)
    assert wild["unsettled"] > 0 and wild["accuracy"] <= 100 - wild["unsettled"]


def test_rates_are_chosen_again_for_an_interval():
    accuracy = np.array([[51.0, 49, 50.4, 50.1, 49.9], [49, 51, 49.6, 50.2, 50.3]])
    read = np.array([[1.0] * 5, [2.0] * 5]) + 0.01 * np.arange(5)
    data = xr.Dataset(
        {
            name: (("arm", "rate", "seed", "epoch"), values[None, ..., None])
            for name, values in {"accuracy": accuracy, "score": read}.items()
        },
        {"arm": ["EP"], "rate": [0.1, 0.2]},
    )
    reading = judging._level("EP", "score")
    found = judging._over_seeds(data, reading)
    assert found.value == pytest.approx(reading(data).mean()) and len(set(judging.best_rates(data, "EP"))) == 2
    assert np.ptp(found.intervals()[0]) > 1.2 * np.ptp(Measure.over_seeds(reading(data)).intervals()[0])
    alike = data.assign(accuracy=data["accuracy"] + xr.DataArray([0, 9.0], dims="rate"))
    same, student = judging._over_seeds(alike, reading), Measure.over_seeds(reading(alike))
    np.testing.assert_allclose(same.intervals()[0], student.intervals()[0])


def test_only_one_arm_of_the_loop_is_decayed_and_only_one_has_the_loss():
    wirings = training.families(replace(SMOKE.training, loop_coefficient=0.2))
    loop = wirings["loop"]["loop"].arms
    assert [arm.decay for arm in loop] == [0, 0, 0.2] and [arm.homeostasis for arm in loop] == [0, 0.2, 0]
    assert sum(arm.is_adjoint for arm in wirings["chain"]["angles"].arms) == 3
    assert {arm.homeostasis for arm in wirings["chain"]["angles"].arms} == {0}


def test_trap_no_seed_has_a_say_in_the_rate_that_it_is_judged_at():
    accuracy = np.array([[90.0, 50, 50], [10, 51, 51]])
    dims = ("arm", "rate", "seed", "epoch")
    data = xr.Dataset(
        {"accuracy": (dims, accuracy[None, ..., None]), "cosine": (dims, accuracy[None, ..., None] / 100)},
        {"arm": ["EP"], "rate": [0.1, 0.2]},
    )
    assert judging.best_rate(data, "EP") == 0.1
    assert judging.best_rates(data, "EP").tolist() == [0.2, 0.1, 0.1]
    assert judging.at_best(data, "EP", "cosine").tolist() == [0.1, 0.5, 0.5]


def test_measures_of_known_runs(smoke):
    trees = {name: node.to_dataset() for name, node in smoke[0].data.children.items()}
    seeds = np.array([1.0, 2, 4, 8])

    def made(**arms):
        """At two rates, of which the arms do best after the last epoch at the one that is told; the last seed of the last arm swings on."""
        readings = {}
        for name in ("accuracy", "angle", "antisymmetric", "cosine", "compared_residual", "score", "unsettled"):
            values = np.full((len(arms), 2, 4, 2), 50.0)
            for i, (best, given) in enumerate(arms.values()):
                values[i, :, :, 1] = given.get(name, 0.0)
                if name == "accuracy":
                    values[i, 1 - best, :, 1] /= 2
            if name == "compared_residual":
                values[-1, :, 3, 1] = 1.0
            dims = ("arm", "rate", "seed", "epoch")
            readings[name] = (dims, values) if name != "cosine" else ((*dims, "connection"), np.stack([values, 50 + values], axis=-1))
        return xr.Dataset(readings, {"rate": [0.1, 0.2], "seed": np.arange(4)})

    def named(data, *arms):
        return data.assign_coords(arm=list(arms))

    def by_rate(*factors):
        return np.multiply.outer(factors, seeds)

    trees["angles"] = named(
        made(
            a=(0, {"accuracy": 60 + seeds}),
            b=(1, {"accuracy": 1.0}),
            c=(1, {"accuracy": 40 + 3 * seeds}),
            d=(1, {"accuracy": 50 + seeds, "cosine": by_rate(9, 0.3)}),
            e=(0, {"accuracy": 30 + seeds, "cosine": by_rate(0.2, 9)}),
            f=(1, {"accuracy": 20 + seeds, "cosine": by_rate(9, 0.01)}),
        ),
        *(f"{name} {angle:g}" for name in ("RBP", "EP") for angle in training.ANGLES),
    )
    trees["homeostasis"] = named(
        made(
            a=(1, {"accuracy": 30, "angle": by_rate(9, 2)}),
            b=(0, {"accuracy": 40, "angle": by_rate(9, 5)}),
            c=(0, {"accuracy": 10 + seeds, "cosine": by_rate(0.1, 9)}),
            d=(1, {"accuracy": 10 + 3 * seeds, "cosine": by_rate(0.5, 9), "score": by_rate(0.7, 9)}),
        ),
        *("0, without", "0, with", "90, without", "90, with"),
    )
    trees["loop"] = named(
        made(
            a=(0, {"accuracy": 10.0, "score": by_rate(0.1, 9)}),
            b=(1, {"accuracy": 10 + by_rate(3, 90), "score": by_rate(0.4, 9)}),
            c=(1, {"accuracy": 10 + by_rate(1, 90)}),
        ),
        *("without", "with", "decay"),
    )
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0))).measures
    # Cosines of seeds of which an arm swings on are left out.
    kept = seeds[:3]
    np.testing.assert_allclose(found["C3.cosine_by_angle"].value, np.array([0.3, 0.2, 0.01]) * kept.mean())
    np.testing.assert_allclose(found["C3.accuracy_by_angle"].value, np.array([50, 30, 20]) + seeds.mean())
    for name, samples in {
        "C3.backpropagation_change": 2 * seeds - 20,
        "C3.deficit_at_90": 50 / kept,
        "C5.cosine_gain": 0.4 * kept,
        "C5.symmetry_score": 0.7 * seeds,
        "C5.accuracy_gain": 2 * seeds,
        "C6.symmetry_rise": 0.3 * seeds,
        "C6.symmetry_score": 0.4 * seeds,
        "C6.weight_decay_difference": seeds,
        "C8.angle_without": 2 * seeds,
        "C8.angle_difference": 3 * seeds,
    }.items():
        expected = Measure.over_seeds(samples)
        np.testing.assert_allclose(found[name].intervals()[0], expected.intervals()[0], rtol=1e-5, err_msg=name)
