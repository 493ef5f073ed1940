import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import MixtureOfExperts, SwiGLU, balanced, matrix_axes, muon_roles

WIDTH, HIDDEN, TOKENS = 8, 4, 20
SAME = 1e-5
"Another order of the same products, single precision."


def mixture(key, **sizes):
    return MixtureOfExperts(WIDTH, HIDDEN, **{"n_routed": 6, "n_shared": 2, "top_k": 2} | sizes, key=key)


def texts(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@eqx.filter_jit
def applied(experts, x):
    return experts(x)


@eqx.filter_jit
def routed(experts, x):
    return experts.route(x)


@eqx.filter_jit
@eqx.filter_grad
def gradient_of(experts, x):
    return (experts(x)[0] ** 2).sum()


def swiglu(gate, up, down, x):
    """A network of two maps, one the gate of the other, and one back, in NumPy."""
    gate, up, down, x = (np.asarray(array, np.float64) for array in (gate, up, down, x))
    z = x @ gate.T
    return (z / (1 + np.exp(-z)) * (x @ up.T)) @ down.T


def affinities(experts, x):
    return 1 / (1 + np.exp(-np.asarray(x) @ np.asarray(experts.router.weight).T))


def outputs(experts, x):
    """Of each routed expert, `(tokens, experts, width)`, and of the shared ones."""
    shared = experts.shared
    each = [swiglu(*parts, x) for parts in zip(*map(np.asarray, (experts.gate, experts.up, experts.down)), strict=True)]
    return np.stack(each, axis=1), swiglu(shared.gate.weight, shared.up.weight, shared.down.weight, x)


@pytest.mark.parametrize(("n_tokens", "top_k"), [(1, 6), (3, 1), (130, 2)])
def test_groups_of_any_size_are_laid_out_without_loss(n_tokens, top_k, getkey):
    """A token alone, fewer tokens than experts, and more than a block of one expert beside experts without any."""
    experts = mixture(getkey(), top_k=top_k, dispatch="grouped")
    experts = eqx.tree_at(lambda e: e.bias_steps, experts, jnp.array([0, 0, 0, 2000, 0, 0], jnp.int32))
    x = texts(n_tokens, WIDTH)
    dense = MixtureOfExperts(WIDTH, HIDDEN, n_routed=6, n_shared=2, top_k=top_k, dispatch="dense", key=jax.random.key(0))
    parts = lambda e: [e.router, e.gate, e.up, e.down, e.shared, e.bias_steps]  # noqa: E731
    dense = eqx.tree_at(parts, dense, parts(experts))
    np.testing.assert_allclose(applied(experts, x)[0], applied(dense, x)[0], atol=SAME)
    assert np.asarray(applied(experts, x)[1])[3] == n_tokens


@pytest.mark.parametrize("dispatch", ["dense", "grouped"])
def test_the_output_is_that_of_the_formula(dispatch, getkey):
    experts, x = mixture(getkey(), dispatch=dispatch), texts(TOKENS, WIDTH)
    experts = eqx.tree_at(lambda e: e.bias_steps, experts, jnp.array([0, 100, -200, 300, 0, 0], jnp.int32))
    affinity = affinities(experts, x)
    routed, expected = outputs(experts, x)
    for t in range(TOKENS):
        chosen = np.argsort(-(affinity[t] + 1e-3 * np.asarray(experts.bias_steps)))[:2]
        expected[t] += (affinity[t, chosen, None] * routed[t, chosen]).sum(0) / affinity[t, chosen].sum()
    np.testing.assert_allclose(applied(experts, x)[0], expected, atol=SAME)


@pytest.mark.parametrize(("n_routed", "top_k"), [(6, 2), (62, 6), (3, 3)])
def test_both_dispatches_agree(n_routed, top_k, getkey):
    key, x = getkey(), texts(TOKENS, WIDTH)
    ways = [(dispatch, capacity) for capacity in (None, 4) for dispatch in ("dense", "grouped")]
    experts = [mixture(key, n_routed=n_routed, top_k=top_k, capacity=capacity, dispatch=dispatch) for dispatch, capacity in ways]
    found = eqx.filter_jit(lambda experts, x: [each(x) for each in experts])(experts, x)
    for (dense, load), (grouped, same) in (found[:2], found[2:]):
        np.testing.assert_allclose(grouped, dense, atol=SAME)
        np.testing.assert_array_equal(load, same)
        assert np.asarray(load).sum() == TOKENS * top_k
    assert mixture(key, n_routed=n_routed, top_k=top_k).dispatch == ("dense" if n_routed <= 8 else "grouped")


def test_both_dispatches_have_one_gradient_under_vmap(getkey):
    key, x = getkey(), texts(3, TOKENS, WIDTH)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(experts, x):
        return (jax.vmap(lambda x: experts(x)[0])(x) ** 2).sum()

    dense, grouped = (gradient(mixture(key, dispatch=dispatch), x) for dispatch in ("dense", "grouped"))
    for a, b in zip(jax.tree.leaves(dense), jax.tree.leaves(grouped), strict=True):
        np.testing.assert_allclose(b, a, atol=20 * SAME)  # summed over 60 tokens


def test_o7_all_experts_at_equal_logits_are_the_mean_and_the_shared(getkey):
    experts = mixture(getkey(), top_k=6)
    experts = eqx.tree_at(lambda e: e.router.weight, experts, jax.device_put(np.zeros((6, WIDTH), np.float32)))
    x = texts(TOKENS, WIDTH)
    each, shared = outputs(experts, x)
    np.testing.assert_allclose(applied(experts, x)[0], shared + each.mean(1), atol=SAME)


def test_o7_the_order_of_experts_does_not_matter(getkey):
    experts, x, order = mixture(getkey()), texts(TOKENS, WIDTH), [3, 0, 5, 1, 4, 2]
    experts = eqx.tree_at(lambda e: e.bias_steps, experts, jnp.asarray(50 * np.arange(6, dtype=np.int32)))
    parts = lambda e: [e.router.weight, e.gate, e.up, e.down, e.bias_steps]  # noqa: E731
    permuted = eqx.tree_at(parts, experts, [jax.device_put(np.asarray(part)[order]) for part in parts(experts)])
    (y, load), (same, moved) = applied(experts, x), applied(permuted, x)
    np.testing.assert_allclose(same, y, atol=SAME)
    np.testing.assert_array_equal(moved, np.asarray(load)[order])


def test_o7_gates_sum_to_one_even_where_all_affinities_vanish(getkey):
    experts, x = mixture(getkey(), top_k=3), texts(TOKENS, WIDTH)
    for scale in (1.0, 1e4):
        _, gates, _, _ = routed(eqx.tree_at(lambda e: e.router.weight, experts, scale * experts.router.weight), x)
        np.testing.assert_allclose(np.asarray(gates).sum(1), 1.0, atol=SAME)


def test_o7_the_bias_chooses_and_does_not_weigh(getkey):
    experts, x = mixture(getkey()), texts(TOKENS, WIDTH)
    pushed = eqx.tree_at(lambda e: e.bias_steps, experts, jnp.array([2000, 0, 0, 0, 0, 2000], jnp.int32))
    chosen, gates, _, load = map(np.asarray, routed(pushed, x))
    assert load.tolist() == [TOKENS, 0, 0, 0, 0, TOKENS] and not np.array_equal(load, routed(experts, x).load)
    affinity = np.take_along_axis(affinities(experts, x), chosen, axis=1)
    np.testing.assert_allclose(gates, affinity / affinity.sum(1, keepdims=True), atol=SAME)


def test_o7_no_gradient_moves_the_bias_and_no_optimiser_sees_it(getkey):
    experts, x = mixture(getkey()), texts(TOKENS, WIDTH)
    gradient = gradient_of(experts, x)
    assert gradient.bias_steps is None and eqx.filter(experts, eqx.is_inexact_array).bias_steps is None
    # Gates depend on the router through the chosen affinities alone: the same with any bias that chooses the same.
    shifted = eqx.tree_at(lambda e: e.bias_steps, experts, experts.bias_steps + 7)
    same = gradient_of(shifted, x)
    np.testing.assert_array_equal(gradient.router.weight, same.router.weight)
    assert np.abs(gradient.router.weight).max() > 0


@pytest.mark.parametrize(
    ("n_routed", "top_k", "rate", "steps", "least_before", "most_after"),
    # Measured where the rule was tried: 2.61 -> 1.07, 2.57 -> 1.03, 7.8 -> 1.22 (a ripple that stays), 7.4 -> 1.12.
    [
        (6, 2, 1e-2, 100, 2.3, 1.15),
        pytest.param(6, 2, 1e-3, 1000, 2.3, 1.1, marks=pytest.mark.laptop),
        (62, 6, 1e-2, 100, 6.0, 1.4),
        pytest.param(62, 6, 1e-3, 1000, 6.0, 1.25, marks=pytest.mark.laptop),
    ],
)
def test_o7_the_bias_evens_a_skewed_load(n_routed, top_k, rate, steps, least_before, most_after, getkey):
    width, n_tokens = 32, 4000
    experts = MixtureOfExperts(width + 1, 1, n_routed=n_routed, top_k=top_k, bias_rate=rate, key=getkey())
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n_routed, width + 1)).astype(np.float32) / np.sqrt(width, dtype=np.float32)
    logits[:, -1] = 0
    logits[:2, -1] = 2, 1
    experts = eqx.tree_at(lambda e: e.router.weight, experts, jax.device_put(logits))
    # Ten batches in turn: to draw them within the loop takes longer than all else.
    batches = rng.normal(size=(10, n_tokens, width + 1)).astype(np.float32)
    batches[..., -1] = 1

    @eqx.filter_jit
    def run(experts, batches):
        def step(bias_steps, i):
            now = eqx.tree_at(lambda e: e.bias_steps, experts, bias_steps)
            load = now.route(batches[i % 10]).load
            return balanced(now, load).bias_steps, load.max() / load.mean()

        return jax.lax.scan(step, experts.bias_steps, jnp.arange(steps))[1]

    ratio = np.asarray(run(experts, batches))
    assert ratio[0] > least_before and ratio[-10:].mean() < most_after


def test_o7_without_a_router_loads_even_out_over_time_alone(getkey):
    """All-zero router weights: within a step all tokens choose the same two experts, and it is the bias that takes turns."""
    experts = eqx.tree_at(lambda e: e.router.weight, mixture(getkey(), bias_rate=1e-2), jnp.zeros((6, WIDTH)))

    @eqx.filter_jit
    def run(experts, x):
        def step(bias_steps, _):
            now = eqx.tree_at(lambda e: e.bias_steps, experts, bias_steps)
            load = now.route(x).load
            return balanced(now, load).bias_steps, load

        return jax.lax.scan(step, experts.bias_steps, length=300)[1]

    loads = np.asarray(run(experts, jnp.ones((TOKENS, WIDTH))))
    assert (np.sort(loads, axis=1) == [0, 0, 0, 0, TOKENS, TOKENS]).all()
    assert loads.sum(0).max() <= 1.05 * loads.sum(0).mean()


def test_equal_affinities_choose_the_first_experts(getkey):
    experts = eqx.tree_at(lambda e: e.router.weight, mixture(getkey()), jnp.zeros((6, WIDTH)))
    assert routed(experts, jnp.ones((3, WIDTH))).experts.tolist() == [[0, 1]] * 3


def test_o8_experts_without_tokens_have_no_gradient(getkey):
    experts, x = mixture(getkey()), texts(TOKENS, WIDTH)
    experts = eqx.tree_at(lambda e: e.bias_steps, experts, jnp.array([2000, 0, 0, 0, 0, 2000], jnp.int32))
    for dispatch in ("dense", "grouped"):
        now = eqx.tree_at(lambda e: e.bias_steps, mixture(jax.random.key(3), dispatch=dispatch), experts.bias_steps)
        gradient = gradient_of(now, x)
        for part in (gradient.gate, gradient.up, gradient.down):
            np.testing.assert_array_equal(np.asarray(part)[1:5], 0.0)
            assert (np.abs(part)[[0, 5]].max((1, 2)) > 0).all()
        np.testing.assert_array_equal(np.asarray(gradient.router.weight)[1:5], 0.0)


def test_tokens_beyond_the_capacity_lose_that_experts_share(getkey):
    experts, x = mixture(getkey(), capacity=3, n_shared=0), texts(TOKENS, WIDTH)
    experts = eqx.tree_at(lambda e: e.bias_steps, experts, jnp.array([2000, 0, 0, 0, 0, 2000], jnp.int32))
    _, gates, _, load = map(np.asarray, routed(experts, x))
    assert (gates[:3] > 0).all() and not gates[3:].any() and load.tolist() == [TOKENS, 0, 0, 0, 0, TOKENS]
    np.testing.assert_array_equal(np.asarray(applied(experts, x)[0])[3:], 0.0)


def test_shared_experts_are_one_wide_expert(getkey):
    experts = eqx.filter_eval_shape(mixture, getkey(), n_shared=3)
    assert experts.shared.gate.weight.shape == (3 * HIDDEN, WIDTH)
    assert mixture(getkey(), n_shared=0).shared is None


def test_each_expert_is_a_matrix_of_its_own_and_the_router_is_none(getkey):
    experts = mixture(getkey())
    roles = muon_roles(experts)
    assert (roles.gate, roles.up, roles.down, roles.shared.gate.weight) == ("muon",) * 4 and roles.router.weight == "adam"
    axes = matrix_axes(experts, roles, "muon")
    assert {(a.reduction, a.output) for a in (axes.gate, axes.up, axes.down)} == {((2,), (1,))}


def test_the_load_to_balance_is_that_of_the_batch(getkey):
    with pytest.raises(ValueError, match=r"load must have shape \(6,\), got \(18,\); sum it over the batch first"):
        balanced(mixture(getkey()), jnp.ones(18, jnp.int32))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_k": 7}, "top_k must be at most the number of routed experts, 6, got 7"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"n_routed": 0}, "n_routed must be at least 1, got 0"),
        ({"n_shared": -1}, "n_shared must be at least 0, got -1"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"dispatch": "ragged"}, "dispatch must be 'dense', 'grouped' or None, got 'ragged'"),
        ({"bias_rate": -1.0}, r"bias_rate must be at least 0, got -1\.0"),
        ({"bias_rate": float("nan")}, "bias_rate must be at least 0, got nan"),
    ],
)
def test_sizes_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        mixture(jax.random.key(0), **wrong)


def test_sizes_of_the_networks_are_checked():
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        MixtureOfExperts(8, 0, n_routed=2, top_k=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        SwiGLU(0, 4, key=jax.random.key(0))


def test_experts_begin_as_linear_layers_do(getkey):
    experts = mixture(getkey())
    for part, n_in in ((experts.gate, WIDTH), (experts.up, WIDTH), (experts.down, HIDDEN)):
        assert 0.9 < np.abs(np.asarray(part)).max() * np.sqrt(n_in) <= 1
    assert np.abs(np.asarray(experts.gate) - np.asarray(experts.up)).min() > 0
