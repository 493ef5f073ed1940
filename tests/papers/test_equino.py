from dataclasses import replace
from itertools import combinations
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import equino as paper
from gradatim.papers.equino import cells, judging, two_scales
from gradatim.sciml import ModalBasis, VariationalOperator

TOML = Path(paper.__file__).parents[1] / "equino.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def whole():
    """The run, its session, and what it was made from on the way."""
    session = Session(jax.random.key(0), precision="double", scale="smoke")
    kept = {"CellConstitutive": []}

    class Counted(two_scales.CellConstitutive):
        def __init__(self, cell):
            super().__init__(cell)
            kept["CellConstitutive"].append(self)

    def keeping(name):
        fn = getattr(paper, name)

        def kept_fn(*args):
            kept[name] = fn(*args)
            return kept[name]

        return kept_fn

    with pytest.MonkeyPatch.context() as patch:
        for name in ("solve", "train_operators"):
            patch.setattr(paper, name, keeping(name))
        patch.setattr(two_scales, "CellConstitutive", Counted)
        findings = paper.run(SMOKE, session)
    return findings, session, kept


@pytest.fixture(scope="module")
def smoke(whole):
    return whole[:2]


@pytest.fixture(scope="module")
def made(whole):
    return whole[2]["solve"], whole[2]["train_operators"]


def test_every_part_is_measured(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) == parts and not smoke[0].untested


def test_equilibrium_and_periodicity_hold_by_construction(smoke):
    claim = next(claim for claim in read_paper(TOML).claims if claim.id == "C1")
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"
    # Nothing of it is the training's doing, and the law's stress does not share it.
    main = smoke[0].data["equilibrium_10"]
    assert main["adam_residual"].max() < 1e-8 < 1e-5 < main["law_residual"].min()


def test_the_loss_falls_a_hundredfold_and_most_of_it_after_adam(smoke):
    main = smoke[0].data["equilibrium_10"]
    assert (main["adam_loss"][:, 0] > 100 * main["lbfgs_loss"][:, -1]).all()
    assert (main["lbfgs_loss"][:, -1] < main["lbfgs_loss"][:, 0] / 2).all()
    assert (main["tensor"].mean("test") < main["adam_tensor"].mean("test")).all()


def test_trap_line_searches_that_fail_are_counted(smoke):
    findings, session = smoke
    assert findings.data["equilibrium_10"]["failed_searches"].dims == ("seed",)
    assert sum("line searches of" in note for note in session.notes) == 2


def test_trap_the_averaged_stress_never_stands_alone(smoke):
    findings, session = smoke
    for name in ("equilibrium_10", "regression_6", "variational"):
        data = findings.data[name]
        assert {"stress", "tensor", "average", "fluctuation", "displacement"} <= set(data.data_vars)
        # Relative to the whole tensor, shear that is nearly zero does not count for much.
        assert (data["tensor"] <= data["stress"].max("component") + 1e-9).all()
    assert any(note.startswith("C2: after Adam alone") for note in session.notes)
    assert any("cubic interpolation on a grid of 4³ = 64 solved cells" in note for note in session.notes)


def test_no_operator_does_better_than_its_modes(smoke):
    findings = smoke[0].data
    for i, count in enumerate(SMOKE.snapshots):
        for name in ("stress", "tensor", "fluctuation"):
            found = findings[f"equilibrium_{count}"][name].mean("test")
            least = findings["projection"][name].isel(snapshots=i, seed=slice(found.sizes["seed"]))
            assert (found.values >= least.values - 1e-9).all()
    assert findings["solved"]["residual"].max() <= 1e-12


def test_arms_share_their_points_and_seeds(smoke):
    main = smoke[0].data["equilibrium_10"]
    claimed = {name: smoke[0].data[name].sizes["seed"] for name in ("equilibrium_10", "equilibrium_6", "regression_6", "variational")}
    assert set(claimed.values()) == {3} and smoke[0].data["regression_10"].sizes["seed"] == 1
    ratios = smoke[0].measures["C2.error_over_variational"].samples
    rows = [main["stress"].mean("test").values[:, c] / smoke[0].data["variational"]["stress"].mean("test").values[:, c] for c in range(3)]
    assert any(np.allclose(ratios, row) for row in rows)
    assert smoke[0].measures["C2.error_over_variational"].value >= max(np.exp(np.log(row).mean()) for row in rows) - 1e-12


def test_trap_no_two_seeds_share_what_they_are_made_from(made):
    solved, _ = made
    for part in ("snapshots", "tests"):
        strains = [getattr(drawn, part).average_strain for drawn in solved.draws]
        assert len(strains) == SMOKE.seeds and min(abs(a - b).min() for a, b in combinations(strains, 2)) > 0
    for part in ("collocation", "small_collocation"):
        assert min(abs(a - b).min() for a, b in combinations([getattr(drawn, part) for drawn in solved.draws], 2)) > 0


@eqx.filter_jit
def average_stress(operator, strains):
    if isinstance(operator, VariationalOperator):
        return jax.vmap(lambda strain: operator(strain).stress @ operator.geometry.shares)(strains)
    return jax.vmap(lambda strain: operator.stress_and_tangent(strain)[0])(strains)


@pytest.mark.parametrize("name", ["equilibrium 10", "regression 6", "variational", "anchored 6"])
def test_each_seed_is_judged_by_its_own_strains_and_modes(made, name):
    solved, trained = made
    one = trained[name]
    for seed, row in enumerate(one.data["average"].values):
        tests, operator = solved.draws[seed].tests, one.models[seed].with_parameters(jnp.asarray(one.parameters[seed]))
        stress = average_stress(operator, jnp.asarray(tests.average_strain))
        if name != "variational":
            snapshots = cells.first(solved.draws[seed].snapshots, int(name.split()[-1]))
            # A snapshot lies in the span of the modes that were made of it, as far as these go, and not in another seed's.
            basis = ModalBasis.from_snapshots(solved.cell, snapshots, SMOKE.rank)
            np.testing.assert_allclose(operator.basis.stress, basis.stress, atol=1e-9)
        off = np.linalg.norm(stress - tests.average_stress, axis=1) / np.linalg.norm(tests.average_stress, axis=1)
        np.testing.assert_allclose(row, 100 * off, rtol=1e-6)
    assert len(one.data["average"]) == (1 if name.startswith("anchored") else SMOKE.seeds)


def test_the_membrane_is_solved_on_both_scales(smoke):
    membrane = smoke[0].data["membrane"]
    assert int(membrane["solves"]) == 4 * (int(membrane["truth_steps"]) + 1)
    assert float(membrane["reaction"]) > 0 and membrane["displacement_error"].dims == ("arm", "seed")
    errors = membrane["baseline_displacement_error"]
    assert errors.sel(law="interpolation") < errors.sel(law="straight line") < 20


def test_the_simulation_itself_is_timed_and_each_time_solves_its_cells(whole):
    findings, session, kept = whole
    seconds = findings.data["simulation"]["seconds"]
    assert seconds.sizes == {"way": 2, "repeat": 3} and (seconds > 0).all()
    # The reference, a first time that does not count, and three that do, each from the unloaded cells.
    assert [law.solves for law in kept["CellConstitutive"]] == 5 * [int(findings.data["membrane"]["solves"])]
    assert sum(note.startswith("C3: the membrane of 4 cells takes") for note in session.notes) == 1


def test_a_simulation_that_no_operator_ends_has_no_speed(smoke, known_results):
    trees, _ = known_results(smoke[0])
    session = Session(jax.random.key(0), precision="double")
    found = judging.judge(SMOKE, {name: data for name, data in trees.items() if name != "simulation"}, session)
    assert set(found.untested) == {"C3.simulation_speedup"} and "C3.simulation_speedup" not in found.measures
    assert not any("the membrane of" in note for note in session.notes)
    assert len(paper.draw(found)["speed"].axes) == 1


def test_errors_are_told_by_the_size_of_the_strain_for_every_law(smoke):
    findings, session = smoke
    sizes, membrane = findings.data["sizes"], findings.data["membrane"]
    assert sizes["arm"].values.tolist() == membrane["arm"].values.tolist()
    assert {"anchored 6", "anchored, small strains 6"} < set(sizes["arm"].values.tolist())
    counts = np.isfinite(sizes["operator"]).all("size").sum("seed").to_series().to_dict()
    assert counts == {"equilibrium 6": 3, "equilibrium 10": 3, "anchored 6": 1, "anchored, small strains 6": 1, "regression 6": 3}
    assert (np.isfinite(membrane["displacement_error"]) == np.isfinite(sizes["operator"]).all("size")).all()
    # A straight line through no strain is good where strains are small, and a network that is not anchored there is not.
    line, main = sizes["straight_line"].values, sizes["operator"].sel(arm="equilibrium 6").mean("seed").values
    assert (np.diff(line) > 0).all() and line[0] < 2 < 20 < main[0] and main[0] > main[-1]
    assert sum(note.startswith("C4: averaged stress by the strain's largest component") for note in session.notes) == 1


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    plain = ("snapshots", "training", "speed", "membrane", "sizes")
    assert set(figures) == {"fields", *plain}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name in plain for ax in figures[name].axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_interpolation_has_its_own_tangent_and_goes_through_its_points(smoke):
    random = np.random.default_rng(0)
    places = np.linspace(-0.04, 0.04, 4)
    strains = np.stack(np.meshgrid(places, places, places, indexing="ij"), axis=-1).reshape(-1, 3)

    def cubic(E):
        return np.stack([E[:, 0] ** 3 * 1e4 + E[:, 1] * E[:, 2] * 50, E[:, 1] + E[:, 0] * E[:, 2] ** 2 * 1e3, E[:, 2] ** 3 * 1e4], axis=1)

    grid = cells.CellSolution(*([np.zeros(0)] * 8))._replace(average_strain=strains, average_stress=cubic(strains))
    inside = 0.04 * random.uniform(-1, 1, (20, 3))
    stress, tangent = cells.GridInterpolation(grid)(inside)
    np.testing.assert_allclose(stress, cubic(inside), atol=1e-12)
    for c, step in enumerate(1e-6 * np.eye(3)):
        slope = (cubic(inside + step) - cubic(inside - step)) / 2e-6
        np.testing.assert_allclose(tangent[..., c], slope, atol=1e-6)
    np.testing.assert_allclose(cells.RadialInterpolation(grid)(strains[:7]), cubic(strains[:7]), atol=1e-9)


def test_a_folded_distribution_stays_within_its_limits_and_near_the_middle():
    drawn = cells.folded_laplace(np.random.default_rng(0), 20_000, 0.04)
    assert abs(drawn).max() <= 0.04
    # Half of what is drawn lies within ln 2 of the scale; what is folded back from beyond four times the scale adds hardly anything.
    assert np.allclose(np.median(abs(drawn), axis=0), 0.01 * np.log(2), rtol=0.03) and np.allclose(drawn.mean(axis=0), 0, atol=3e-4)


@pytest.mark.parametrize(("name", "share"), [("disk", 0.2827), ("two_fibres", 0.5496), ("ellipse", 0.1927), ("three_circles", 0.1331)])
def test_fibres_have_their_share_of_the_cell(name, share):
    x = (np.arange(500) + 0.5) / 500 - 0.5
    inside = cells.is_fibre(replace(SMOKE, cell=name), *np.meshgrid(x, x))
    assert abs(inside.mean() - share) < 2e-3


def test_every_slice_of_a_hypercube_holds_a_point():
    points = cells.latin_hypercube(np.random.default_rng(0), 20, 0.04)
    assert abs(points).max() <= 0.04
    assert all(np.array_equal(np.sort(np.floor((column / 0.04 + 1) * 10)), np.arange(20)) for column in points.T)


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
        paper._check(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 2e9 < paper.memory(paper.SCALES["full"]) < 64e9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"snapshots": (10, 6)}, r"snapshots must ascend, got \(10, 6\)"),
        ({"restricted": 7}, r"restricted must be among snapshots \(6, 10\), got 7"),
        ({"variational_seeds": 5}, "variational_seeds must be at most the 3 seeds, got 5"),
        ({"all_points_seeds": 4}, "all_points_seeds must be at most the 3 seeds, got 4"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        paper.run(replace(SMOKE, **changes), Session(jax.random.key(0), precision="double"))


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items() if not name.startswith("C3."))


def test_the_worst_component_decides(smoke):
    ours, theirs = smoke[0].data["equilibrium_10"].to_dataset(), smoke[0].data["variational"].to_dataset()
    worse = ours.assign(stress=ours["stress"] * np.array([1, 1, 100.0]))
    assert judging.worst_ratio(worse, theirs).value > 20 * judging.worst_ratio(ours, theirs).value / 100


def test_measures_of_known_errors(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds, tests = np.array([1.0, 2, 4]), np.array([0.5, 0.5, 1.5, 1.5])
    error = np.multiply.outer(seeds, tests)
    put("equilibrium_10", stress=error[..., None] * [1, 10, 3], average=5 * error, displacement=2 * error, tangent=6 * error)
    put("equilibrium_10", fluctuation=7 * error, residual=error, jump=error / 2)
    put("equilibrium_6", tensor=3 * error)
    put("regression_6", tensor=6 * tests)
    put("variational", stress=np.multiply.outer(tests, [2, 10, 1]), displacement=4 * tests)
    put("speed", seconds=[[8, 16, 32], [2, 2, 2], [1, 1, 1]])
    put("simulation", seconds=[[30, 60, 120], [3, 3, 3]])
    others = np.full((4, 3), 100)
    put("membrane", displacement_error=[[1, 2, 3], *others], reaction_error=[[4, 5, 6], *others])
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0), precision="double")).measures
    assert found["C1.equilibrium_residual"].value == 6 and found["C1.periodicity_jump"].value == 3
    for name, samples in {
        "C2.stress_xx_error": seeds,
        "C2.stress_yy_error": 10 * seeds,
        "C2.stress_xy_error": 3 * seeds,
        "C2.average_stress_error": 5 * seeds,
        "C2.error_over_variational": 3 * seeds,
        "C2.displacement_over_variational": seeds / 2,
        "C3.speedup_per_cell": 4 * seeds,
        "C3.simulation_speedup": 10 * seeds,
        "C4.displacement_error": (1, 2, 3),
        "C4.reaction_error": (4, 5, 6),
        "C4.tangent_error": 6 * seeds,
        "C4.error_over_regression": seeds / 2,
        "C5.fluctuation_error": 7 * seeds,
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, err_msg=name)
