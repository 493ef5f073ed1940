import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gradatim.nets import Choice, SearchSpace
from gradatim.optim import (
    ArchitectureSearch,
    dirichlet_mixture,
    evolved_architectures,
    gumbel_straight_through,
    official_logit_optimizer,
    random_architectures,
    search_architecture,
    second_order_gradient,
    softmax_mixture,
    sparsemax_mixture,
    uniform_one_hot,
)

SPACE = SearchSpace((Choice("a", (1, 2, 3)), Choice("b", ("x", "y"))))
ALPHA = np.array([0.5, -0.3, 1.2], np.float32)
N = 20_000


@pytest.fixture(scope="module")
def simplex():
    return jax.jit(lambda a: sparsemax_mixture({"a": a}, jax.random.key(0))["a"])


@pytest.mark.parametrize(("logits", "expected"), [([0.5, 0.3, -0.4], [0.6, 0.4, 0]), ([1.2, 0.1, -0.3], [1, 0, 0])])
def test_o6_sparsemax(simplex, logits, expected):
    np.testing.assert_allclose(simplex(jnp.array(logits)), expected, atol=1e-6)


def test_o6_derivative_of_sparsemax(simplex):
    jacobian = jax.jacobian(simplex)(jnp.array([0.5, 0.3, -0.4]))
    support = np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(jacobian, np.diag(support) - np.outer(support, support) / 2, atol=1e-6)


@pytest.fixture(scope="module")
def dirichlet():
    @jax.jit
    def of(alpha, keys):
        # Logits of several rows are drawn at once.
        rows = jnp.broadcast_to(alpha[None], (N, 3))
        first = jax.grad(lambda a: dirichlet_mixture({"a": jnp.broadcast_to(a[None], (N, 3))}, keys[0])["a"][:, 0].mean())(alpha)
        return dirichlet_mixture({"a": rows}, keys[0])["a"], first

    return of(jnp.asarray(ALPHA), jax.random.split(jax.random.key(1), 1))


def test_o7_moments_of_the_dirichlet_sampler(dirichlet):
    concentration = np.where(ALPHA > 0, ALPHA + 1, np.exp(ALPHA))
    np.testing.assert_allclose(concentration, [1.5, 0.740818, 2.2], rtol=1e-6)
    p = np.asarray(dirichlet[0], float)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    # Four standard errors of 20,000 draws, of the mean and (a little wider) of the variance.
    np.testing.assert_allclose(p.mean(0), [0.337776, 0.166820, 0.495404], atol=4 * np.sqrt(0.045 / N))
    np.testing.assert_allclose(p.var(0), [0.041112, 0.025546, 0.045109], rtol=0.06)


def test_o7_derivative_along_the_sample_path(dirichlet):
    c = np.where(ALPHA > 0, ALPHA + 1, np.exp(ALPHA)).astype(float)
    total, slope = c.sum(), np.where(ALPHA > 0, 1, np.exp(ALPHA))
    analytic = (np.array([1.0, 0, 0]) / total - c[0] / total**2) * slope
    np.testing.assert_allclose(analytic, [0.14912, -0.05635, -0.07606], atol=2e-5)
    np.testing.assert_allclose(dirichlet[1], analytic, atol=0.004)


@pytest.fixture(scope="module")
def extreme():
    @jax.jit
    def of(a, key):
        grad = jax.grad(lambda a: dirichlet_mixture({"a": a}, key)["a"] @ jnp.array([1.0, 2.0, 3.0]))(a)
        return dirichlet_mixture({"a": a}, key)["a"], grad

    return of


def test_trap_a_tiny_concentration_stays_finite(extreme):
    p, gradient = extreme(jnp.array([-200.0, -100.0, 0.0]), jax.random.key(2))
    assert jnp.isfinite(p).all() and jnp.isfinite(gradient).all() and abs(p.sum() - 1) < 1e-5


@pytest.fixture(scope="module")
def gumbel():
    @jax.jit
    def of(alpha, keys, tau):
        sampler = gumbel_straight_through(lambda step: step)
        hard = sampler({"a": jnp.broadcast_to(alpha[None], (len(keys), 3))}, keys[0], tau)["a"]
        gradient = jax.grad(lambda a: sampler({"a": a}, keys[0], tau)["a"] @ jnp.array([1.0, 2.0, 4.0]))(alpha)
        return hard, gradient

    return lambda tau: of(jnp.asarray(ALPHA), jax.random.split(jax.random.key(3), N), jnp.asarray(tau, jnp.float32))


@pytest.mark.parametrize("tau", [10.0, 1.0, 0.1])
def test_o8_gumbel_is_one_hot_at_any_temperature(gumbel, tau):
    hard, gradient = gumbel(tau)
    assert set(np.unique(hard)) == {0.0, 1.0} and (np.asarray(hard).sum(1) == 1).all()
    assert jnp.isfinite(gradient).all() and (gradient != 0).any()


def test_o8_gumbel_frequencies(gumbel):
    counts = np.asarray(gumbel(1.0)[0]).sum(0)
    expected = np.exp(ALPHA) / np.exp(ALPHA).sum() * N
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_uniform_ignores_logits_and_softmax_the_key():
    logits = {"a": jnp.array([9.0, 0.0, 0.0]), "b": jnp.array([0.0, 9.0])}
    draw = jax.jit(jax.vmap(lambda key: uniform_one_hot(logits, key)))
    drawn = draw(jax.random.split(jax.random.key(4), 3000))
    np.testing.assert_allclose(drawn["a"].mean(0), np.full(3, 1 / 3), atol=0.05)
    np.testing.assert_allclose(drawn["b"].mean(0), np.full(2, 1 / 2), atol=0.05)
    # Choices are independent of each other.
    assert abs(np.corrcoef(drawn["a"][:, 0], drawn["b"][:, 0])[0, 1]) < 0.08
    np.testing.assert_allclose(softmax_mixture(logits, jax.random.key(0))["a"], jax.nn.softmax(logits["a"]))


ETA, C, V = 0.3, jnp.array([0.5, -1.0, 2.0]), 0.7


@pytest.fixture(scope="module")
def bilevel():
    """L_train = (w - c·p)²/2, L_val = (w - v)²/2, p = a."""

    @jax.jit
    def of(w, a):
        train = lambda w, a: (w - C @ a) ** 2 / 2  # noqa: E731
        validation = lambda w, a: (w - V) ** 2 / 2  # noqa: E731
        value, exact = second_order_gradient(train, validation, w, a, rate=ETA)
        # As the authors compute it, with a difference of 0.01/|v|.
        ahead = w - ETA * jax.grad(train)(w, a)
        v = jax.grad(validation)(ahead, a)
        step = 0.01 / jnp.abs(v)
        difference = (jax.grad(train, 1)(w + step * v, a) - jax.grad(train, 1)(w - step * v, a)) / (2 * step)
        first = jax.grad(validation, 1)(w, a)
        through = jax.grad(lambda a: validation(w - ETA * jax.grad(train)(w, a), a))(a)
        return value, exact, -ETA * difference, first, through

    return of(jnp.asarray(1.5), jnp.array([0.2, 0.3, 0.5]))


def test_o9_second_order_gradient_in_closed_form(bilevel):
    value, exact, difference, first, through = bilevel
    ahead = 1.5 - ETA * (1.5 - float(C @ jnp.array([0.2, 0.3, 0.5])))
    # ∂²L_train/∂w∂a = -c: the gradient is -η · (-c) (w' - v).
    np.testing.assert_allclose(exact, ETA * np.asarray(C) * (ahead - V), rtol=1e-5)
    np.testing.assert_allclose(through, exact, rtol=1e-5)
    assert abs(value - (ahead - V) ** 2 / 2) < 1e-6 and (first == 0).all()
    np.testing.assert_allclose(difference, exact, rtol=1e-3)


def mixture_loss(model, p, batch):
    """Fits w to the target of each option; option 1 of the first choice alone fits the validation target too."""
    x, y = batch
    return ((p["a"] @ model * x - y) ** 2).mean()


def examples(n, key):
    x = 1 + jax.random.uniform(key, (n,))
    return x, 2 * x


@pytest.fixture(scope="module")
def steps():
    found = {}
    for order in (1, 2):
        method = ArchitectureSearch(mixture_loss, softmax_mixture, optax.sgd(0.05), official_logit_optimizer(0.1), order=order)
        found[order] = method, jax.jit(method.step)
    return found


@pytest.mark.parametrize("order", [1, 2])
def test_steps_lower_both_losses(steps, order):
    method, step = steps[order]
    state = method.init(jnp.array([0.5, 1.0, 0.2]), SPACE.logits(jax.random.key(5)))
    train, validation = examples(8, jax.random.key(6)), examples(8, jax.random.key(7))
    losses = []
    for i in range(20):
        state, loss = step(state, train, validation, jax.random.key(i))
        losses.append(loss)
    assert losses[-1].train < losses[0].train and losses[-1].validation < losses[0].validation
    # What fits best is preferred; a choice that changes nothing only decays.
    assert SPACE.discretise(state.logits).tolist()[0] == 1 and abs(state.logits["b"]).max() < 0.05
    assert state.count == 20


def test_trap_weights_and_logits_learn_from_different_batches(steps):
    method, step = steps[1]
    state = method.init(jnp.array([0.5, 1.0, 0.2]), SPACE.logits(jax.random.key(5)))
    one, other = examples(8, jax.random.key(6)), examples(8, jax.random.key(7))
    # Targets that ask for less than the weights give, where those of training ask for more.
    other = other[0], -other[1]
    after = {pair: step(state, *pair_of, jax.random.key(0))[0] for pair, pair_of in {"a": (one, other), "b": (one, one)}.items()}
    # The validation batch moves the logits first, and the weights only through the new probabilities.
    assert (after["a"].logits["a"] != after["b"].logits["a"]).any()
    moved = [after[pair].model - state.model for pair in "ab"]
    assert jnp.linalg.norm(moved[0] - moved[1]) < 0.5 * jnp.linalg.norm(moved[1])


def test_two_stages_leave_logits_alone():
    method = ArchitectureSearch(mixture_loss, uniform_one_hot, optax.sgd(0.05), None)
    state = method.init(jnp.array([0.5, 1.0, 0.2]), SPACE.logits(jax.random.key(5)))
    batch = examples(8, jax.random.key(6))
    after, losses = jax.jit(method.step)(state, batch, batch, jax.random.key(0))
    assert all((after.logits[name] == state.logits[name]).all() for name in state.logits)
    # One option was sampled: the weights of the others have no gradient.
    assert int((after.model != state.model).sum()) == 1 and losses.validation == 0


def test_a_whole_search_notes_its_way():
    train, validation = examples(16, jax.random.key(8)), examples(16, jax.random.key(9))
    result = search_architecture(
        jnp.array([0.5, 1.0, 0.2]),
        SPACE,
        mixture_loss,
        train,
        validation,
        sampler=softmax_mixture,
        steps=5,
        key=jax.random.key(10),
        batch_size=4,
        weight_optimizer=optax.sgd(0.05),
        logit_optimizer=official_logit_optimizer(0.1),
        every=2,
    )
    assert result.steps.tolist() == [1, 3, 5] and result.incumbents.shape == (3, 2) and result.losses.shape == (3, 2)
    assert all(0 < h <= 1.001 for values in result.entropies.values() for h in values) and (np.diff(result.seconds) > 0).all()


def test_a_whole_search_looks_ahead_by_the_inner_rate():
    train, validation = examples(16, jax.random.key(8)), examples(16, jax.random.key(9))
    given = {"sampler": softmax_mixture, "steps": 1, "key": jax.random.key(10), "batch_size": 4}
    optimizers = {"weight_optimizer": optax.sgd(0.05), "logit_optimizer": optax.sgd(1.0)}

    def moved(**order):
        model = jnp.array([0.5, 1.0, 0.2])
        found = search_architecture(model, SPACE, mixture_loss, train, validation, **given, **optimizers, **order)
        return found.logits["a"]

    first = moved()
    # As the step ahead shrinks, order 2 becomes order 1; a longer one changes what the logits learn.
    near, far = (np.abs(moved(order=2, inner_rate=rate) - first).max() for rate in (1e-5, 0.1))
    assert near < 1e-3 * far and far > 0.01


def score(positions):
    """Best at (2, 1)."""
    return np.asarray(positions) @ np.array([1.0, 0.5])


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_second_stages_score_nothing_twice_and_keep_the_best(n, seed):
    for stage in (
        random_architectures(score, SPACE, n_evaluations=n, key=jax.random.key(seed)),
        evolved_architectures(score, SPACE, n_evaluations=n, key=jax.random.key(seed), population=3, n_parents=2, n_mutants=1, n_crossed=1),
    ):
        rows = [tuple(row) for row in stage.positions]
        assert len(rows) == len(set(rows)) == min(n, 6) == len(stage.scores)
        best = score(stage.incumbents)
        # Trap: the incumbent, not the last.
        np.testing.assert_array_equal(best, np.maximum.accumulate(stage.scores))
        if n >= 6:
            assert stage.incumbents[-1].tolist() == [2, 1]


def test_evolution_goes_uphill_where_chance_does_not():
    wide = SearchSpace(tuple(Choice(str(i), tuple(range(6))) for i in range(6)))
    total = lambda positions: np.asarray(positions).sum(1)  # noqa: E731
    ends = [
        [total(stage(total, wide, n_evaluations=200, key=jax.random.key(seed)).incumbents[-1:])[0] for seed in range(5)]
        for stage in (evolved_architectures, random_architectures)
    ]
    assert np.mean(ends[0]) > np.mean(ends[1]) + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ArchitectureSearch(mixture_loss, order=3), "order must be 1 or 2, got 3"),
        (lambda: ArchitectureSearch(mixture_loss, order=2, inner_rate=0.0), r"inner_rate must be above 0, got 0\.0"),
        (lambda: ArchitectureSearch(mixture_loss, order=2, inner_rate=float("nan")), "inner_rate must be above 0, got nan"),
        (lambda: gumbel_straight_through(0.0), r"temperature must be above 0, got 0\.0"),
        (lambda: gumbel_straight_through(float("nan")), "temperature must be above 0, got nan"),
        (lambda: random_architectures(score, SPACE, n_evaluations=0, key=jax.random.key(0)), "n_evaluations must be at least 1, got 0"),
        (
            lambda: evolved_architectures(score, SPACE, n_evaluations=3, key=jax.random.key(0), mutation_rate=0.0),
            r"mutation_rate in \(0, 1\], got 3, 30, 10 and 0\.0",
        ),
        (lambda: whole(batch_size=17), "train must hold at least a batch of 17 examples, got 16"),
        (lambda: whole(steps=0), "steps must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def whole(steps=1, batch_size=4):
    data = np.ones(16, np.float32), np.ones(16, np.float32)
    given = {"weight_optimizer": optax.sgd(0.1), "logit_optimizer": None, "key": jax.random.key(0)}
    search_architecture(None, SPACE, mixture_loss, data, data, sampler=uniform_one_hot, steps=steps, batch_size=batch_size, **given)


@pytest.mark.parametrize("sampler", [softmax_mixture, sparsemax_mixture])
def test_mixtures_of_rows_are_those_of_each_row(sampler):
    rows = jnp.array([[0.5, 0.3, -0.4], [1.2, 0.1, -0.3]])
    alone = [sampler({"a": row}, jax.random.key(0))["a"] for row in rows]
    np.testing.assert_allclose(sampler({"a": rows}, jax.random.key(0))["a"], np.stack(alone), atol=1e-6)


@pytest.mark.parametrize("sampler", [dirichlet_mixture, gumbel_straight_through(1.0), uniform_one_hot])
def test_choices_of_one_size_are_drawn_apart(sampler):
    logits = {name: jnp.zeros((400, 3)) for name in "ab"}
    drawn = jax.jit(sampler)(logits, jax.random.key(11))
    # A third by chance, give or take 0.024.
    assert abs(np.mean(drawn["a"].argmax(1) == drawn["b"].argmax(1)) - 1 / 3) < 0.12


def test_o8_gumbels_slope_falls_as_the_inverse_temperature(gumbel):
    # Noise and logits no longer matter: p = 1/3, and d(p·c)/da = (c - c̄)/(3τ).
    c = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(gumbel(1e4)[1], (c - c.mean()) / 3e4, rtol=1e-2)


def test_logits_are_moved_by_adam_with_the_constants_of_the_authors():
    optimizer = official_logit_optimizer(0.1)
    a, m, v = 2.0, 0.0, 0.0
    state = optimizer.init(jnp.asarray(a))
    for t, slope in enumerate((0.3, -0.1, 0.0), 1):
        update, state = optimizer.update(jnp.asarray(slope), state, jnp.asarray(a))
        g = slope + 1e-3 * a
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g**2
        step = -0.1 * m / (1 - 0.5**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(update, step, rtol=1e-4)
        a += step


def weighted_loss(model, p, batch):
    return model * (p["a"] @ batch)


def test_weights_meet_the_logits_of_the_same_step():
    """With p = softmax(a): a ← a - w ∇ₐ(p·v), then w ← w - η p(a)·u."""
    method = ArchitectureSearch(weighted_loss, softmax_mixture, optax.sgd(0.1), optax.sgd(1.0))
    u, v, a = np.array([1.0, 2.0, 0.5]), np.array([-1.0, 0.5, 2.0]), np.array([0.2, -0.3, 0.1])
    start = method.init(jnp.asarray(1.5), {"a": jnp.asarray(a)})
    state, losses = jax.jit(method.step)(start, jnp.asarray(u), jnp.asarray(v), jax.random.key(0))
    p = np.exp(a) / np.exp(a).sum()
    moved = a - 1.5 * p * (v - p @ v)
    then = np.exp(moved) / np.exp(moved).sum()
    np.testing.assert_allclose(state.logits["a"], moved, rtol=1e-5)
    np.testing.assert_allclose(
        [losses.validation, losses.train, state.model], [1.5 * p @ v, 1.5 * then @ u, 1.5 - 0.1 * then @ u], rtol=1e-5
    )


def test_weights_and_logits_meet_samples_of_their_own():
    method = ArchitectureSearch(weighted_loss, uniform_one_hot, optax.sgd(0.0), optax.sgd(0.0))
    state, marks = method.init(jnp.asarray(1.0), {"a": jnp.zeros(3)}), jnp.arange(3.0)
    losses = jax.jit(jax.vmap(lambda key: method.step(state, marks, marks, key)[1]))(jax.random.split(jax.random.key(12), 200))
    assert set(np.unique(losses.train)) == {0.0, 1.0, 2.0}
    assert abs(np.mean(losses.train == losses.validation) - 1 / 3) < 0.15


def test_samplers_are_told_the_step():
    method = ArchitectureSearch(weighted_loss, lambda logits, key, step: {"a": jnp.stack([step * 1.0])}, optax.sgd(0.0), optax.sgd(0.0))
    state, seen, step = method.init(jnp.asarray(1.0), {"a": jnp.zeros(1)}), [], jax.jit(method.step)
    for _ in range(3):
        state, losses = step(state, jnp.ones(1), jnp.ones(1), jax.random.key(0))
        seen.append((float(losses.train), float(losses.validation)))
    assert seen == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(("slopes", "moved"), [([30.0, 40.0], [-3.0, -4.0]), ([0.3, 0.4], [-0.3, -0.4])])
def test_long_gradients_of_the_weights_are_cut_to_five(slopes, moved):
    method = ArchitectureSearch(lambda model, p, batch: model["u"] * batch[0] + model["v"] * batch[1], softmax_mixture, optax.sgd(1.0))
    state = method.init({"u": jnp.zeros(()), "v": jnp.zeros(())}, {"a": jnp.zeros(2)})
    after, _ = jax.jit(method.step)(state, jnp.array(slopes), None, jax.random.key(0))
    np.testing.assert_allclose([after.model["u"], after.model["v"]], moved, rtol=1e-6)


@pytest.mark.parametrize("learns", [True, False])
def test_every_step_and_either_set_has_a_batch_of_its_own(learns):
    data = np.arange(1000, dtype=np.float32)
    found = search_architecture(
        jnp.zeros(()),
        SPACE,
        lambda model, p, batch: batch.mean() + 0 * model * p["a"][0],
        data,
        data,
        sampler=softmax_mixture,
        steps=4,
        key=jax.random.key(13),
        batch_size=4,
        weight_optimizer=optax.sgd(0.1),
        logit_optimizer=optax.sgd(0.1) if learns else None,
        every=1,
    )
    assert len(np.unique(found.losses[:, 0])) == 4
    assert len(np.unique(found.losses)) == 8 if learns else not found.losses[:, 1].any()
    # Who learns no logits prefers nothing.
    assert (found.incumbents >= 0).all() if learns else (found.incumbents == -1).all()


WIDE = SearchSpace(tuple(Choice(str(i), tuple(range(6))) for i in range(6)))


def evolved(**numbers):
    """All score alike: those that came first stay the parents."""
    return evolved_architectures(lambda positions: np.zeros(len(positions)), WIDE, key=jax.random.key(14), **numbers).positions


def test_mutants_differ_from_their_parent_in_as_many_choices_as_the_rate_says():
    rows = evolved(n_evaluations=40, population=1, n_parents=1, n_mutants=30, n_crossed=0)
    # A fifth of six choices are drawn again, and one that is changed nowhere is no mutant.
    assert 1 <= (rows[1:] != rows[0]).sum(axis=1).mean() < 2.2


def test_crossings_take_each_choice_from_one_of_two_parents():
    rows = evolved(n_evaluations=10, population=2, n_parents=2, n_mutants=0, n_crossed=20)
    assert ((rows[2:] == rows[0]) | (rows[2:] == rows[1])).all()
    of_first = (rows[2:] == rows[0])[:, rows[0] != rows[1]].mean()
    assert 0.2 < of_first < 0.8


def test_what_is_kept_is_where_the_search_ended():
    train, validation = examples(16, jax.random.key(8)), examples(16, jax.random.key(9))
    optimizers = {"weight_optimizer": optax.sgd(0.05), "logit_optimizer": optax.sgd(1.0)}
    given = {"sampler": softmax_mixture, "steps": 3, "key": jax.random.key(10), "batch_size": 4, "every": 1}
    found = search_architecture(jnp.array([0.5, 1.0, 0.2]), SPACE, mixture_loss, train, validation, **given, **optimizers)
    p = np.exp(found.logits["a"]) / np.exp(found.logits["a"]).sum()
    np.testing.assert_allclose(found.entropies["a"][-1], -(p * np.log(p)).sum() / np.log(3), rtol=1e-4)
    assert found.incumbents[-1, 0] == found.logits["a"].argmax() and len(np.unique(found.entropies["a"])) == 3
