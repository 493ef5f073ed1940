import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.nets.geometric import GaugeConv, NormGate, field_size, icosphere, log_map_edges, turn_field

ROUND_OFF = 1e-9
ORDERS_IN, HIDDEN, ORDERS_OUT = (0, 1), (0, 0, 1, 2, 3), (0, 1, 2)
N = 42


@pytest.fixture(scope="module", autouse=True)
def everything_in_double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def edges():
    mesh = icosphere(1)
    return log_map_edges(mesh.moved(mesh.vertices * (1 + 0.2 * np.random.default_rng(0).random((N, 3)))))


def drawn(make, seed):
    """A layer whose weights and biases are random, from the host."""
    random = np.random.default_rng(seed)
    shapes = eqx.filter_eval_shape(make)
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.device_put(random.normal(size=leaf.shape)) if is_shape(leaf) else leaf, shapes, is_leaf=is_shape)


@pytest.fixture(scope="module")
def layers():
    first = drawn(lambda: GaugeConv(ORDERS_IN, HIDDEN, n_radial=2, key=jax.random.key(0)), 0)
    return first, drawn(lambda: NormGate(HIDDEN), 1), drawn(lambda: GaugeConv(HIDDEN, ORDERS_OUT, key=jax.random.key(0)), 2)


@eqx.filter_jit
def both_ways(layers, edges, x, frames):
    """The output, it turned, and that of everything turned."""
    first, gate, last = layers

    def network(edges, x):
        return last(edges, gate(first(edges, x)))

    plain = network(edges, x)
    return plain, turn_field(plain, ORDERS_OUT, frames), network(edges.turned(frames), turn_field(x, ORDERS_IN, frames))


@pytest.fixture(scope="module")
def x():
    return jax.device_put(np.random.default_rng(1).normal(size=(N, field_size(ORDERS_IN))))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_oracle_outputs_turn_with_the_frames(layers, edges, x, seed):
    frames = np.random.default_rng(seed).uniform(-9, 9, N)
    plain, turned_after, turned = map(np.asarray, both_ways(layers, edges, x, frames))
    np.testing.assert_allclose(turned, turned_after, atol=ROUND_OFF)
    # Numbers do not change at all, but vectors do.
    np.testing.assert_allclose(turned[:, 0], plain[:, 0], atol=ROUND_OFF)
    assert np.abs(turned[:, 1:] - plain[:, 1:]).max() > 1e-2


def test_trap_without_transport_or_with_rectified_vectors_the_frames_matter(layers, edges, x):
    first, gate, last = layers
    frames = jnp.linspace(-3, 3, N)
    untransported = eqx.tree_at(lambda e: e.reverse, edges, jnp.arange(len(edges.reverse), dtype=edges.reverse.dtype))

    def outputs(edges, x):
        hidden = first(edges, x)
        return last(edges, gate(hidden)), last(edges, jnp.maximum(hidden, 0))

    def error(edges, which):
        plain = outputs(edges, x)[which]
        turned = outputs(edges.turned(frames), turn_field(x, ORDERS_IN, frames))[which]
        expected = np.asarray(turn_field(plain, ORDERS_OUT, frames))
        return np.abs(np.asarray(turned) - expected).max() / np.abs(expected).max()

    assert error(edges, 0) < ROUND_OFF and error(untransported, 0) > 1e-2 and error(edges, 1) > 1e-2


def explicit(layer, edges, x, half_turn):
    """The layer from transports, entry by entry; with half a turn too many if told so."""
    m, n = layer.in_orders, layer.out_orders
    columns = np.cumsum([0, *(1 if order == 0 else 2 for order in m)])
    z = np.stack([x[:, c] + (1j * x[:, c + 1] if order else 0) for c, order in zip(columns[:-1], m, strict=True)], axis=1)
    theta, g = np.asarray(edges.angles), np.asarray(edges.transport()) + np.pi * half_turn
    weights = (np.asarray(part) for part in (layer.direct, layer.conjugate, layer.own))
    alpha, beta, gamma = (part[..., 0, :, :] + 1j * part[..., 1, :, :] for part in weights)
    out = np.zeros((N, len(n)), complex)
    counts = np.bincount(np.asarray(edges.receivers))
    for i in range(len(n)):
        for j in range(len(m)):
            carried = z[np.asarray(edges.senders), j] * np.exp(1j * m[j] * g)
            made = alpha[0, i, j] * np.exp(1j * (n[i] - m[j]) * theta) * carried
            made += beta[0, i, j] * np.exp(1j * (n[i] + m[j]) * theta) * carried.conj()
            np.add.at(out[:, i], np.asarray(edges.receivers), made / counts[np.asarray(edges.receivers)])
            out[:, i] += gamma[i, j] * z[:, j] * (n[i] == m[j])
    return np.concatenate([part for i, order in enumerate(n) for part in ([out[:, i].real], [out[:, i].imag])[: 1 + (order > 0)]]).T


def test_trap_half_a_turn_too_many_shows_in_odd_orders_alone(edges):
    orders = (1, 2, 3, 0)
    layer = drawn(lambda: GaugeConv(orders, (2, 0), bias=False, key=jax.random.key(0)), 3)
    x = np.random.default_rng(4).normal(size=(N, field_size(orders)))
    for order, columns in ((1, slice(0, 2)), (2, slice(2, 4)), (3, slice(4, 6)), (0, slice(6, 7))):
        alone = np.zeros_like(x)
        alone[:, columns] = x[:, columns]
        found = np.asarray(layer(edges, jax.device_put(alone)))
        np.testing.assert_allclose(found, explicit(layer, edges, alone, 0), atol=ROUND_OFF)
        assert (np.abs(found - explicit(layer, edges, alone, 1)).max() > 1e-2) == (order % 2 == 1)


def kernel_dimension(m, n, sign):
    """Of kernels with angular frequencies up to 7 that turn as they must, by the null space of the conditions."""

    def turn(order, a):
        c, s = np.cos(order * a), np.sin(order * a)
        return np.eye(1) if order == 0 else np.array([[c, -s], [s, c]])

    def waves(t):
        return np.array([1, *(f(k * t) for k in range(1, 8) for f in (np.cos, np.sin))])

    rows = []
    for a in (0.3, 1.1):
        for t in np.linspace(0, 6, 17):
            left = np.kron(waves(t - a)[None], np.kron(np.eye(len(turn(n, a))), turn(m, sign * a).T))
            right = np.kron(waves(t)[None], np.kron(turn(n, sign * a), np.eye(len(turn(m, a)))))
            rows.append(left - right)
    matrix = np.concatenate(rows)
    return matrix.shape[1] - np.linalg.matrix_rank(matrix, tol=1e-8)


@pytest.mark.parametrize(("m", "n", "expected"), [(0, 0, 1), (0, 2, 2), (1, 0, 2), (1, 1, 4), (1, 2, 4), (3, 2, 4)])
def test_oracle_kernels_are_as_many_as_there_can_be(m, n, expected):
    assert kernel_dimension(m, n, -1) == expected


def test_oracle_kernels_of_the_layer_are_all_that_there_can_be(edges):
    orders = (0, 1, 2)
    layer = drawn(lambda: GaugeConv(orders, orders, bias=False, key=jax.random.key(0)), 5)
    layer = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape)), layer)
    x = jax.device_put(np.random.default_rng(6).normal(size=(N, field_size(orders))))
    for i, n in enumerate(orders):
        for j, m in enumerate(orders):
            outputs = []
            for kernel in ("direct", "conjugate"):
                for part in (0, 1):
                    weight = np.zeros((1, 2, 3, 3))
                    weight[0, part, i, j] = 1
                    one = eqx.tree_at(lambda module, kernel=kernel: getattr(module, kernel), layer, jnp.asarray(weight))
                    outputs.append(np.asarray(one(edges, x)).ravel())
            assert np.linalg.matrix_rank(outputs, tol=1e-8) == (1 if n == m == 0 else 2 if 0 in (n, m) else 4)


def test_norms_are_gated_where_fields_vanish(layers):
    gate = layers[1]
    slope = jax.jit(jax.grad(lambda x: gate(x).sum()))(np.zeros((2, field_size(HIDDEN))))
    assert np.isfinite(slope).all()


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        mesh = icosphere(0)
        make = lambda edges, x: GaugeConv((0,), (1,), key=jax.random.key(0))(edges, x)  # noqa: E731
        out = eqx.filter_eval_shape(make, log_map_edges(mesh), jnp.ones((12, 1)))
        assert out.dtype == jnp.float32 and out.shape == (12, 2)


def test_what_cannot_be_is_refused(edges):
    with pytest.raises(ValueError, match=r"orders must be at least one number, none below 0, got \(0, -1\)"):
        GaugeConv((0, -1), (0,), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"orders must be at least one number, none below 0, got \(\)"):
        NormGate(())
    with pytest.raises(ValueError, match="n_radial must be at least 1, got 0"):
        GaugeConv((0,), (0,), n_radial=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"x must have shape \(42, 3\) for orders \(0, 1\), got \(42, 2\)"):
        GaugeConv((0, 1), (0,), key=jax.random.key(0))(edges, jnp.ones((42, 2)))


def test_kernels_are_polynomials_of_the_distance_in_mean_lengths(edges):
    layer = drawn(lambda: GaugeConv((0, 1), (0, 2), n_radial=3, key=jax.random.key(0)), 7)
    x = np.random.default_rng(8).normal(size=(N, 3))
    z = np.stack([x[:, 0] + 0j, x[:, 1] + 1j * x[:, 2]], axis=1)
    receivers, senders, near = (np.asarray(part) for part in (edges.receivers, edges.senders, edges.lengths / edges.lengths.mean()))
    theta, g, counts = np.asarray(edges.angles), np.asarray(edges.transport()), np.bincount(receivers)
    weights = map(np.asarray, (layer.direct, layer.conjugate, layer.own))
    alpha, beta, gamma = (part[..., 0, :, :] + 1j * part[..., 1, :, :] for part in weights)
    out = np.zeros((N, 2), complex)
    for i, j in np.ndindex(2, 2):
        n, m = (0, 2)[i], (0, 1)[j]
        carried = z[senders, j] * np.exp(1j * m * g)
        for k in range(3):
            made = alpha[k, i, j] * np.exp(1j * (n - m) * theta) * carried + beta[k, i, j] * np.exp(1j * (n + m) * theta) * carried.conj()
            np.add.at(out[:, i], receivers, near**k * made / counts[receivers])
        out[:, i] += gamma[i, j] * z[:, j] * (n == m)
    out[:, 0] += np.asarray(layer.bias)[0]
    expected = np.stack([out[:, 0].real, out[:, 1].real, out[:, 1].imag], axis=1)
    np.testing.assert_allclose(layer(edges, jax.device_put(x)), expected, atol=ROUND_OFF)


def test_the_gate_is_that_of_its_equation():
    gate, x = drawn(lambda: NormGate((0, 2)), 9), np.random.default_rng(10).normal(size=(4, 3))
    (a, c), (b, d) = np.asarray(gate.slope), np.asarray(gate.shift)
    length = np.linalg.norm(x[:, 1:], axis=1, keepdims=True)
    expected = np.concatenate([x[:, :1] / (1 + np.exp(-a * x[:, :1] - b)), x[:, 1:] / (1 + np.exp(-c * length - d))], axis=1)
    np.testing.assert_allclose(gate(jax.device_put(x)), expected, atol=1e-9)
