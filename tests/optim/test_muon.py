import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from gradatim.nets import Convolution
from gradatim.nets.parameters import MatrixAxes
from gradatim.optim import muon, muon_dimension_numbers, scale_by_muon, spectral_norm_bound

ROUND_OFF = 2e-5  # thirty products of matrices in float32, in another order
SHAPES = {"tall": (7, 4), "wide": {"a": (3, 5), "square": (4, 4)}, "bias": (4,), "scalar": ()}
DIMENSIONS = {
    "conv": MuonDimensionNumbers((0, 1, 2), 3),
    "experts": MuonDimensionNumbers(-1, -2),
    "linear": MuonDimensionNumbers(1, 0),
    "embedding": None,
}
STACKED = {"conv": (3, 3, 2, 5), "experts": (3, 4, 6), "linear": (5, 3), "embedding": (6, 4)}


def tree(shapes):
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32), shapes, is_leaf=lambda node: isinstance(node, tuple)
    )


def trajectory(optimizer, params, steps=4):
    def step(carry, i):
        params, state = carry
        gradient = jax.tree.map(lambda p: jnp.sin(3 * p + i), params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(float(steps)))[1])(params)


def first_step(optimizer, gradient, params=None):
    return jax.jit(lambda g, p: optimizer.update(g, optimizer.init(g), p))(gradient, params)[0]


def assert_close(ours, theirs, rtol=ROUND_OFF):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), ours, theirs)


OPTIONS = {
    "default": {},
    "plain momentum": {"nesterov": False, "beta": 0.9},
    "decay and its mask": {
        "weight_decay": 0.1,
        "adam_weight_decay": 0.2,
        "weight_decay_mask": lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
    },
    "consistent rms": {"consistent_rms": 0.2, "adam_learning_rate": 1e-3, "adam_b1": 0.8, "adam_b2": 0.95},
    "schedules": {"learning_rate": optax.linear_schedule(0.1, 0.0, 4), "adam_learning_rate": optax.linear_schedule(0.0, 0.1, 4)},
    "table": {"ns_coeffs": ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037))},
    "fewer steps": {"ns_steps": 3},
    "large ε": {"eps": 0.1, "adam_eps_root": 0.01},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_o3_trajectory_is_that_of_optax(options):
    options = {"learning_rate": 0.05} | options
    params = tree(SHAPES)
    assert_close(trajectory(muon(**options), params), trajectory(optax.contrib.muon(**options), params))


def test_adaptive_is_that_of_optax():
    params = tree({"a": (3, 5), "bias": (4,)})
    assert_close(trajectory(muon(0.01, adaptive=True), params), trajectory(optax.contrib.muon(0.01, adaptive=True), params), rtol=1e-4)


def test_dimension_numbers_are_those_of_optax():
    params = tree(STACKED)
    ours = muon(0.05, muon_weight_dimension_numbers=DIMENSIONS, weight_decay=0.1)
    theirs = optax.contrib.muon(0.05, muon_weight_dimension_numbers=DIMENSIONS, weight_decay=0.1)
    assert_close(trajectory(ours, params), trajectory(theirs, params))
    axes = {"conv": MatrixAxes((0, 1, 2), (3,)), "experts": MatrixAxes((-1,), (-2,)), "linear": MatrixAxes((1,), (0,)), "embedding": None}
    as_axes = muon(0.05, muon_weight_dimension_numbers=lambda _: axes, weight_decay=0.1)
    assert_close(trajectory(as_axes, params), trajectory(ours, params), rtol=1e-7)


@pytest.mark.parametrize("adaptive", [False, True])
def test_each_expert_is_orthogonalised_alone(adaptive):
    params = tree({"experts": (3, 4, 6)})
    numbers = {"experts": MuonDimensionNumbers(-1, -2)}
    together = first_step(muon(0.1, muon_weight_dimension_numbers=numbers, adaptive=adaptive), params)
    one = muon(0.1, muon_weight_dimension_numbers=MuonDimensionNumbers(1, 0), adaptive=adaptive)
    alone = jax.jit(lambda experts: [one.update(expert, one.init(expert))[0] for expert in experts])(params["experts"])
    np.testing.assert_allclose(together["experts"], alone, rtol=1e-5, atol=ROUND_OFF)


def test_orientation_tells_in_the_shape_factor_alone():
    weight = tree({"w": (8, 2)})
    as_equinox = muon(0.1, muon_weight_dimension_numbers=MuonDimensionNumbers(1, 0))
    as_optax = muon(0.1)
    up, down = (first_step(optimizer, weight)["w"] for optimizer in (as_equinox, as_optax))
    np.testing.assert_allclose(up, 2 * np.asarray(down), rtol=ROUND_OFF, atol=1e-8)


def test_o4_consistent_rms_with_the_exact_factor():
    weights = tree([(6, 6), (9, 4), (3, 8)])
    for step in first_step(muon(1.0, consistent_rms=0.2, method="svd"), weights):
        np.testing.assert_allclose(np.sqrt((np.asarray(step) ** 2).mean()), 0.2, rtol=ROUND_OFF)


def test_t2_weight_decay_bounds_the_spectral_norm():
    rate, decay = 0.1, 0.5
    first = jax.tree.map(lambda w: 3 * w, tree({"w": (6, 6)}))
    weights = trajectory(muon(rate, weight_decay=decay), first, steps=100)["w"]
    norms = np.linalg.norm(weights, 2, axis=(1, 2))
    start = np.linalg.norm(first["w"], 2)
    shrink = (1 - rate * decay) ** np.arange(1.0, 101.0)
    bound = np.asarray(spectral_norm_bound(float(start), rate, decay, jnp.arange(1, 101), step_norm=1.2024))
    np.testing.assert_allclose(bound, shrink * start + (1 - shrink) * 1.2024 / decay, rtol=1e-5)
    assert (norms <= bound * (1 + ROUND_OFF)).all() and (bound <= max(start, 1.2024 / decay) * (1 + ROUND_OFF)).all()
    np.testing.assert_allclose(spectral_norm_bound(2.0, 0.1, 0.0, 30, step_norm=1.5), 2.0 + 30 * 0.1 * 1.5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"norm must be at least 0, got -1\.0"):
        spectral_norm_bound(-1.0, rate, decay, 1, step_norm=1.0)


def test_dimension_numbers_of_an_equinox_model():
    class Net(eqx.Module):
        embedding: eqx.nn.Embedding
        conv: eqx.nn.Conv2d
        strided: Convolution
        experts: eqx.nn.Linear
        norm: eqx.nn.LayerNorm
        readout: eqx.nn.Linear

    @eqx.filter_jit
    def draw(key):
        experts = eqx.filter_vmap(lambda k: eqx.nn.Linear(4, 6, key=k))(jax.random.split(key, 3))
        return Net(
            eqx.nn.Embedding(5, 4, key=key), eqx.nn.Conv2d(3, 8, 3, key=key), Convolution(3, 8, key=key), experts,
            eqx.nn.LayerNorm(4), eqx.nn.Linear(4, 2, key=key),
        )  # fmt: skip

    net = draw(jax.random.key(0))
    numbers = muon_dimension_numbers(net)
    assert numbers.conv.weight == MuonDimensionNumbers((1, 2, 3), (0,)) and numbers.strided.weight == MuonDimensionNumbers((0, 1, 2), (3,))
    assert numbers.experts.weight == MuonDimensionNumbers((2,), (1,))
    others = (numbers.embedding.weight, numbers.norm.weight, numbers.readout.weight, numbers.conv.bias, numbers.experts.bias)
    assert all(number is None for number in others)
    params = eqx.filter(net, eqx.is_inexact_array)
    for optimizer in (muon(0.1, muon_weight_dimension_numbers=lambda _: numbers), muon(0.1, muon_weight_dimension_numbers=numbers)):
        updates = first_step(optimizer, params)
        flat = np.asarray(updates.strided.weight).reshape(27, 8)
        assert np.linalg.norm(flat, 2) < 0.12 and (np.abs(updates.embedding.weight) > 0.099).all()


def test_the_steepest_step_of_a_complex_matrix():
    real, imaginary = np.random.default_rng(0).normal(size=(2, 3, 4))
    matrix = (real + 1j * imaginary).astype(np.complex64)
    step = first_step(scale_by_muon(beta=0.0, nesterov=False, adaptive=True, method="svd"), matrix)
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(step, s.sum() * (u @ vh), rtol=1e-4, atol=1e-4)


def test_complex_kernels_are_moved_as_the_matrices_they_are_folded_to():
    real, imaginary = np.random.default_rng(1).normal(size=(2, 3, 2, 2))
    kernel = (real + 1j * imaginary).astype(np.complex64)
    step = first_step(scale_by_muon(beta=0.0, nesterov=False, method="svd", weight_dimension_numbers=MatrixAxes((1, 2), (0,))), kernel)
    flat = first_step(scale_by_muon(beta=0.0, nesterov=False, method="svd"), kernel.reshape(3, 4))
    np.testing.assert_allclose(np.abs(step), np.abs(flat).reshape(3, 2, 2), rtol=1e-4, atol=1e-5)


def test_momentum_is_stored_as_it_is_told_to():
    state = muon(0.1, mu_dtype="bfloat16").init(tree(SHAPES))
    dtypes = [str(leaf.dtype) for leaf in jax.tree.leaves(state)]
    # A momentum of each of five leaves; the squares of the two that Adam moves stay.
    assert dtypes.count("bfloat16") == 5 and dtypes.count("float32") == 2


def test_zero_and_not_a_number():
    params = tree(SHAPES)
    optimizer = muon(0.1)
    zero, update = optax.tree.zeros_like(params), jax.jit(optimizer.update)
    updates, state = update(zero, optimizer.init(params), params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))
    bad = {**zero, "tall": jnp.asarray(np.where(np.arange(28).reshape(7, 4) == 0, np.nan, 0), jnp.float32)}
    updates, _ = update(bad, state, params)
    assert np.isnan(updates["tall"]).all() and not np.asarray(updates["wide"]["a"]).any()


def test_half_precision_is_computed_in_single():
    weight = np.asarray(tree((6, 8))).astype(jnp.bfloat16)
    optimizer = muon(0.1, mu_dtype=jnp.float32)
    updates, state = jax.jit(lambda w: optimizer.update(w, optimizer.init(w)))(weight)
    wide = first_step(muon(0.1), weight.astype(np.float32))
    assert updates.dtype == jnp.bfloat16 and np.allclose(np.asarray(updates, np.float32), wide, atol=2e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -0.1}, r"learning_rate must be at least 0, got -0\.1"),
        ({"adam_learning_rate": -1.0}, r"adam_learning_rate must be at least 0, got -1\.0"),
        ({"weight_decay": -1.0}, r"weight_decay must be at least 0, got -1\.0"),
        ({"weight_decay": 11.0}, r"learning_rate times weight_decay must be at most 1, .* got 0\.1 × 11\.0"),
        ({"adam_learning_rate": 2.0, "adam_weight_decay": 1.0}, r"adam_learning_rate times adam_weight_decay must be at most 1"),
        ({"adam_weight_decay": 11.0}, r"adam_learning_rate times adam_weight_decay must be at most 1, .* got 0\.1 × 11\.0"),
        ({"beta": 1.0}, r"beta must lie in \[0, 1\), got 1\.0"),
        ({"eps": -1e-8}, r"eps must be at least 0, got -1e-08"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        muon(**({"learning_rate": 0.1} | options))


def test_wrong_labels_name_the_leaf():
    params = {"layer": {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}}
    matrix = MuonDimensionNumbers()
    for optimizer in (
        muon(0.1, muon_weight_dimension_numbers={"layer": {"w": matrix, "b": matrix}}),
        muon(0.1, muon_weight_dimension_numbers=matrix),
        scale_by_muon(),
    ):
        with pytest.raises(ValueError, match=r"parameter \['layer'\]\['b'\] of shape \(2,\) is no matrix: give it None"):
            optimizer.init(params)
    with pytest.raises(ValueError, match=r"parameter \['layer'\]\['w'\] of shape \(2, 3\): no axis may be named twice"):
        muon(0.1, muon_weight_dimension_numbers={"layer": {"w": MuonDimensionNumbers(0, 0), "b": None}}).init(params)
    with pytest.raises(ValueError, match=r"parameter \['layer'\]\['w'\] needs MuonDimensionNumbers, MatrixAxes or None, got 'muon'"):
        muon(0.1, muon_weight_dimension_numbers=lambda _: {"layer": {"w": "muon", "b": None}}).init(params)
    with pytest.raises(ValueError, match="did you mean 'dion'"):
        trajectory(muon(0.1, ns_coeffs="dian"), tree({"w": (2, 2)}), steps=1)
