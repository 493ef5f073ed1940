import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import (
    CyclicConv,
    GroupConv,
    GroupLift,
    GroupPool,
    Representation,
    act_on_grid,
    act_on_maps,
    blur_pool,
    circulant,
    compare_outputs,
    cyclic,
    dihedral,
    equivariance_error,
    mirror,
    moved_inputs,
    octahedral,
)

# Products of single precision, two layers deep.
ROUND_OFF = 1e-5


def noisy(net, seed=0):
    """Random biases too: with zeros an error can hide."""
    random = np.random.default_rng(seed)
    arrays, others = eqx.partition(net, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda leaf: jax.device_put(random.normal(size=leaf.shape).astype(np.float32)), arrays), others)


class Two(eqx.Module):
    lift: GroupLift
    conv: GroupConv

    def __call__(self, x):
        lifted = self.lift(x)
        return lifted, self.conv(jax.nn.relu(lifted))


def two(group, **settings):
    key = jax.random.key(0)
    shapes = eqx.filter_eval_shape(
        lambda: Two(GroupLift(2, 3, group=group, key=key, **settings), GroupConv(3, 2, group=group, key=key, **settings))
    )
    # Not drawn, for these weights are overwritten.
    return noisy(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes))


@eqx.filter_jit
def call(nets, stacks):
    """Every network on its own stack of inputs, as one program."""
    return [jax.vmap(net)(stack) for net, stack in zip(nets, stacks, strict=True)]


def image(side, dim=2, channels=2):
    return np.random.default_rng(3).normal(size=(*(side,) * dim, channels)).astype(np.float32)


def shifted(step, x):
    return np.roll(x, step, axis=(0, 1))


CASES = {
    "C4": (two(cyclic(4)), image(5), cyclic(4), None),
    "D4": (two(dihedral(4)), image(6), dihedral(4), None),
    "D4, stride": (two(dihedral(4), stride=2), image(9), dihedral(4), None),
    "O": (two(octahedral()), image(3, 3), octahedral(), None),
    "shifts": (two(cyclic(4), padding="circular"), image(5), [(1, 0), (0, 2), (3, 4)], shifted),
    "zeros": (two(cyclic(4)), image(5), [(1, 0), (0, 2), (3, 4)], shifted),
}


@pytest.fixture(scope="module")
def outputs():
    acts = {name: act or act_on_grid(elements) for name, (_, _, elements, act) in CASES.items()}
    stacks = [np.stack(moved_inputs(elements, x, acts[name])) for name, (_, x, elements, _) in CASES.items()]
    found = jax.device_get(call([case[0] for case in CASES.values()], stacks))
    return dict(zip(CASES, found, strict=True))


def errors_of(outputs, name, act=None):
    _, _, elements, shift = CASES[name]
    on_maps = act or shift or act_on_maps(elements)
    pairs = list(zip(*outputs[name], strict=True))
    return compare_outputs(elements, pairs, lambda g, y: tuple(on_maps(g, part) for part in y))


@pytest.mark.parametrize("name", ["C4", "D4", "D4, stride", "O", "shifts"])
def test_o4_maps_turn_and_orientations_are_shifted(outputs, name):
    assert errors_of(outputs, name).worst < ROUND_OFF


def test_o4_a_quarter_turn_shifts_orientations_by_one(outputs):
    lifted = outputs["C4"][0]
    # Entry 0 is of the image itself, entry 1 + k of the image turned k times.
    expected = np.rot90(lifted[0], axes=(0, 1))[:, :, [3, 0, 1, 2]]
    np.testing.assert_allclose(lifted[2], expected, rtol=1e-5, atol=1e-5)


def test_trap_zero_padding_is_exact_for_turns_and_not_for_shifts(outputs):
    assert errors_of(outputs, "zeros").worst > 0.1


def test_trap_maps_that_are_turned_only_are_not_what_comes_out(outputs):
    assert errors_of(outputs, "C4", act_on_grid(cyclic(4))).worst > 0.1


def test_trap_convolution_is_a_cross_correlation():
    # A filter with its weight beside the centre looks to that side, for every orientation in turn.
    lift = GroupLift(1, 1, group=cyclic(4), key=jax.random.key(0))
    weight, x = np.zeros((3, 3, 1, 1), np.float32), np.zeros((5, 5, 1), np.float32)
    weight[1, 2], x[2, 2] = 1, 1
    lift = eqx.tree_at(lambda net: net.weight, lift, jax.device_put(weight))
    found = np.asarray(eqx.filter_jit(lift)(x))[..., 0]
    assert [tuple(np.argwhere(found[:, :, h])[0].tolist()) for h in range(4)] == [(2, 1), (3, 2), (2, 3), (1, 2)]


def test_reverse_complement_of_strands():
    z2 = mirror()
    bases = Representation("complement", z2, np.stack([np.eye(4), np.eye(4)[::-1]]))
    lift = noisy(GroupLift(4, 2, group=z2, channels=bases, key=jax.random.key(0)))
    strand = np.eye(4, dtype=np.float32)[[0, 1, 1, 2, 3, 0, 2, 2]]
    on_line = act_on_grid(z2)
    f = eqx.filter_jit(lift)
    assert equivariance_error(f, z2, strand, lambda g, x: bases(g, on_line(g, x)), act_on_maps(z2)).worst < ROUND_OFF
    assert equivariance_error(f, z2, strand, on_line, act_on_maps(z2)).worst > 0.1


def test_pooling_over_the_group_and_over_cosets():
    group = dihedral(4)
    x = np.random.default_rng(0).normal(size=(2, 2, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(eqx.filter_jit(GroupPool(group))(x), x.max(axis=2))
    np.testing.assert_allclose(eqx.filter_jit(GroupPool(group, reduce="mean"))(x), x.mean(axis=2), rtol=1e-5, atol=1e-6)
    cosets = GroupPool(group, subgroup=(0, 1, 2, 3))
    assert cosets.cosets == ((0, 1, 2, 3), (4, 5, 6, 7))
    np.testing.assert_allclose(np.asarray(eqx.filter_jit(cosets)(x))[:, :, 1], x[:, :, 4:].max(axis=2))


def test_o1_circulants():
    t = np.array([2.0, -1.0, 0.5, 0, 0, 0])
    C, S = circulant(t), circulant(np.eye(6)[1])
    eigenvalues = np.sort_complex(np.linalg.eigvals(C))
    expected = [1.25 - 0.433013j, 1.25 + 0.433013j, 1.5, 2.25 - 1.299038j, 2.25 + 1.299038j, 3.5]
    np.testing.assert_allclose(eigenvalues, expected, atol=1e-6)
    np.testing.assert_allclose(np.sort_complex(np.fft.fft(t)), expected, atol=1e-6)
    assert np.abs(C @ S - S @ C).max() == 0


def test_a_ring_convolution_is_a_circulant_matrix():
    conv = CyclicConv(1, 1, size=3, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=7).astype(np.float32)
    # W_k looks k ahead.
    t = np.zeros(7, np.float32)
    t[[1, 0, 6]] = np.asarray(conv.weight)[:, 0, 0]
    np.testing.assert_allclose(np.asarray(eqx.filter_jit(conv)(x[:, None]))[:, 0], circulant(t) @ x, rtol=1e-5, atol=1e-6)


def test_trap_strides_and_sizes_that_break_the_symmetry_are_refused():
    key = jax.random.key(0)
    lift = GroupLift(1, 1, group=cyclic(4), stride=2, key=key)
    with pytest.raises(ValueError, match="stride must divide the side less one, 7, to look at the same pixels after a turn, got 2"):
        lift(jnp.ones((8, 8, 1)))
    with pytest.raises(ValueError, match="stride must divide the side, 9, of a ring, got 2"):
        GroupLift(1, 1, group=cyclic(4), stride=2, padding="circular", key=key)(jnp.ones((9, 9, 1)))
    for make in (lambda: GroupLift(1, 1, size=4, group=cyclic(4), key=key), lambda: CyclicConv(1, 1, size=2, key=key)):
        with pytest.raises(ValueError, match="size must be odd"):
            make()
    with pytest.raises(ValueError, match="C6 does not map a grid to itself"):
        GroupLift(1, 1, group=cyclic(6), key=key)
    with pytest.raises(ValueError, match="a ring must be as long as the filter, 5, or longer, got 3"):
        CyclicConv(1, 1, size=5, key=key)(jnp.ones((3, 1)))


@pytest.mark.parametrize(("side", "stride"), [(9, 2), (7, 3)])
def test_blurred_pixels_move_with_the_group_and_constants_stay(side, stride):
    group = dihedral(4)
    x = np.random.default_rng(0).normal(size=(side, side, 8, 2)).astype(np.float32)
    blurred = jax.jit(lambda x: blur_pool(x, stride=stride))
    maps = act_on_maps(group)
    assert equivariance_error(blurred, group, x, maps, maps).worst < ROUND_OFF
    ones = blurred(jnp.ones((side, side, 1)))
    assert ones.shape == ((side - 1) // stride + 1,) * 2 + (1,)
    np.testing.assert_allclose(ones, 1, atol=ROUND_OFF)
    # What alternates from pixel to pixel is gone, where leaving pixels out would keep it.
    waves = (-1.0) ** np.arange(side)
    assert np.abs(np.asarray(blur_pool(jnp.asarray(waves), dim=1, stride=stride))[1:-1]).max() < ROUND_OFF


def test_trap_an_even_side_is_not_blurred():
    with pytest.raises(ValueError, match="stride must divide the side less one, 7, to look at the same pixels after a turn, got 2"):
        blur_pool(jnp.ones((8, 8, 1)))
    with pytest.raises(ValueError, match="stride must divide the side less one, 8, to look at the same pixels after a turn, got 0"):
        blur_pool(jnp.ones((9, 9, 1)), stride=0)


def test_inputs_of_another_group_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"the input must have 8 elements of D4 and 2 channels last, got shape \(5, 5, 4, 2\)"):
        GroupConv(2, 1, group=dihedral(4), key=key)(jnp.ones((5, 5, 4, 2)))
    with pytest.raises(ValueError, match="channels must be a representation of Z2 on 3 channels, got one of Z2 on 4"):
        GroupLift(3, 1, group=mirror(), channels=Representation("x", mirror(), np.stack([np.eye(4)] * 2)), key=key)
    with pytest.raises(ValueError, match=r"subgroup must be closed under products in D4, got elements \[0, 1\]"):
        GroupPool(dihedral(4), subgroup=(0, 1))


def test_one_precision_after_the_other():
    for is_double, dtype in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(is_double):
            lift = GroupLift(1, 2, size=3, group=dihedral(4), key=jax.random.key(0))
            assert eqx.filter_jit(lift)(jnp.ones((5, 5, 1))).dtype == dtype
