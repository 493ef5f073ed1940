import functools
import math

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.nets import matrix_axes, norm_groups
from gradatim.numerics import (
    dual_norm,
    lmo,
    nuclear_norm,
    nuclear_norm_by_quadrature,
    nuclear_norm_by_sketch,
    primal_norm,
    quadrature_probes,
)
from gradatim.optim import (
    DualNorm,
    NoiseAdaptiveState,
    lanton,
    layer_dual_norms,
    layer_learning_rates,
    layer_noise,
    noise_adaptive,
    noise_report,
    scale_by_lanton,
    scale_by_scion,
    scion,
)

ROUND_OFF = 1e-5  # single precision
# Where it does not matter how nuclear norms are found: the other ways are larger programs.
exact = functools.partial(lanton, nuclear="svd")
GROUPS = {"q": "hidden", "k": "hidden", "e": "embed", "b": "vector", "g": "vector"}
SHAPES = {"q": (6, 6), "k": (6, 6), "e": (5, 6), "b": (6,), "g": (4,)}
ENTRIES = {"all": DualNorm(lambda gradient, key: jnp.abs(gradient).sum())}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(seed):
    return {name: normal((seed, i), *shape) for i, (name, shape) in enumerate(SHAPES.items())}


def walk(optimizer, gradients, params=None, **extra):
    """Every update and its rates, stacked, and the last state: operation by operation, so that no optimiser is compiled."""
    updates, rates = [], []
    with jax.disable_jit():
        state = optimizer.init(jax.tree.map(jnp.zeros_like, gradients[0]) if params is None else params)
        for gradient in gradients:
            update, state = optimizer.update(gradient, state, params, **extra)
            updates.append(update)
            rates.append(layer_learning_rates(state, jnp.float32(1.0)) if _adapts(state) else 0.0)
    return stacked(updates), stacked(rates), state


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


@jax.jit
def step_of_exact(gradient, state, b2, alpha):
    update, state = exact(0.1, GROUPS, b2=b2, alpha=alpha).update(gradient, state)
    return update, layer_learning_rates(state, 1.0), state


def walk_of_exact(gradients, b2=0.9, alpha=1.0):
    """The same of `exact(0.1, GROUPS)` on trees of `SHAPES`, one compiled step for all settings."""
    alphas = alpha if isinstance(alpha, dict) else dict.fromkeys(GROUPS.values(), alpha)
    state, steps = exact(0.1, GROUPS).init(gradients[0]), []
    for gradient in gradients:
        *step, state = step_of_exact(gradient, state, b2, alphas)
        steps.append(step)
    return *stacked(steps), state


def _adapts(state):
    return any(isinstance(s, NoiseAdaptiveState) for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, NoiseAdaptiveState)))


def assert_same(tree, other):
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), tree, other)))


# What follows are the facts that the method must satisfy exactly.


@pytest.mark.parametrize("nuclear", ["quadrature", "newton_schulz", "svd", "sketch"])
def test_o1_equal_noise_is_the_inner_optimiser_to_the_bit(nuclear):
    one = [jnp.asarray(normal(seed, 6, 9)) for seed in range(3)]
    gradients, groups = [{"q": g, "k": g} for g in one], {"q": "hidden", "k": "hidden"}
    ours, _, state = walk(lanton(0.1, groups, alpha=0.01, nuclear=nuclear), gradients)
    assert layer_noise(state)["q"] > 1.0 and layer_learning_rates(state, 0.1) == {"q": 0.1, "k": 0.1}
    assert_same(ours, walk(scion(0.1, groups), gradients)[0])


def test_o2_a_group_of_one_layer_is_untouched():
    gradients = [{name: jnp.asarray(g) for name, g in tree(seed).items() if name in "qeb"} for seed in range(3)]
    groups = {name: GROUPS[name] for name in "qeb"}
    assert_same(walk(exact(0.1, groups, alpha=1e-3), gradients)[0], walk(scion(0.1, groups), gradients)[0])


def test_o3_limits_in_alpha():
    gradients = [{name: (10 if name in "kg" else 1) * g for name, g in tree(seed).items()} for seed in range(5)]
    _, rates, _ = walk_of_exact(gradients, alpha=1e12)
    jax.tree.map(lambda rate: np.testing.assert_allclose(rate, 1.0, rtol=1e-6), rates)
    _, rates, state = walk_of_exact(gradients, alpha=1e-12)
    noise = layer_noise(state)
    np.testing.assert_allclose(rates["k"][-1], (noise["q"] / noise["k"]) ** 0.5, rtol=ROUND_OFF)
    np.testing.assert_allclose(rates["g"][-1], (noise["b"] / noise["g"]) ** 0.5, rtol=ROUND_OFF)
    assert rates["q"][-1] == rates["b"][-1] == 1.0


def test_o4_worked_example():
    """H = (0, 3, 15) in one group and 8 in another, alpha = 1: factors 1, 2^-½ and ½, and 1."""
    groups = {"a": "one", "b": "one", "c": "one", "d": "other"}
    norms = {"one": ENTRIES["all"], "other": ENTRIES["all"]}
    optimizer = noise_adaptive(optax.identity(), groups, norms, b2=0.0)
    jumps = {"a": 0.0, "b": 3.0**0.5, "c": 15.0**0.5, "d": 8.0**0.5}
    updates, rates, state = walk(optimizer, [{n: jnp.array(1.0) for n in jumps}, {n: jnp.array(1.0 + jump) for n, jump in jumps.items()}])
    np.testing.assert_allclose([layer_noise(state)[n] for n in jumps], list(jumps.values()), rtol=ROUND_OFF)
    np.testing.assert_allclose([rates[n][-1] for n in jumps], [1.0, 0.70710678, 0.5, 1.0], rtol=ROUND_OFF)
    np.testing.assert_allclose(updates["c"][-1], 0.5 * (1 + 15.0**0.5), rtol=ROUND_OFF)


def test_o5_a_constant_gradient_has_no_noise_and_forgets_it():
    gradients = [tree(0), *[tree(1)] * 6]
    _, _, after = walk_of_exact(gradients[:2], b2=0.8)
    _, _, later = walk_of_exact(gradients, b2=0.8)
    for name in SHAPES:
        np.testing.assert_allclose(later[0].noise[name], 0.8**5 * np.asarray(after[0].noise[name]), rtol=1e-4)
    _, rates, still = walk_of_exact(gradients[1:], b2=0.8)
    assert all(h == 0.0 for h in jax.tree.leaves(still[0].noise)) and all((r == 1.0).all() for r in jax.tree.leaves(rates))


@pytest.mark.parametrize("reference", ["previous", "independent"])
def test_o6_stationary_noise_of_both_references_is_the_theory_s(reference):
    """Independent entries of s.d. σ on n × n: √D is √2 σ 8/(3π) n^1.5; n = 48 is within a per cent of the limit."""
    sigma, n, decay = 0.3, 48, 0.98
    optimizer = noise_adaptive(optax.identity(), "hidden", layer_dual_norms("svd"), b2=decay, reference=reference)
    start = optimizer.init(jnp.zeros((n, n)))

    @jax.jit
    def run(keys):
        def step(state, key):
            one, other = sigma * jax.random.normal(key, (2, n, n))
            extra = {"second_grads": other} if reference == "independent" else {}
            return optimizer.update(one, state, **extra)[::-1]

        return jax.lax.scan(step, start, keys)[0].noise

    noise = run(jax.random.split(jax.random.key(0), 400))
    np.testing.assert_allclose(jnp.sqrt(noise), 2**0.5 * sigma * 8 / (3 * np.pi) * n**1.5, rtol=0.02)


@pytest.mark.parametrize(("reference", "repeated"), [("independent", 1.0), ("previous", 1.4)])
def test_o6_stationary_noise_scatters_as_an_average_does(reference, repeated):
    """H averages over (1 + b₂)/(1 - b₂) squared distances D, each d χ²_d times a constant: relative s.d. √((1 - b₂)/(1 + b₂)) √(2/d).

    Two neighbours of "previous" share a gradient, and have the correlation ¼: its square is 1 + b₂/2 times as large.
    """
    d, decay, n_chains, n_steps = 4, 0.8, 4000, 60
    optimizer = noise_adaptive(optax.identity(), "vector", layer_dual_norms("svd"), b2=decay, reference=reference)

    @jax.jit
    def run(key):
        def step(state, key):
            one, other = jax.random.normal(key, (2, n_chains, d))
            if reference == "independent":
                return jax.vmap(lambda a, s, b: optimizer.update(a, s, second_grads=b))(one, state, other)[1], None
            return jax.vmap(optimizer.update)(one, state)[1], None

        start = jax.vmap(optimizer.init)(jnp.zeros((n_chains, d)))
        return jax.lax.scan(step, start, jax.random.split(key, n_steps))[0].noise

    noise = run(jax.random.key(0))
    np.testing.assert_allclose(noise.std() / noise.mean(), (repeated * (1 - decay) / (1 + decay) * 2 / d) ** 0.5, rtol=0.05)


@functools.partial(jax.jit, static_argnums=0)
def norms_of_a_pair(group, seed):
    shape, norm = {"hidden": ((5, 8), "rms_to_rms"), "embed": ((5, 8), "sign"), "vector": ((6,), "rms")}[group]
    one, other = jax.random.normal(jax.random.key(seed), (2 * math.prod(shape),)).reshape(2, *shape)
    size = layer_dual_norms("svd")[group].measure(one, jax.random.key(0))
    along = -(one * lmo(one, 1.0, norm, method="svd")).sum()
    return size, along, abs((one * other).sum()), primal_norm(other, norm), dual_norm(one, norm, method="svd")


@pytest.mark.parametrize("group", ["hidden", "embed", "vector"])
@hypothesis.given(seed=st.integers(0, 2**31 - 1))
@hypothesis.settings(max_examples=20)
def test_o7_dual_norms(group, seed):
    size, along, inner, primal, dual = norms_of_a_pair(group, seed)
    np.testing.assert_allclose(along, size, rtol=1e-4)
    assert inner <= size * primal * (1 + ROUND_OFF)
    np.testing.assert_allclose(dual, size, rtol=ROUND_OFF)


def test_o7_the_dual_norm_has_the_shape_factor_of_the_step():
    tall, wide = jnp.ones((8, 2)), jnp.ones((2, 8))
    measure = layer_dual_norms("svd")["hidden"].measure
    np.testing.assert_allclose(measure(tall, jax.random.key(0)), 2.0 * 4.0, rtol=ROUND_OFF)
    np.testing.assert_allclose(measure(wide, jax.random.key(0)), 0.5 * 4.0, rtol=ROUND_OFF)


@jax.jit
def nuclear_ratios(seed, decay):
    left, right = (jnp.linalg.qr(g)[0] for g in jax.random.normal(jax.random.key(seed), (288,)).reshape(2, 12, 12))
    values = 0.05 ** (decay * jnp.linspace(0.0, 1.0, 12))
    matrix, key = (left * values[None]) @ right, jax.random.key(0)
    return {name: layer_dual_norms(name)["hidden"].measure(matrix, key) / values.sum() for name in ("newton_schulz", "sketch", "svd")}


@hypothesis.given(seed=st.integers(0, 2**31 - 1), decay=st.floats(0.0, 1.0))
@hypothesis.settings(max_examples=20)
def test_o8_newton_schulz_and_sketch_bracket_the_nuclear_norm(seed, decay):
    """Singular values from 1 to 0.05, so that none is below a hundredth of the Frobenius norm."""
    ratios = nuclear_ratios(seed, decay)
    assert 0.68 <= ratios["newton_schulz"] <= 1.1344
    assert ratios["sketch"] <= 1 + ROUND_OFF
    np.testing.assert_allclose(ratios["svd"], 1.0, rtol=1e-4)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_o8_rank_one(shape):
    u, v = normal(0, shape[0], 1), normal(1, 1, shape[1])
    truth = np.linalg.norm(u) * np.linalg.norm(v)

    @jax.jit
    def estimates(matrix, key):
        # As many probes as rows: the trace is exact, but for the root of round-off (3e-4) of the eigenvalues that are zero.
        by_quadrature = nuclear_norm_by_quadrature(matrix, key=key, n_probes=12)
        return nuclear_norm(matrix), nuclear_norm_by_sketch(matrix, key=key, rank=2), by_quadrature

    by_newton_schulz, by_sketch, by_quadrature = estimates(u @ v, jax.random.key(0))
    np.testing.assert_allclose(by_newton_schulz / truth, 0.696436, rtol=1e-4)
    np.testing.assert_allclose(by_sketch, truth, rtol=1e-4)
    np.testing.assert_allclose(by_quadrature, truth, rtol=2e-3)


@jax.jit
def by_quadrature(matrices, key):
    return nuclear_norm_by_quadrature(matrices, key=key)


def test_o8_quadrature_is_unbiased_to_a_few_per_cent():
    matrices = normal(0, 16, 64, 96)
    ratios = np.asarray(by_quadrature(matrices, jax.random.key(0))) / np.linalg.svd(matrices, compute_uv=False).sum(1)
    assert abs(ratios.mean() - 1) < 0.02 and ratios.std() < 0.06


def test_quadrature_is_within_an_eighth_for_spectra_from_flat_to_one_over_i():
    i = np.arange(1, 129)
    spectra = np.stack([np.ones(128), 1 - (i - 1) / 128, i**-0.5, 1.0 / i])
    left, right = (np.linalg.qr(normal(seed, 128, 128))[0] for seed in range(2))
    matrices = jnp.asarray((left * spectra[:, None, :]) @ right.T, jnp.float32)
    # As many probes as rows: what is left is the error of the rule.
    estimates = jax.jit(lambda m, key: nuclear_norm_by_quadrature(m, key=key, n_probes=128))(matrices, jax.random.key(0))
    np.testing.assert_allclose(estimates, spectra.sum(1), rtol=0.125)


@pytest.mark.parametrize("n_steps", [1, 2, 4, 12])
def test_quadrature_is_the_mean_of_the_rules_of_gauss_and_of_gauss_and_radau(n_steps, double):
    """Against the bidiagonalisation written out with the singular values of its matrix."""
    matrix, probes = (np.random.default_rng(seed).normal(size=shape) for seed, shape in enumerate([(12, 40), (5, 12)]))
    expected = []
    for probe in np.sign(probes):
        v, w, beta, b = probe / np.linalg.norm(probe), 0.0, 0.0, np.zeros((n_steps, n_steps))
        for k in range(n_steps):
            w = matrix.T @ v - beta * w
            b[k, k] = np.linalg.norm(w)
            w = w / b[k, k]
            v = matrix @ w - b[k, k] * v
            beta = np.linalg.norm(v)
            v = v / beta
            if k < n_steps - 1:
                b[k, k + 1] = beta
        radau = b.copy()
        radau[-1, -1] = 0.0
        for rule in (b, radau):
            _, sigma, right = np.linalg.svd(rule)
            expected.append(12 * (right[:, 0] ** 2 * sigma).sum())
    ours = jax.jit(lambda m, probes: nuclear_norm_by_quadrature(m, probes=probes, n_steps=n_steps))(matrix, np.sign(probes))
    np.testing.assert_allclose(ours, np.mean(expected), rtol=1e-6)


@jax.jit
def rates_after(jumps):
    optimizer = noise_adaptive(optax.identity(), ["all"] * 3, ENTRIES, b2=0.0)
    state = optimizer.init([jnp.zeros(())] * 3)
    for gradient in ([jnp.zeros(())] * 3, list(jumps)):
        _, state = optimizer.update(gradient, state)
    return jnp.stack(layer_learning_rates(state, 1.0))


@hypothesis.given(noise=st.lists(st.floats(0.0, 100.0), min_size=3, max_size=3), more=st.floats(0.0, 100.0))
@hypothesis.settings(max_examples=50)
def test_o9_more_noise_in_a_layer_never_raises_its_rate(noise, more):
    before, after = (np.asarray(rates_after(np.array(jumps, np.float32))) for jumps in (noise, [noise[0] + more, *noise[1:]]))
    assert after[0] <= before[0] * (1 + ROUND_OFF)
    # Others may only rise, as the quietest becomes less quiet.
    assert (after[1:] >= before[1:] * (1 - ROUND_OFF)).all() and after.max() == 1.0


def test_o10_rotations_leave_the_noise_alone_and_transposition_its_factor():
    gradients, (left, right) = normal(0, 4, 6, 10), (np.linalg.qr(normal(1, n, n))[0] for n in (6, 10))
    optimizer = scale_by_lanton("hidden", nuclear="svd")

    @jax.jit
    def noise(gradients):
        return layer_noise(jax.lax.scan(lambda state, g: optimizer.update(g, state)[::-1], optimizer.init(gradients[0]), gradients)[0])

    plain = noise(gradients)
    np.testing.assert_allclose(noise(left @ gradients @ right), plain, rtol=1e-4)
    np.testing.assert_allclose(noise(gradients.swapaxes(1, 2)), np.asarray(plain) * (10 / 6), rtol=1e-4)


# The mistakes that are easily made.


def test_noise_is_no_frobenius_norm():
    low, full = np.outer(normal(0, 8), normal(1, 8)), normal(2, 8, 8)
    full = full * np.linalg.norm(low) / np.linalg.norm(full)
    gradients = [{"low": jnp.zeros((8, 8)), "full": jnp.zeros((8, 8))}, {"low": jnp.asarray(low), "full": jnp.asarray(full)}]
    noise = layer_noise(walk(scale_by_lanton(dict.fromkeys(gradients[0], "hidden"), nuclear="svd"), gradients)[2])
    assert noise["full"] > 1.5 * noise["low"]


def test_noise_is_the_distance_to_the_last_gradient_and_not_to_the_momentum():
    gradients = [jnp.array([g]) for g in (1.0, 3.0, 4.0)]
    _, _, state = walk(noise_adaptive(optax.sgd(1.0, momentum=0.9), "all", ENTRIES, b2=0.5), gradients)
    np.testing.assert_allclose(state.noise, 0.5 * (0.5 * 4.0) + 0.5 * 1.0, rtol=ROUND_OFF)


def test_the_first_gradient_is_no_noise():
    _, rates, state = walk_of_exact([tree(0)], alpha=1e-6)
    assert all(h == 0.0 for h in jax.tree.leaves(layer_noise(state))) and all((r == 1.0).all() for r in jax.tree.leaves(rates))


def test_groups_do_not_share_their_quietest_layer():
    _, rates, _ = walk_of_exact([tree(seed) for seed in range(3)], alpha=1e-6)
    assert rates["e"][-1] == 1.0
    assert max(rates["q"][-1], rates["k"][-1]) == 1.0 and max(rates["b"][-1], rates["g"][-1]) == 1.0


def test_trap_clipping_by_the_global_norm_ahead_ties_layers_together():
    """A jump of one layer shortens what is measured of the others, unless clipping comes after."""
    clip = optax.clip_by_global_norm(1.0)
    measured = noise_adaptive(optax.identity(), {"a": "all", "b": "all"}, ENTRIES, b2=0.0)

    def noise(optimizer, jump):
        state = optimizer.init({"a": jnp.zeros(()), "b": jnp.zeros(())})
        for gradient in ({"a": 0.0, "b": 0.0}, {"a": 0.5, "b": jump}):
            _, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state)
        return layer_noise(state)["a"]

    ahead, behind = optax.chain(clip, measured), optax.chain(measured, clip)
    both = jax.jit(lambda jump: (noise(ahead, jump), noise(behind, jump)))
    (ahead_small, behind_small), (ahead_large, behind_large) = both(0.1), both(100.0)
    assert behind_small == behind_large == 0.5
    assert ahead_small == 0.5 and ahead_large < 0.01


def test_without_a_guard_a_gradient_that_is_not_finite_shows_in_its_group_alone():
    optimizer = noise_adaptive(optax.identity(), {"a": "one", "b": "one", "c": "other"}, {"one": ENTRIES["all"], "other": ENTRIES["all"]})
    gradient = dict.fromkeys("abc", jnp.ones(()))
    updates, _, _ = walk(optimizer, [gradient, gradient | {"a": jnp.array(jnp.nan)}, gradient])
    assert np.isnan(updates["a"][-1]) and np.isnan(updates["b"][-1]) and updates["c"][-1] == 1.0


def test_groups_without_a_layer_change_nothing():
    gradient = {"b": jnp.asarray(normal(0, 3))}
    optimizer = exact(0.1, {"b": "vector"}, alpha={"hidden": 1.0, "embed": 2.0, "vector": 3.0}, radii={"hidden": 5.0})
    assert_same(walk(optimizer, [gradient])[0], walk(scion(0.1, {"b": "vector"}), [gradient])[0])
    assert exact(0.1, {}).init({})[0].noise == {}


def polynomial_factor(matrix):
    """Five steps of Newton–Schulz with the coefficients of Jordan et al., double precision."""
    x = matrix / np.linalg.norm(matrix)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_without_adaptation_it_is_scions_unconstrained_rule():
    """Written out in NumPy: 50 steps with the same gradients, α so large that no layer is slowed."""
    shapes, rate, b1 = {"q": (6, 9), "k": (9, 6), "e": (5, 6), "g": (4,)}, 0.02, 0.95
    gradients = {name: normal(i, 50, *shape) for i, (name, shape) in enumerate(shapes.items())}
    optimizer = exact(rate, {name: GROUPS[name] for name in shapes}, b1=b1, alpha=1e12)

    @jax.jit
    def run(gradients):
        state = optimizer.init(jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), gradients))
        return jax.lax.scan(lambda state, gradient: optimizer.update(gradient, state)[::-1], state, gradients)[1]

    updates = run(gradients)
    steps = {
        "hidden": lambda b: np.sqrt(b.shape[0] / b.shape[1]) * polynomial_factor(b),
        "embed": np.sign,
        "vector": lambda b: np.sqrt(b.size) * b / np.linalg.norm(b),
    }
    for name, shape in shapes.items():
        momentum, moved = np.zeros(shape), np.zeros(shape)
        for gradient in gradients[name]:
            momentum = b1 * momentum + (1 - b1) * gradient.astype(np.float64)
            moved -= rate * steps[GROUPS[name]](momentum)
        np.testing.assert_allclose(np.asarray(updates[name]).sum(0), moved, rtol=1e-3, atol=1e-4)


def test_every_holds_the_noise_in_between():
    optimizer, noise = noise_adaptive(optax.identity(), "all", ENTRIES, b2=0.0, every=3), []
    state, update = optimizer.init(jnp.zeros(1)), jax.jit(optimizer.update)
    for gradient in (0.0, 1.0, 5.0, 5.0, 7.0, 7.0):
        _, state = update(jnp.array([gradient]), state)
        noise.append(float(state.noise))
    assert noise == [0.0, 1.0, 1.0, 1.0, 4.0, 4.0]


@pytest.mark.parametrize("every", [1, 2])
def test_gathered_batches_count_as_one_gradient(every):
    optimizer = exact(0.1, GROUPS, alpha=0.1, every=every)
    gathered = optax.MultiSteps(optimizer, every_k_schedule=2)
    gradients = [jax.tree.map(jnp.asarray, tree(seed)) for seed in range(6)]
    params = jax.tree.map(jnp.asarray, tree(6))
    with jax.disable_jit():
        state = gathered.init(params)
        for gradient in gradients:
            _, state = gathered.update(gradient, state, params)
    means = [jax.tree.map(lambda a, b: (a + b) / 2, *gradients[k : k + 2]) for k in (0, 2, 4)]
    _, _, expected = walk(optimizer, means, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.inner_opt_state, expected)


def test_a_gradient_that_is_not_finite_leaves_no_trace_under_apply_if_finite():
    guarded = optax.apply_if_finite(exact(0.1, GROUPS, alpha=0.1), 5)
    gradients = [tree(seed) for seed in range(3)]
    bad = jax.tree.map(lambda g: np.full_like(g, np.nan), gradients[0])
    updates, _, state = walk(guarded, [jax.tree.map(jnp.asarray, gradient) for gradient in (gradients[0], bad, *gradients[1:])])
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))
    _, _, expected = walk_of_exact(gradients, alpha=0.1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.inner_state, expected)


def test_zero_gradients_do_nothing():
    updates, rates, _ = walk_of_exact([jax.tree.map(np.zeros_like, tree(0))] * 3)
    assert all((u == 0).all() for u in jax.tree.leaves(updates)) and all((r == 1).all() for r in jax.tree.leaves(rates))


def test_half_precision_measures_in_single():
    gradients = [jax.tree.map(lambda g: g.astype("bfloat16"), tree(seed)) for seed in range(3)]
    updates, _, state = walk_of_exact(gradients, alpha=0.1)
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype("bfloat16")}
    assert {h.dtype for h in jax.tree.leaves(layer_noise(state))} == {jnp.dtype("float32")}
    assert all(np.isfinite(u.astype(np.float32)).all() for u in jax.tree.leaves(updates))


# Forms.


def test_a_second_gradient_is_measured_from_the_first_step_on():
    optimizer = lanton(0.1, GROUPS, reference="independent", nuclear="svd")
    one, other = tree(0), tree(1)
    _, state = jax.jit(lambda one, other: optimizer.update(one, optimizer.init(one), second_grads=other))(one, other)
    distance = np.asarray(layer_dual_norms("svd")["hidden"].measure(jnp.asarray(one["q"] - other["q"]), jax.random.key(0)))
    np.testing.assert_allclose(layer_noise(state)["q"], 0.1**0.5 * distance, rtol=ROUND_OFF)
    assert len(jax.tree.leaves(state)) < len(jax.tree.leaves(lanton(0.1, GROUPS).init(one)))


def test_stacked_layers_are_layers():
    """One leaf of three blocks is three leaves: noise, rates and steps."""
    gradients = normal(0, 4, 3, 4, 5) * np.array([1, 3, 9], np.float32)[:, None, None]

    def run(groups, gradients):
        optimizer = exact(0.1, groups, alpha=0.1)

        def step(state, gradient):
            update, state = optimizer.update(gradient, state)
            return state, (update, layer_learning_rates(state, 1.0))

        state, steps = jax.lax.scan(step, optimizer.init(jax.tree.map(lambda g: g[0], gradients)), gradients)
        return *steps, state

    together, rates, state = jax.jit(lambda g: run("hidden", g))(gradients)
    apart, parts, _ = jax.jit(lambda *g: run(["hidden"] * 3, list(g)))(*gradients.swapaxes(0, 1))
    assert layer_noise(state).shape == (3,)
    np.testing.assert_allclose(rates, np.stack(parts, 1), rtol=ROUND_OFF)
    np.testing.assert_allclose(together, np.stack(apart, 1), rtol=1e-3, atol=1e-5)


def test_convolutions_need_their_axes(getkey):
    net = eqx.filter_jit(eqx.nn.Conv2d)(3, 8, 2, key=getkey())
    groups = norm_groups(net)
    axes = matrix_axes(net, groups, "hidden")
    gradient = jax.tree.map(lambda leaf: np.cos(7 * np.asarray(leaf)), eqx.filter(net, eqx.is_inexact_array))
    optimizer = scion(1.0, groups, b1=0.0, axes=axes, method="svd")
    step, _ = jax.jit(lambda gradient: optimizer.update(gradient, optimizer.init(gradient)))(gradient)
    matrix = np.asarray(step.weight).reshape(8, 12)
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), (8 / 12) ** 0.5, rtol=1e-3)
    state = lanton(1.0, groups, axes=axes).init(eqx.filter(net, eqx.is_inexact_array))
    assert layer_noise(state).weight.shape == (1,)


def test_it_wraps_any_optimiser():
    gradients = [{name: jnp.asarray(scale * normal((k, scale), 5)) for name, scale in (("a", 1), ("b", 4))} for k in range(5)]
    ours, rates, _ = walk(noise_adaptive(optax.adamw(0.1), {"a": "all", "b": "all"}, ENTRIES), gradients, params=gradients[0])
    adam, _, _ = walk(optax.adamw(0.1), gradients, params=gradients[0])
    for name in "ab":
        np.testing.assert_allclose(ours[name], rates[name][:, None] * adam[name], rtol=ROUND_OFF, atol=1e-8)
    assert rates["b"][-1] < 0.9


def test_a_layer_decays_at_its_own_rate():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([1.0, 2.0])}
    gradients = [{"a": jnp.array([1.0, 1.0]), "b": jnp.array([scale, scale])} for scale in (1.0, 50.0)]
    groups = {"a": "vector", "b": "vector"}
    plain, rates, _ = walk(exact(0.1, groups), gradients, params)
    decayed, _, _ = walk(exact(0.1, groups, weight_decay=0.5), gradients, params)
    for name in "ab":
        np.testing.assert_allclose(decayed[name] - plain[name], -0.1 * 0.5 * rates[name][:, None] * np.asarray(params[name]), rtol=1e-4)


@pytest.mark.parametrize("alias", [exact, scion], ids=["lanton", "scion"])
def test_decay_follows_its_schedule_and_spares_masked_leaves(alias):
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, 4.0])}
    zero, groups = jax.tree.map(jnp.zeros_like, params), {"a": "vector", "b": "vector"}
    optimizer = alias(0.1, groups, weight_decay=lambda count: 0.5 / (1 + count), mask={"a": True, "b": False})
    updates, _, _ = walk(optimizer, [zero, zero], params)
    np.testing.assert_allclose(updates["a"], -0.1 * np.array([[0.5], [0.25]]) * np.asarray(params["a"]), rtol=ROUND_OFF)
    assert not updates["b"].any()


@pytest.mark.parametrize("alias", [exact, scion], ids=["lanton", "scion"])
def test_radii_and_the_method_reach_the_steps(alias):
    gradient = {"q": jnp.asarray(normal(0, 8, 2)), "e": jnp.asarray(normal(1, 3, 2)), "b": jnp.asarray(normal(2, 4))}
    radii = {"hidden": 3.0, "embed": 5.0, "vector": 7.0}
    updates, _, _ = walk(alias(0.1, {name: GROUPS[name] for name in gradient}, radii=radii, method="svd"), [gradient])
    np.testing.assert_allclose(np.linalg.svd(updates["q"][0], compute_uv=False), 0.3 * 2, rtol=ROUND_OFF)
    np.testing.assert_allclose(updates["e"][0], -0.5 * np.sign(gradient["e"]), rtol=ROUND_OFF)
    np.testing.assert_allclose((updates["b"][0] ** 2).mean() ** 0.5, 0.7, rtol=ROUND_OFF)


def test_probes_are_drawn_from_the_seed_and_the_step():
    gradients = jnp.asarray(np.array([0.0, 1, 0, 1])[:, None, None] * normal(0, 12, 20), jnp.float32)

    @jax.jit
    def noise(gradients):
        found = []
        for seed in (0, 0, 1):
            optimizer = noise_adaptive(optax.identity(), "hidden", b2=0.0, seed=seed)
            step = lambda state, g, optimizer=optimizer: (after := optimizer.update(g, state)[1], after.noise)  # noqa: E731
            found.append(jax.lax.scan(step, optimizer.init(gradients[0]), gradients)[1])
        return jnp.stack(found)

    first, again, other = np.asarray(noise(gradients))[:, 1:]
    assert np.array_equal(first, again) and (first != other).all() and len(np.unique(first)) == 3
    exactly = np.asarray(layer_dual_norms("svd")["hidden"].measure(gradients[1], jax.random.key(0))) ** 2
    np.testing.assert_allclose(first, exactly, rtol=0.5)


def test_differences_are_taken_in_single_precision_and_of_complex_numbers():
    optimizer = noise_adaptive(optax.identity(), "all", ENTRIES, b2=0.0)
    half = [jnp.array([g], jnp.bfloat16) for g in (0.5, 256.0)]  # 255.5 has nine bits
    assert walk(optimizer, half)[2].noise == 255.5**2
    noise = walk(optimizer, [jnp.zeros(2, complex), jnp.array([3.0 + 4.0j, 0.0])])[2].noise
    assert noise == 25.0 and noise.dtype == jnp.float32


def test_further_arguments_go_to_the_inner_optimiser():
    inner = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), lambda g, state, params=None, *, factor: (jax.tree.map(lambda x: factor * x, g), state)
    )
    updates, _, _ = walk(noise_adaptive(inner, "all", ENTRIES), [jnp.ones(2)], factor=3.0)
    np.testing.assert_array_equal(updates, [[3.0, 3.0]])


def test_masked_leaves_are_left_out():
    params = jax.tree.map(jnp.asarray, tree(0))
    labels = {name: "frozen" if name == "e" else "ours" for name in SHAPES}
    optimizer = optax.multi_transform({"ours": exact(0.1, GROUPS), "frozen": optax.set_to_zero()}, labels)
    updates, _, _ = walk(optimizer, [params], params)
    alone = {name: g for name, g in params.items() if name != "e"}
    expected, _, _ = walk(exact(0.1, {name: GROUPS[name] for name in alone}), [alone], alone)
    assert_same({name: updates[name] for name in alone}, expected)


def test_thresholds_by_group():
    gradients = [{name: (10 if name in "kg" else 1) * g for name, g in tree(seed).items()} for seed in range(3)]
    _, rates, _ = walk_of_exact(gradients, alpha={"hidden": 1e9, "embed": 1.0, "vector": 1e-3})
    np.testing.assert_allclose(rates["k"][-1], 1.0, rtol=1e-6)
    assert rates["g"][-1] < 0.7


def test_the_smallest_alpha_and_exponents():
    gradients = [{"a": jnp.array([1.0]), "b": jnp.array([scale])} for scale in (1.0, 5.0)]
    _, rates, _ = walk(noise_adaptive(optax.identity(), {"a": "all", "b": "all"}, ENTRIES, b2=0.0, exponent=1.0), gradients)
    np.testing.assert_allclose(rates["b"][-1], 1 / 17**0.5, rtol=ROUND_OFF)
    _, rates, _ = walk(noise_adaptive(optax.identity(), {"a": "all", "b": "all"}, ENTRIES, b2=0.0, exponent=0.0), gradients)
    assert rates["b"][-1] == 1.0


# The report.


def test_the_report_finds_the_noise_of_a_known_law():
    """The loss ⟨W, N⟩ has the gradient N: σ is E‖N‖_*² under the root."""
    scales = {"a": 0.5, "b": 2.0}
    batches = {name: scale * normal(i, 200, 24, 24) for i, (name, scale) in enumerate(scales.items())}
    weights = dict.fromkeys(scales, jnp.zeros((24, 24)))
    report = noise_report(lambda w, batch: sum((w[n] * batch[n]).sum() for n in w), weights, batches, dict.fromkeys(scales, "hidden"))
    for name, scale in scales.items():
        truth = np.sqrt((np.linalg.svd(batches[name], compute_uv=False).sum(1) ** 2).mean())
        assert abs(report.noise[name] - truth) < 4 * report.standard_error[name] + 0.005 * truth
        np.testing.assert_allclose(truth, scale * 8 / (3 * np.pi) * 24**1.5, rtol=0.02)
    np.testing.assert_allclose(report.spread("hidden"), 4.0, rtol=0.02)
    assert report.of("hidden").shape == (2, 2) and report.n_pairs == 100
    np.testing.assert_allclose(report.thresholds()["hidden"], 2**0.5 * np.mean(np.asarray(report.of("hidden"))[:, 0]), rtol=ROUND_OFF)
    with pytest.raises(ValueError, match="group must be one of hidden, got 'embed'"):
        report.of("embed")


def test_standard_errors_and_thresholds_of_the_report():
    """Of one number a layer: σ² is the mean of the halved squared differences of pairs, and dσ = d(σ²)/(2σ)."""
    batches = {name: normal(i, 8, 1) * (1 + i) ** 2 for i, name in enumerate("abc")}
    params = dict.fromkeys(batches, jnp.zeros(1))
    report = noise_report(lambda w, batch: sum((w[n] * batch[n]).sum() for n in w), params, batches, dict.fromkeys(batches, "vector"))
    halves = {name: (b[::2, 0] - b[1::2, 0]) ** 2 / 2 for name, b in batches.items()}
    sigma = {name: half.mean() ** 0.5 for name, half in halves.items()}
    for name, half in halves.items():
        np.testing.assert_allclose(report.noise[name], sigma[name], rtol=ROUND_OFF)
        np.testing.assert_allclose(report.standard_error[name], half.std(ddof=1) / 4**0.5 / (2 * sigma[name]), rtol=ROUND_OFF)
    np.testing.assert_allclose(report.thresholds()["vector"], 2**0.5 * np.median(list(sigma.values())), rtol=ROUND_OFF)


@pytest.mark.parametrize("n", [2, 5])
def test_the_report_needs_pairs(n):
    with pytest.raises(ValueError, match=rf"batches must have a first axis of an even length of at least 4, got \[{n}\]"):
        noise_report(lambda w, b: (w * b).sum(), jnp.zeros(3), jnp.ones((n, 3)), "vector")


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "alpha must be positive, got 0.0"),
        ({"alpha": -1.0}, "alpha must be positive, got -1.0"),
        ({"alpha": float("nan")}, "alpha must be positive, got nan"),
        ({"alpha": {"hidden": 1.0, "vector": 0.0}}, "alpha of 'vector' must be positive, got 0.0"),
        ({"b1": 1.0}, r"b1 must lie in \[0, 1\), got 1.0"),
        ({"b2": 1.0}, r"b2 must lie in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must lie in \[0, 1\), got -0.1"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"exponent": -0.5}, "exponent must be at least 0, got -0.5"),
        ({"reference": "last"}, "reference must be 'previous' or 'independent', got 'last'"),
        ({"nuclear": "newton"}, "nuclear must be one of 'quadrature', 'newton_schulz', 'svd', 'sketch', got 'newton'"),
        ({"radii": {"hidden": 0.0}}, "the radius of 'hidden' must be positive, got 0.0"),
        ({"radii": {"hiden": 1.0}}, "radii must be of the groups hidden, embed, vector, got one of 'hiden'"),
        ({"learning_rate": -0.1}, r"learning_rate must be at least 0, got -0\.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, got nan"),
        ({"weight_decay": -1.0}, r"weight_decay must be at least 0, got -1\.0"),
        ({"weight_decay": 11.0}, r"learning_rate times weight_decay must be at most 1, .* got 0\.1 × 11\.0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        lanton(**({"learning_rate": 0.1, "groups": GROUPS} | wrong))
    if set(wrong) <= {"learning_rate", "weight_decay", "b1", "radii"}:
        with pytest.raises(ValueError, match=message):
            scion(**({"learning_rate": 0.1, "groups": GROUPS} | wrong))


def test_a_group_without_a_threshold_is_refused():
    with pytest.raises(ValueError, match="alpha must hold a threshold for every group, got none for embed, hidden"):
        lanton(0.1, {"w": "hidden", "e": "embed", "b": "vector"}, alpha={"vector": 1.0}).init(
            {"w": jnp.ones((2, 2)), "e": jnp.ones((2, 2)), "b": jnp.ones(2)}
        )


@pytest.mark.parametrize(
    ("params", "groups", "message"),
    [
        ({"w": jnp.ones(3)}, {"w": "hidden"}, r"parameter \['w'\] must have 2 axes or more for the norm of 'hidden', got shape \(3,\)"),
        ({"w": jnp.ones(3)}, {"w": None}, r"parameter \['w'\] must have a group, one of hidden, embed, vector, got None"),
        ({"w": jnp.ones(3)}, {"w": "matrix"}, r"parameter \['w'\] must have a group, one of hidden, embed, vector, got 'matrix'"),
        ({"w": jnp.ones(3), "v": jnp.ones(3)}, {"w": "vector"}, "key"),
        (jnp.ones(()), "vector", r"the parameter must have 1 axes or more for the norm of 'vector', got shape \(\)"),
    ],
)
@pytest.mark.parametrize("alias", [lanton, scion])
def test_leaves_that_do_not_fit_their_group_are_refused(alias, params, groups, message):
    with pytest.raises(ValueError, match=message):
        alias(0.1, groups).init(params)


def test_a_missing_second_gradient_is_refused():
    optimizer = lanton(0.1, "vector", reference="independent")
    message = r"reference 'independent' needs the gradients of a second batch: call update\(grads, state, params, second_grads=…\)"
    with pytest.raises(ValueError, match=message):
        optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)))


def test_a_state_without_noise_is_refused():
    with pytest.raises(ValueError, match="state must hold one noise-adaptive state, got 0"):
        layer_noise(optax.adam(0.1).init(jnp.ones(3)))


@pytest.mark.parametrize("wrong", [{"n_probes": 0}, {"n_steps": 0}])
def test_estimates_need_a_probe_and_a_step(wrong):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        nuclear_norm_by_quadrature(jnp.ones((3, 3)), key=jax.random.key(0), **wrong)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        nuclear_norm_by_sketch(jnp.ones((3, 3)), key=jax.random.key(0), rank=0)


def test_rates_have_derivatives_at_zero_noise():
    optimizer = scale_by_lanton({"a": "vector", "b": "vector"})

    def step(scale):
        state = optimizer.init({"a": jnp.zeros(2), "b": jnp.zeros(2)})
        for k in range(2):
            updates, state = optimizer.update({"a": scale * jnp.ones(2), "b": (1.0 + k) * jnp.ones(2)}, state)
        return updates["a"].sum() + updates["b"].sum()

    assert np.isfinite(jax.jit(jax.grad(step))(1.0))


def test_scale_by_scion_is_the_direction_of_scion():
    gradients = [jax.tree.map(jnp.asarray, tree(seed)) for seed in range(2)]
    direction, _, _ = walk(scale_by_scion(GROUPS), gradients)
    steps, _, _ = walk(scion(0.5, GROUPS), gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(-0.5 * a, b, rtol=ROUND_OFF), direction, steps)


def test_probes_drawn_once_serve_matrices_of_all_sizes():
    key = jax.random.key(0)
    probes, small = quadrature_probes(key, 40), jnp.asarray(np.random.default_rng(0).normal(size=(12, 40)), jnp.float32)
    np.testing.assert_array_equal(
        nuclear_norm_by_quadrature(small, probes=probes), nuclear_norm_by_quadrature(small.T, probes=probes[:, :12])
    )
    np.testing.assert_array_equal(
        nuclear_norm_by_quadrature(small, probes=quadrature_probes(key, 12)), nuclear_norm_by_quadrature(small, key=key)
    )
    with pytest.raises(ValueError, match="shorter side, 12, got 11"):
        nuclear_norm_by_quadrature(small, probes=probes[:, :11])
    with pytest.raises(ValueError, match="key or probes must be given, and not both, got neither"):
        nuclear_norm_by_quadrature(small)
