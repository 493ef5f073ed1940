"""What every optimiser of the room must do inside optax and JAX; a new one is one entry in CASES."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import WidthScaling, diffgrad, lanton, muon, scion, width_adamw


def norm_by_axes(params):
    return jax.tree.map(lambda leaf: "hidden" if leaf.ndim == 2 else "vector", params)


def classes_by_axes(params):
    return jax.tree.map(lambda leaf: "matrix" if leaf.ndim == 2 else "vector", params)


CASES = {
    "diffgrad": diffgrad,
    "diffgrad, Nesterov": lambda rate, **kw: diffgrad(rate, nesterov=True, **kw),
    "diffgrad, L2": lambda rate, **kw: diffgrad(rate, weight_decay=1e-3, **kw),
    "diffgrad, decoupled": lambda rate, **kw: diffgrad(rate, weight_decay=1e-3, decoupled=True, **kw),
    # Steps of constant length end on a circle around the minimum: small ones, without momentum. No ε.
    "scion": lambda rate, b1=0.0, eps=None: scion(rate, norm_by_axes, b1, radii={"hidden": 0.2, "vector": 0.2}),
    "lanton": lambda rate, b1=0.0, eps=None: lanton(rate, norm_by_axes, b1, nuclear="svd", radii={"hidden": 0.2, "vector": 0.2}),
    "lanton, every third step": lambda rate, b1=0.0, eps=None: lanton(
        rate, norm_by_axes, b1, alpha=0.1, every=3, radii={"hidden": 0.2, "vector": 0.2}, weight_decay=1e-3
    ),
    # Shorter steps than its own, whose length does not fall towards the minimum; with `adaptive` it does.
    "muon": lambda rate, b1=0.95, **kw: muon(rate, beta=b1, consistent_rms=0.1, **kw),
    "muon, adaptive and decaying": lambda rate, b1=0.9, **kw: muon(rate, beta=b1, adaptive=True, weight_decay=1e-3, **kw),
    "width_adamw": lambda rate, **kw: width_adamw(WidthScaling(64, 128), rate, 1e-4, classes_by_axes, **kw),
}
ROUND_OFF = 1e-5  # single precision; the same numbers, fused differently
PARAMS = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.array([0.1, -0.2])}
GRADS = [jax.tree.map(lambda p, k=k: jnp.sin(k + p), PARAMS) for k in range(4)]

pytestmark = pytest.mark.parametrize("alias", CASES.values(), ids=CASES)


def walk(optimizer, params=PARAMS, grads=GRADS):
    state = optimizer.init(params)
    for gradient in grads:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def walked(*args, **kwargs):
    """Operation by operation, so that nothing is compiled anew for an optimiser: no branch of a `cond`, and no inner function."""
    with jax.disable_jit():
        return walk(*args, **kwargs)


def assert_close(tree, other, rtol=ROUND_OFF):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=1e-7), tree, other
    )


def test_minimises_a_quadratic(alias):
    optimizer = alias(0.1)

    def loss(p):
        return optax.tree.norm(optax.tree.sub(p, optax.tree.ones_like(p))) ** 2

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, length=300))(PARAMS)
    assert sum(((np.asarray(leaf) - 1) ** 2).sum() for leaf in jax.tree.leaves(params)) < 1e-2


def test_scan_is_a_loop(alias):
    optimizer = alias(0.1)
    stacked = jax.tree.map(lambda *g: np.stack(g), *GRADS)

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    scanned, _ = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), stacked))(PARAMS)
    assert_close(scanned, walked(optimizer))


def test_vmap_is_a_loop(alias):
    batch = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(3, 2)

    def run(x):
        return walk(alias(0.1), x, [jnp.cos(x), jnp.sin(x)])[0]

    with jax.disable_jit():
        one_by_one = np.stack([run(jnp.asarray(x)) for x in batch])
    assert_close(jax.jit(jax.vmap(run))(batch), one_by_one)


def test_does_not_compile_twice(alias):
    optimizer, traces = alias(0.1), []

    @jax.jit
    def step(gradient, state, params):
        traces.append(1)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for gradient in GRADS:
        params, state = step(gradient, state, params)
    assert len(traces) == 1 and step._cache_size() == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_keeps_the_dtype(alias, dtype):
    # 1e-8 is 0 in float16, where 0 / 0 would follow a zero gradient.
    optimizer = alias(0.1, eps=1e-4)
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    after, state = walked(optimizer, params, [params, optax.tree.zeros_like(params)])
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(dtype)}
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), optimizer.init(params))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == before
    assert all(np.isfinite(np.asarray(leaf, np.float64)).all() for leaf in jax.tree.leaves(after))


def test_negative_rates_are_refused(alias):
    with pytest.raises(ValueError, match=r"learning_rate must be at least 0, got -0\.1"):
        alias(-0.1)


def test_zero_gradients_are_finite_steps(alias):
    zero = optax.tree.zeros_like(PARAMS)
    after, _ = walked(alias(0.1), grads=[zero, GRADS[0], zero])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_keeps_double_precision(alias):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float64), PARAMS)
        after, _ = jax.eval_shape(lambda params: walk(alias(0.1), params, [params]), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float64")}


def test_takes_a_schedule(alias):
    def schedule(count):
        return 0.1 / (1 + count)

    scheduled, _ = walked(alias(schedule))
    with jax.disable_jit():
        by_hand, state = PARAMS, alias(1.0).init(PARAMS)
        for k, gradient in enumerate(GRADS):
            updates, state = alias(1.0).update(gradient, state, by_hand)
            by_hand = optax.apply_updates(by_hand, optax.tree.scale(schedule(k), updates))
    assert_close(scheduled, by_hand)


def test_multi_transform_and_masked(alias):
    labels = {"w": "ours", "b": "frozen"}
    split, _ = walked(optax.multi_transform({"ours": alias(0.1), "frozen": optax.set_to_zero()}, labels))
    alone, _ = walked(alias(0.1), {"w": PARAMS["w"]}, [{"w": g["w"]} for g in GRADS])
    assert_close(split, {"w": alone["w"], "b": PARAMS["b"]})
    masked, _ = walked(optax.chain(optax.masked(alias(0.1), {"w": True, "b": False})))
    assert_close(masked["w"], alone["w"])


def test_multi_steps_sees_only_whole_batches(alias):
    params, state = walked(optax.MultiSteps(alias(0.1), every_k_schedule=2))
    means = [jax.tree.map(lambda a, b: (a + b) / 2, *GRADS[k : k + 2]) for k in (0, 2)]
    expected, inner = walked(alias(0.1), grads=means)
    assert_close((params, state.inner_opt_state), (expected, inner))


def test_apply_if_finite_forgets_a_bad_gradient(alias):
    bad = optax.tree.full_like(PARAMS, jnp.nan)
    guarded, state = walked(optax.apply_if_finite(alias(0.1), 5), grads=[GRADS[0], bad, GRADS[1]])
    expected, inner = walked(alias(0.1), grads=GRADS[:2])
    assert_close((guarded, state.inner_state), (expected, inner))


def test_inject_hyperparams_changes_the_rate_under_jit(alias):
    make = optax.inject_hyperparams(lambda learning_rate, b1: alias(learning_rate, b1=b1))
    optimizer = make(learning_rate=0.1, b1=0.9)
    state = optimizer.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.2)
    updates, _ = jax.jit(optimizer.update)(GRADS[0], state, PARAMS)
    assert_close(optax.apply_updates(PARAMS, updates), walked(alias(0.2), grads=GRADS[:1])[0])


def test_equinox_modules_and_none_leaves(alias, getkey):
    net = eqx.filter_jit(eqx.nn.MLP)(2, 2, 2, 1, key=getkey())
    params = eqx.filter(net, eqx.is_inexact_array)
    gradient = jax.tree.map(lambda leaf: jnp.asarray(np.cos(leaf)), params)
    with jax.disable_jit():
        updates, _ = alias(0.1).update(gradient, alias(0.1).init(params), params)
    after = eqx.apply_updates(net, updates)
    assert jax.tree.structure(after) == jax.tree.structure(net)
    assert not np.array_equal(after.layers[0].weight, net.layers[0].weight)


def test_state_fields_share_no_buffer(alias):
    leaves = [leaf for leaf in jax.tree.leaves(alias(0.1).init(PARAMS)) if leaf.ndim]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_trees_that_differ_are_refused(alias):
    with pytest.raises(ValueError, match=r"[Ss]tructure|key|arity"):
        alias(0.1).update({"w": PARAMS["w"]}, alias(0.1).init(PARAMS), PARAMS)


def test_integer_leaves_are_refused(alias):
    with pytest.raises(TypeError, match=r"parameter \['k'\] must be real or complex floating point, got int32"):
        alias(0.1).init({"k": jnp.arange(3)})
