from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts
from gradatim.lab import NonFiniteError, Session, read_paper, validate
from gradatim.numerics import PeriodicGrid
from gradatim.papers import hard_constraint_experts as paper
from gradatim.papers.hard_constraint_experts import (
    between,
    derivatives,
    draws,
    figures,
    flow_draws,
    interpolation,
    judging,
    problem,
    times,
    training,
    turbulence,
)
from gradatim.sciml import random_vorticity, reference_vorticity

TOML = Path(paper.__file__).parents[1] / "hard_constraint_experts.toml"
SMOKE = paper.SCALES["smoke"]
FLOW = paper.Turbulence(
    times=6, horizon=0.5, side=8, fine_side=16, reference_side=16, basis=3, width=3, depth=1, modes=(1, 2, 2), hidden=4, points=64,
    max_steps=6, tolerance=1e-4, initial_states=3, held_out=2, batch=1, steps=4, rates=(1e-3,), pilot_steps=4, pilot_seeds=2,
    looks=2, seeds=3,
)  # fmt: skip
TIMED = replace(SMOKE, solves=paper.Times(times=8, places=16, basis=4, points=(16, 64), repeats=3))


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def smoke(double_precision):
    session = Session(jax.random.key(0), scale="smoke", precision="double")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    claims = read_paper(TOML).claims
    parts = {f"{claim.id}.{part.name}" for claim in claims for part in claim.parts}
    missing = set(smoke[0].untested)
    assert missing == {"C2", "C3", "C8"}
    assert set(smoke[0].measures) == {part for part in parts if not part.startswith(("C2", "C3", "C8"))}


def test_derivatives_of_blocks_are_local_and_add_up(smoke):
    claim = next(claim for claim in read_paper(TOML).claims if claim.id == "C7")
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"
    assert smoke[0].measures["C7.cross_block_derivative"].value == 0
    data = smoke[0].data["derivatives"]
    assert (data["residual_norm"] > 1e-3).all()
    own = data["by_rows_of"].values[:, range(4), range(4)]
    assert own.shape == (derivatives.N_DRAWS, 4) and (own > 1e-6).all()
    assert len(set(data["exact"].isel(block=0).values)) == derivatives.N_DRAWS


def test_training_lowers_its_loss(smoke):
    loss = smoke[0].data["training"]["loss"]
    # Of batches, each with states of its own.
    mean = loss.mean("seed")
    assert (mean.isel(step=-1) < 1.2 * mean.isel(step=1)).all() and np.isfinite(loss).all()


def test_trap_a_rate_at_which_training_diverges_is_recorded_and_not_taken():
    session = Session(jax.random.key(0), scale="smoke", precision="double")
    config = replace(SMOKE, rates=(1e-3, 1e200), condition_weights=(10.0,))
    trained = training.train_all(config, session, session.key)
    pilots = trained.pilots["error"].squeeze("weight")
    assert np.isfinite(pilots.sel(rate=1e-3)).all() and np.isposinf(pilots.sel(rate=1e200)).all()
    assert np.isfinite(trained.training["error"]).all()
    assert sum("Adam's rate 0.001" in note for note in session.notes) == len(training.ARMS)


def test_trap_a_judged_run_that_diverges_is_an_error_that_names_it():
    session = Session(jax.random.key(0), scale="smoke", precision="double")
    config = replace(SMOKE, rates=(1e200,), condition_weights=(10.0,))
    with pytest.raises(NonFiniteError, match="penalty, seed 0"):
        training.train_all(config, session, session.key)


def test_trap_residuals_at_and_between_the_points_are_told(smoke):
    findings, session = smoke
    last = findings.data["training"].isel(step=-1).sel(arm=["single", "blocks", "scattered"])
    assert (last["sampled_residual"] > 1e-6).all() and (last["unsampled_residual"] > last["sampled_residual"]).mean() > 0.5
    assert any(note.startswith("Hard constraints leave a residual") for note in session.notes)
    assert any(note.startswith("C5") and "never sees" in note for note in session.notes)
    residual = findings.data["training"]["residual"].sel(arm="penalty")
    last_over_first = judging._digits((residual[:, -1] / residual[:, 0]).values)
    assert any(note.startswith("C6") and f"last residual is {last_over_first} of its first" in note for note in session.notes)


def test_no_two_seeds_share_a_draw():
    session = Session(jax.random.key(0), precision="double")
    pilots, judged = draws.draw_seeds(SMOKE, session, session.key)
    assert (len(pilots), len(judged)) == (SMOKE.pilot_seeds, SMOKE.seeds)
    seeds = pilots + judged
    states = np.concatenate([states for seed in seeds for states in (seed.initial, seed.held_out.initial)])
    assert states.size == len(seeds) * (SMOKE.initial_states + SMOKE.held_out) == len(set(states))
    drawn = [draws.draws_of(SMOKE, "blocks", seed.initial, jax.random.split(seed.key)[1]) for seed in seeds]
    assert len({one.points.tobytes() for one in drawn}) == len(seeds)
    for seed in seeds:
        u = np.asarray(seed.held_out.u)
        np.testing.assert_allclose(u[:, 0], np.broadcast_to(seed.held_out.initial[:, None], u[:, 0].shape), atol=1e-6)


def test_rates_are_chosen_by_the_mean_of_several_seeds_none_of_them_judged(monkeypatch):
    # The first has the best seed, the last the two best, and one that diverges.
    errors = {1e-3: [1.0, 9, 9], 1e-2: [5.0, 5, 5], 1e-1: [0.0, 0, np.inf]}
    config = replace(SMOKE, rates=tuple(errors), pilot_seeds=3)
    seen: dict[str, list] = {"pilot": [], "train": []}

    class Trainer:
        def __init__(self, *_):
            pass

        def pilot(self, seed, rate, weight, n_steps, label):
            seen["pilot"].append(seed.key)
            return errors[rate][int(label[-1])]

        def train(self, seed, rate, weight, n_steps, label):
            assert rate == 1e-2
            seen["train"].append(seed.key)
            fields = {name: np.zeros((1, config.times, config.places)) for name in ("field", "far_field")}
            return {"step": np.zeros(1), "between_error": np.zeros(1)} | {name: np.zeros(1) for name in training.CURVES} | fields

    monkeypatch.setattr(training, "Trainer", Trainer)
    session = Session(jax.random.key(0), precision="double")
    trained = training.train_all(config, session, session.key)
    assert trained.pilots["error"].dims == ("arm", "rate", "weight", "pilot")
    pilots, judged = ({str(jax.random.key_data(key)) for key in seen[name]} for name in ("pilot", "train"))
    assert (len(pilots), len(judged)) == (3, SMOKE.seeds) and not pilots & judged


def test_rivals_are_timed_at_the_same_points_and_at_others_each_time():
    solves, blocks = TIMED.solves, TIMED.blocks
    whole, within = times.draw_rivals(TIMED, 64, 5, np.random.default_rng(0))
    assert whole.shape == (5, 1, 64) and within.shape == (5, blocks, 64 // blocks)
    assert len({tuple(sorted(points[0])) for points in whole}) == 5
    grid = np.arange(solves.times * solves.places).reshape(solves.times, solves.places)
    partition = BlockPartition((1, blocks))
    split = np.asarray(partition.split(jnp.asarray(grid))).reshape(blocks, -1)
    for one, several in zip(whole, within, strict=True):
        assert len(set(one[0])) == 64
        assert set(one[0]) == {int(split[k, row]) for k in range(blocks) for row in several[k]}


def test_arms_share_data_and_batches():
    initial = np.linspace(0.01, 0.2, 8)
    drawn = {arm: draws.draws_of(SMOKE, arm, initial, jax.random.key(3)) for arm in problem.ARMS}
    assert all((drawn[arm].batches == drawn["penalty"].batches).all() for arm in problem.ARMS)
    # As many points in all, every one of them where the equation is asked for, none twice.
    inside = np.asarray(problem.span_of(SMOKE, SMOKE.trained_times).equation)
    for arm in ("single", "blocks"):
        blocks = problem.n_blocks(SMOKE, arm)
        points = drawn[arm].points
        assert points.shape == (SMOKE.steps, blocks, SMOKE.points // blocks)
        width = SMOKE.places // blocks
        for k in range(blocks):
            assert inside[:, k * width : (k + 1) * width].ravel()[points[:, k]].all()
            assert all(len(set(rows)) == rows.size for rows in points[:, k])
    scattered = drawn["scattered"].points
    assert scattered.shape == (SMOKE.steps, SMOKE.blocks, SMOKE.points // SMOKE.blocks)
    assert all(inside.ravel()[rows.ravel()].all() and len(set(rows.ravel())) == rows.size for rows in scattered)
    # Each solve's lie in all blocks.
    columns = scattered % SMOKE.places // (SMOKE.places // SMOKE.blocks)
    assert all(len(set(columns[:, k].ravel())) == SMOKE.blocks for k in range(SMOKE.blocks))


def test_points_of_one_block_alone_make_scattered_solves_those_of_the_blocks():
    grid = problem.model_of(SMOKE, "blocks").grid
    network = problem.new_network(SMOKE, "blocks", jax.random.key(0))
    span, initial, weight = problem.span_of(SMOKE, SMOKE.times), jnp.asarray(0.1), jnp.ones(())
    points = problem.draw_points(SMOKE, "blocks", span, 1, np.random.default_rng(0))[0]
    width = SMOKE.places // SMOKE.blocks
    everywhere = np.stack([rows // width * SMOKE.places + k * width + rows % width for k, rows in enumerate(points)])
    found = []
    for arm, rows in (("blocks", points), ("scattered", everywhere)):
        model = problem.model_of(SMOKE, arm)
        found.append(jax.jit(lambda rows, model=model: model.solve(network, initial, rows, span, weight).u)(jnp.asarray(rows)))
    assert found[0].shape == (grid.n_times, grid.n_places)
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_oracle_a_solution_in_the_span_of_the_basis_is_found_by_one_solve_and_by_blocks_alike():
    # Steady diffusion: without sorption's curvature in it, u = 1 - x / (1 + D) solves equation and conditions.
    model = problem.model_of(replace(SMOKE, tolerance=1e-10, max_steps=60), "single")
    grid = model.grid
    x = grid.x[None] * jnp.ones((grid.n_times, 1))
    basis = jnp.stack([jnp.ones_like(x), x, jnp.sin(3 * x)], axis=-1)
    given = problem.Given(jnp.asarray(0.1), jnp.asarray(0.1), jnp.ones(grid.n_times - 1), jnp.ones(()))
    rows, fields = problem.Rows(model.problem), []
    for blocks in (1, 2):
        without_start = HardConstraint(
            lambda f, d: [part for i, part in enumerate(rows(f, d)) if i != 1], ridge=0.0, rtol=1e-10, atol=1e-10
        )
        mixture = MixtureOfConstraints(without_start, BlockPartition((1, blocks)))
        inner = problem.draw_points(
            replace(SMOKE, blocks=blocks), "blocks", problem.span_of(SMOKE, SMOKE.times), 1, np.random.default_rng(0)
        )
        terms = Parts(model.problem.terms(basis, grid), model.problem.edges(basis, grid))
        found = jax.jit(mixture)(terms, Parts(None, given), jnp.asarray(inner[0]))
        assert (found.residual_norm < 1e-10).all()
        fields.append(mixture.assemble(basis, found.weights))
    np.testing.assert_allclose(fields[0], fields[1], atol=1e-8)
    np.testing.assert_allclose(fields[0], 1 - x / (1 + model.problem.diffusivity), atol=1e-8)


def test_differences_across_blocks_are_left_out_of_the_loss_on_request():
    span, initial = problem.span_of(SMOKE, SMOKE.times), jnp.asarray(0.1)
    network = problem.new_network(SMOKE, "blocks", jax.random.key(1))
    points = jnp.asarray(problem.draw_points(SMOKE, "blocks", span, 1, np.random.default_rng(0))[0])
    found = {}
    for interface in ("include", "exclude"):
        model = problem.model_of(replace(SMOKE, interface=interface), "blocks")
        solved = jax.jit(lambda points, model=model: model.solve(network, initial, points, span, jnp.ones(())))(points)
        found[interface] = float(model.losses(solved, initial, span).equation)
        for name, residual in (("include", solved.residual), ("exclude", solved.inner)):
            if name == interface:
                assert found[name] == pytest.approx(float(problem.root_mean_square(residual, span.equation)))
    assert abs(found["exclude"] / found["include"] - 1) > 0.01


def fields_of(scale, blocks, grid, basis):
    """Weights of cosines for the problem, its equation multiplied by `scale` once more."""

    model = problem.model_of(replace(SMOKE, blocks=blocks, tolerance=1e-10, max_steps=60), "blocks" if blocks > 1 else "single")
    constraint = replace(model.mixture.constraint, residual=lambda fields, data: _scaled(model.problem, fields, data))
    mixture = replace(model.mixture, constraint=constraint)
    points = np.stack([np.arange(grid.n_times * grid.n_places // blocks) for _ in range(blocks)])
    given = problem.Given(jnp.asarray(0.1), jnp.asarray(0.1), jnp.ones(grid.n_times - 1), jnp.ones(()))

    @jax.jit
    def solve(scale):
        terms = Parts(model.problem.terms(basis, grid), model.problem.edges(basis, grid))
        return mixture.assemble(basis, mixture(terms, Parts(None, (given, scale)), jnp.asarray(points)).weights)

    return [solve(jnp.asarray(one)) for one in scale]


def _scaled(sorption, fields, data):
    given, scale = data.shared
    equation, *conditions = problem.Rows(sorption)(fields, Parts(None, given))
    return scale * equation, conditions


def test_trap_in_physical_units_the_equation_is_ignored():
    grid = problem.model_of(SMOKE, "single").grid
    basis = jnp.asarray(derivatives.cosines(grid, 6))
    scales = (1 / problem.HORIZON**2, 1.0)
    single, blocks = (fields_of(scales, count, grid, basis) for count in (1, 2))
    ignored, heeded = (np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(single, blocks, strict=True))
    assert ignored < 1e-3 < 0.03 < heeded


def test_turbulence_is_learnt_and_judged_on_a_finer_grid():
    session = Session(jax.random.key(0), scale="full", precision="double")
    config = replace(SMOKE, with_turbulence=True, turbulence=FLOW)
    data = paper.train_turbulence(config, session, session.key)
    assert data["fine_error"].shape == (3, 3, 3) and data["field"].shape == (3, 8, 8)
    assert (data["fine_error"] > 0).all() and (data["residual"].isel(step=-1) < 1.1 * data["residual"].isel(step=0)).all()
    measures = {}
    judging._judge_turbulence(config, data, measures, session)
    assert set(measures) == {"C2.single_over_penalty", "C2.blocks_over_single"}
    assert figures._draw_turbulence(data).axes


def test_no_two_seeds_of_turbulence_share_a_flow():
    session = Session(jax.random.key(0), precision="double")
    pilots, judged = flow_draws.draw_flow_seeds(FLOW, session, session.key)
    assert (len(pilots), len(judged)) == (FLOW.pilot_seeds, FLOW.seeds)
    flows = np.concatenate([w for seed in pilots + judged for w in (seed.initial, seed.held_out.initial)])
    assert flows.shape == (5 * (FLOW.initial_states + FLOW.held_out), FLOW.side, FLOW.side) and len(set(flows[:, 0, 0])) == len(flows)


def test_flows_of_all_arms_start_as_they_must_and_keep_their_mean():
    grid = PeriodicGrid((FLOW.side, FLOW.side), 1.0)
    initial = random_vorticity(jax.random.key(1), grid)
    for arm in flow_draws.FLOW_ARMS:
        flow = turbulence.flow_of(FLOW, arm, FLOW.side)
        network = turbulence.new_network(FLOW, arm, jax.random.key(2))
        points = flow_draws.draw_flow_points(FLOW, arm, FLOW.side, FLOW.points, np.random.default_rng(0))
        w = np.asarray(jax.jit(flow.solve)(network, initial, jnp.asarray(points)))
        np.testing.assert_allclose(w[0], initial, atol=1e-12)
        np.testing.assert_allclose(w.mean(axis=(1, 2)), 0, atol=1e-12)


def test_solves_find_a_flow_that_the_basis_holds():
    sizes = replace(FLOW, times=17, side=16, fine_side=16, tolerance=1e-9, max_steps=40, points=256)
    flow = turbulence.flow_of(sizes, "blocks", 16)
    grid = flow.grid
    initial = random_vorticity(jax.random.key(1), grid, length_scale=2.0)
    truth = reference_vorticity(
        initial, grid, viscosity=sizes.viscosity, horizon=sizes.horizon, n_snapshots=sizes.times - 1, steps_between=8
    )
    share = jnp.linspace(0, 1, sizes.times)[:, None, None]
    basis = jnp.stack([truth - initial[None], share * jnp.sin(2 * jnp.pi * grid.positions()[0])[None] + 0 * truth], axis=-1)
    start = jnp.broadcast_to(initial[None], truth.shape)
    terms, known = (flow.problem.terms(w, grid, dt=flow.dt) for w in (basis, start))
    points = jnp.asarray(flow_draws.draw_flow_points(sizes, "blocks", 16, 256, np.random.default_rng(0)))
    weights = jax.jit(flow.mixture)(Parts(terms), Parts(known), points).weights
    np.testing.assert_allclose(weights, np.broadcast_to([1.0, 0.0], weights.shape), atol=0.01)  # what time differences leave


def test_an_interpolant_reproduces_a_plane_and_misses_a_kink():
    t, x = np.meshgrid(np.linspace(0, 1, SMOKE.trained_times), np.linspace(0, 1, SMOKE.places), indexing="ij")
    span = problem.span_of(SMOKE, SMOKE.trained_times)
    points = problem.draw_points(SMOKE, "blocks", span, 1, np.random.default_rng(0))[0]
    within = between.points_between(SMOKE, points, SMOKE.trained_times)

    def error(field, within=None):
        return interpolation.interpolation_error(SMOKE, field[None], points, within)

    plane, kinked = 1 + x + t, 1 + np.abs(t - 0.5)
    assert error(plane, within) < 1e-5 < 1e-3 < error(kinked, within)
    # Beyond the hull the nearest value stands in, also for a plane.
    assert 0.003 < error(plane) < 0.03 < error(kinked) < 0.3
    found = interpolation.interpolated(SMOKE, plane[None], points)[0]
    given = between.given_to(SMOKE, points, SMOKE.trained_times)
    np.testing.assert_allclose(found[given], plane[given], rtol=1e-12)


def test_what_lies_between_the_points_of_a_block_is_told():
    config = replace(SMOKE, times=6, trained_times=5, places=8, blocks=2, points=2)
    # Of 4 places a block: one point at time 3 and place 2 of the first block, at time 2 and place 1 of the second.
    points = np.array([[3 * 4 + 2], [2 * 4 + 1]])
    given = between.given_to(config, points, 5)
    expected = np.zeros((5, 8), bool)
    expected[0] = expected[:, 0] = expected[:, -1] = expected[3, 2] = expected[2, 5] = True
    np.testing.assert_array_equal(given, expected)
    # The first block's hull has the corners (0, 0), (0, 3), (3, 2), (4, 0), the second's (0, 4), (0, 7), (4, 7) and (2, 5).
    hull = np.zeros((5, 8), bool)
    hull[1, 1:3] = hull[2, 1:3] = hull[3, 1] = True
    hull[1, 5:7] = hull[2, 6] = hull[3, 6] = True
    np.testing.assert_array_equal(between.points_between(config, points, 5), hull)
    assert not between.given_to(config, points, 5, with_conditions=False)[0].any()


def test_network_and_interpolation_are_judged_at_the_same_points(monkeypatch):
    monkeypatch.setattr(training, "ARMS", ("blocks",))
    config = replace(SMOKE, held_out=1)
    session = Session(jax.random.key(0), scale="smoke", precision="double")
    trained = training.train_all(config, session, session.key)
    data = interpolation.interpolate_all(config, trained)
    fields, truth = trained.training["field"].sel(arm="blocks").values, trained.training["truth"].values
    assert trained.between.shape == (SMOKE.seeds, SMOKE.trained_times, SMOKE.places) and len({one.tobytes() for one in trained.between}) > 1
    for i, within in enumerate(trained.between):
        u, true = fields[i, : SMOKE.trained_times][within], truth[i, : SMOKE.trained_times][within]
        expected = 100 * np.linalg.norm(u - true) / np.linalg.norm(true)
        np.testing.assert_allclose(data["network_between_error"][i], expected, rtol=1e-9)
        found = interpolation.interpolated(config, truth[i : i + 1, : SMOKE.trained_times], trained.judged_at[i])[0][within]
        np.testing.assert_allclose(data["between_error"][i], 100 * np.linalg.norm(found - true) / np.linalg.norm(true), rtol=1e-9)
        assert float(data["between_share"][i]) == within.mean()


def test_figures_are_drawn_from_findings_alone(smoke):
    drawn = paper.draw(smoke[0])
    assert set(drawn) == {"errors", "training", "fields", "derivatives", "classical"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name in ("errors", "training", "classical") for ax in drawn[name].axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
        paper._check(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 2e9 < paper.memory(paper.SCALES["full"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 41}, "points must be a multiple of the 2 blocks, got 41"),
        ({"trained_times": 8}, r"trained_times must lie in \[5, 8\), so that some are left beyond, got 8"),
        ({"steps": 7}, "steps must be a multiple of the 2 looks, got 7"),
        ({"pilot_steps": 8}, "pilot_steps must be at most the 6 steps, got 8"),
        ({"solves": paper.Times(points=(400, 100))}, r"solves\.points must ascend"),
        (
            {"with_turbulence": True, "turbulence": replace(FLOW, side=9)},
            r"turbulence\.side and \.points must be multiples of the 2 splits",
        ),
        (
            {"with_turbulence": True, "turbulence": replace(FLOW, fine_side=12)},
            r"turbulence\.fine_side must be a multiple of the side of 8",
        ),
        ({"with_turbulence": True, "turbulence": replace(FLOW, looks=3)}, r"turbulence\.steps must be a multiple of the 3 looks, got 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        paper.run(replace(SMOKE, **changes), Session(jax.random.key(0), precision="double"))


def test_too_many_points_for_a_block_are_refused():
    span = problem.span_of(SMOKE, SMOKE.trained_times)
    with pytest.raises(ValueError, match="points must be at most 70, those inside the blocks, got 80"):
        problem.draw_points(replace(SMOKE, points=80), "blocks", span, 1, np.random.default_rng(0))


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), scale="smoke", precision="double"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


@pytest.mark.laptop
def test_the_article_s_derivative_is_off_where_a_residual_is_left():
    session = Session(jax.random.key(0), precision="double")
    data = paper.measure_derivatives(replace(SMOKE, article_derivative=True), session, session.key)
    assert (abs(data["exact"] / data["differences"] - 1) < 1e-5).all()
    assert (abs(data["pseudo_inverse"] / data["differences"] - 1) > 1e-3).all()


@pytest.mark.laptop
def test_solves_are_timed():
    session = Session(jax.random.key(0), precision="double")
    data = paper.time_solves(TIMED, session, session.key)
    assert data["seconds"].shape == (2, 2, 2, 3) and (data["seconds"] > 0).all() and (data["steps"] > 1).all()
    # Other points take other numbers of steps.
    assert (data["steps"].max("repeat") > data["steps"].min("repeat")).any()


def test_measures_of_known_errors(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds, sure = np.array([1.0, 2, 4]), np.ones(3)

    def last(*arms):
        return np.stack([np.stack([1000 * sure, 1000 * sure, arm * sure], axis=-1) for arm in arms])

    put("training", error=last(8, 4 * seeds, 2, 100), far_error=last(9, 3 * seeds, 6, 100), residual=last(1, 10, seeds, 100))
    # Over its start the residual of the penalised network is at its highest in between.
    trees["training"]["residual"][0] = np.stack([sure, 5 * seeds, 3 * sure], axis=-1)
    # Over all points the network is the better, between them the worse by 1, 2 and 4.
    put("interpolation", error=4, between_error=4, network_between_error=4 * seeds)
    put("derivatives", exact=np.outer([1, 2, 4], [1, 2, 3, 5]), differences=np.outer([1, 2.2, 5], [1, 2, 3, 4]))
    put("derivatives", by_rows_of=np.multiply.outer(seeds, np.diag([7.0] * 4) + np.diag([0.1, 0.3, 0.2], -1)))
    put("classical", seconds=[[5, 5, 5], [1, 2, 3], [0.5, 9, 9], [0.1, 0.1, 0.1]])
    axes = ("arm", "seed", "step")
    fine = {"fine_error": (axes, last(8, 2 * seeds, seeds)), "error": (axes, last(1, 1, 1))}
    trees["turbulence"] = xr.Dataset(fine, {"arm": ["penalty", "single", "blocks"]}, {"standing": 1.0})
    ones, both_one, both_many, forward_one = np.ones((2, 3)), [[2, 2, 2], [8, 16, 32]], [[1, 1, 1], [2, 2, 2]], [[9, 9, 9], [3, 6, 9]]
    seconds, two = [[forward_one, 3 * ones], [both_one, both_many]], np.ones((2, 2, 3))
    trees["solves"] = xr.Dataset(
        {
            "seconds": (("what", "way", "points", "repeat"), seconds),
            "steps": (("way", "points", "repeat"), two),
            "failures": (("way", "points", "repeat"), two),
        },
        {"points": [10, 20]},
    )
    config = replace(SMOKE, classical_cells=judging.STATED_CELLS)
    found = judging.judge(config, trees, Session(jax.random.key(0), precision="double")).measures
    for name, samples in {
        "C1.single_over_penalty": seeds / 2,
        "C1.blocks_over_single": 1 / (2 * seeds),
        "C1.blocks_over_penalty": sure / 4,
        "C4.single_over_penalty": seeds / 3,
        "C4.blocks_over_single": 2 / seeds,
        "C2.single_over_penalty": seeds / 4,
        "C2.blocks_over_single": sure / 2,
        "C3.training_speedup": 4 * seeds,
        "C3.inference_speedup": (1, 2, 3),
        "C3.speedup_growth": 2 * seeds,
        "C5.error_over_interpolation": seeds,
        "C6.blocks_over_single_residual": seeds / 10,
        "C6.penalty_residual_rise": 5 * seeds,
        "C7.gradient_error": (0.1, 0, 0.12),
        "C7.cross_block_derivative": 0.3 * seeds,
        "C8.best_classical_seconds": (1, 2, 3),
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, rtol=1e-5, atol=1e-12, err_msg=name)
