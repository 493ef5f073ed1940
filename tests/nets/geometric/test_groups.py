import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.nets.geometric import (
    Group,
    Representation,
    act_on_grid,
    compare_outputs,
    cyclic,
    dihedral,
    equivariance_error,
    intertwiner_basis,
    irreducible,
    mirror,
    moved_inputs,
    octahedral,
    on_grid,
    random_motions,
    random_permutations,
    regular,
    reynolds,
    standard,
    symmetric,
    trivial,
    unchanged,
)

ROUND_OFF = 1e-12
GROUPS = [cyclic(1), cyclic(4), cyclic(6), dihedral(4), mirror(), octahedral(), symmetric(4)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_tables_are_those_of_groups(group):
    everyone = np.arange(group.order)
    assert (np.sort(group.table, axis=1) == everyone).all() and (np.sort(group.table, axis=0) == everyone[:, None]).all()
    assert (group.table[everyone, group.inverse] == 0).all() and (group.table[0] == everyone).all()
    left = group.table[group.table]
    right = group.table[everyone[:, None, None], group.table[None]]
    assert (left == right).all()


def test_trap_a_cube_has_24_rotations_and_48_symmetries():
    assert octahedral().order == 24 and octahedral(reflections=True).order == 48
    assert (np.linalg.det(octahedral().matrices) > 0.5).all()


def test_trap_a_dihedral_group_has_a_turn_and_a_reflection():
    d3 = dihedral(3)
    assert d3.order == 6 and d3.table[1, 3] != d3.table[3, 1]


@pytest.mark.parametrize("group", GROUPS[1:6], ids=lambda group: group.name)
def test_representations_multiply_as_the_group_does(group):
    for rho in (trivial(group), regular(group), standard(group), regular(group) + standard(group), standard(group) * standard(group)):
        g, h = group.order - 1, 1
        np.testing.assert_allclose(rho.matrices[g] @ rho.matrices[h], rho.matrices[group.table[g, h]], atol=ROUND_OFF)


def test_the_regular_representation_moves_functions():
    group = dihedral(4)
    x = np.arange(8.0)
    for g in range(8):
        # (ρ(g)x)(h) = x(g⁻¹h)
        assert (regular(group)(g, x) == x[group.table[group.inverse[g]]]).all()


def test_irreducible_orders_turn_by_multiples_of_the_angle():
    rho = irreducible(dihedral(8), 3)
    angle = 3 * np.pi / 4
    np.testing.assert_allclose(rho.matrices[1], [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Different orders have nothing in common; each commutes with itself, and with the turns alone in two ways.
    assert len(intertwiner_basis(rho, irreducible(dihedral(8), 2))) == 0
    assert len(intertwiner_basis(rho, rho)) == 1 and len(intertwiner_basis(irreducible(cyclic(8), 3), irreducible(cyclic(8), 3))) == 2


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("make", [cyclic, dihedral])
def test_irreducible_representations_are_all_there_are(make, n):
    group = make(n)
    orders = [(order, reflected) for order in range(n // 2 + 1) for reflected in (False, True)]
    ends = (0, n / 2)
    found = [irreducible(group, k, reflected=r) for k, r in orders if not r or (make is dihedral and k in ends)]
    # None is another's, and the regular one holds as much of each as there is room for: together they fill it.
    for a in found:
        assert [len(intertwiner_basis(a, b)) > 0 for b in found] == [a is b for b in found]
    within = sum(len(intertwiner_basis(rho, regular(group))) * rho.dim / len(intertwiner_basis(rho, rho)) for rho in found)
    assert within == group.order


@pytest.mark.parametrize(("n", "expected"), [(2, (2, 8, 4, 2)), (3, (2, 14, 5, 2)), (4, (2, 15, 5, 2)), (5, (2, 15, 5, 2))])
def test_o2_dimensions_of_linear_equivariants(n, expected):
    things = standard(symmetric(n))
    pairs = things * things
    spaces = ((things, things), (pairs, pairs), (pairs, things), (pairs, trivial(things.group)))
    assert tuple(len(intertwiner_basis(*space)) for space in spaces) == expected


@pytest.mark.parametrize(("group", "expected"), [(cyclic(4), (3, 7, 13)), (dihedral(4), (3, 6, 10))], ids=["C4", "D4"])
def test_o3_invariant_kernels(group, expected):
    for side, dimension in zip((3, 5, 7), expected, strict=True):
        kernels = on_grid(group, side=side)
        basis = intertwiner_basis(trivial(group), kernels)
        assert len(basis) == dimension
        # The character formula says the same.
        assert round(np.trace(kernels.matrices, axis1=1, axis2=2).mean()) == dimension


def test_o3_the_group_average_is_a_projection():
    group, rho = dihedral(4), standard(dihedral(4))
    weights = np.random.default_rng(0).normal(size=(2, 2))
    once = reynolds(lambda x: np.tanh(weights @ x) + x**2, group, rho, rho)
    twice = reynolds(once, group, rho, rho)
    x = np.array([0.3, -1.2])
    np.testing.assert_allclose(twice(x), once(x), atol=ROUND_OFF)
    assert equivariance_error(lambda x: once(np.asarray(x, np.float64)), group, x, rho, rho).worst < ROUND_OFF


def test_the_average_of_a_linear_map_lies_in_the_intertwiners():
    group = cyclic(4)
    rho_in, rho_out = regular(group), standard(group)
    weights = np.random.default_rng(1).normal(size=(2, 4))
    average = np.stack([reynolds(lambda x: weights @ x, group, rho_in, rho_out)(e) for e in np.eye(4)], axis=1)
    basis = intertwiner_basis(rho_in, rho_out)
    inside = np.einsum("kij,kab,ab->ij", basis, basis, average)
    np.testing.assert_allclose(inside, average, atol=ROUND_OFF)
    np.testing.assert_allclose(np.einsum("kij,lij->kl", basis, basis), np.eye(len(basis)), atol=ROUND_OFF)


def test_trap_a_linear_invariant_sees_the_average_alone():
    group = dihedral(4)
    assert len(intertwiner_basis(standard(group), trivial(group))) == 0


@given(st.integers(0, 7), st.integers(0, 7), st.integers(1, 6))
def test_grids_turn_as_the_group_multiplies(g, h, side):
    group, act = dihedral(4), act_on_grid(dihedral(4))
    x = np.random.default_rng(side).normal(size=(side, side, 2))
    assert (act(g, act(h, x)) == act(group.table[g, h], x)).all()


def test_trap_axes_of_a_grid_are_coordinates_in_order():
    x = np.random.default_rng(0).normal(size=(4, 4, 2))
    assert all((act_on_grid(cyclic(4))(k, x) == np.rot90(x, k)).all() for k in range(4))
    cube = np.random.default_rng(0).normal(size=(3, 3, 3))
    group, act = octahedral(), act_on_grid(octahedral())
    assert all((act(g, act(5, cube)) == act(group.table[g, 5], cube)).all() for g in range(24))


def test_errors_are_those_of_every_element():
    turn = act_on_grid(cyclic(4))
    image = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    # Flipping commutes with half a turn only.
    errors = equivariance_error(lambda x: x[::-1], cyclic(4), image, turn, turn)
    assert errors.relative[0] == errors.relative[2] == 0 and min(errors.relative[1], errors.relative[3]) > 0.1
    assert errors.worst == errors.relative.max() and (errors.absolute >= errors.relative * np.abs(image).max() - 1e-6).all()


def test_trap_one_element_is_not_enough():
    turn = act_on_grid(cyclic(4))
    image = np.random.default_rng(0).normal(size=(4, 4))
    assert equivariance_error(lambda x: x[::-1], [2], image, turn, turn).worst == 0


def test_errors_of_outputs_from_one_batched_call():
    rho, x = standard(symmetric(3)), np.array([1.0, 2.0, 4.0], np.float32)
    inputs = np.stack(moved_inputs(rho.group, x, rho))
    assert inputs.shape == (7, 3)
    batched = compare_outputs(rho.group, list(inputs**2), rho)
    alone = equivariance_error(lambda x: x**2, rho.group, x, rho, rho)
    assert batched.worst == alone.worst == 0


def test_motions_are_rigid_and_of_both_signs():
    motions = random_motions(jax.random.key(1), 6)
    points = np.random.default_rng(0).normal(size=(5, 3))
    for move in motions:
        moved = move(points)
        np.testing.assert_allclose(np.linalg.norm(moved[0] - moved[1]), np.linalg.norm(points[0] - points[1]))
    signs = [np.linalg.det(move.turn) for move in motions]
    np.testing.assert_allclose(signs, [1, -1, 1, -1, 1, -1])
    assert all(np.linalg.det(move.turn) > 0 for move in random_motions(jax.random.key(1), 6, reflections=False))
    assert all(sorted(order) == list(range(7)) for order in random_permutations(jax.random.key(0), 3, size=7))


def test_what_is_no_group_is_refused():
    turns = cyclic(4).matrices
    with pytest.raises(ValueError, match="X must hold all products of its elements, got none for elements 1 and 1"):
        Group("X", turns[:2])
    with pytest.raises(ValueError, match="the first matrix of X must be the identity"):
        Group("X", turns[1:])
    with pytest.raises(ValueError, match="elements of X must differ, got 4 twice"):
        Group("X", np.concatenate([turns, turns]))
    for make in (cyclic, dihedral):
        with pytest.raises(ValueError, match="n must be at least 1, got 0"):
            make(0)
    with pytest.raises(ValueError, match="n must lie between 1 and 6, got 7"):
        symmetric(7)


def test_what_is_no_representation_is_refused():
    group = cyclic(4)
    with pytest.raises(ValueError, match="X needs 4 matrices, one for each element of C4, got 2"):
        Representation("X", group, np.ones((2, 1, 1)))
    with pytest.raises(ValueError, match=r"X is no representation of C4: ρ\(g\)ρ\(h\) differs from ρ\(gh\) by 2"):
        Representation("X", group, np.array([1.0, -1, -1, 1]).reshape(4, 1, 1))
    for wrong in (lambda: regular(group) + regular(dihedral(4)), lambda: intertwiner_basis(regular(group), trivial(mirror()))):
        with pytest.raises(ValueError, match="both representations must be of one group, got C4 and"):
            wrong()
    with pytest.raises(ValueError, match="order must lie between 0 and half the turns, 2, got 3 for C4"):
        irreducible(group, 3)
    with pytest.raises(ValueError, match="group must act on the plane, got O of dimension 3"):
        irreducible(octahedral(), 1)
    for wrong, order in ((group, 0), (dihedral(4), 1)):
        with pytest.raises(ValueError, match=f"reflected must be False for order {order} of {wrong.name}: it has no second kind"):
            irreducible(wrong, order, reflected=True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="C6 does not map a grid to itself"):
        act_on_grid(cyclic(6))
    with pytest.raises(ValueError, match=r"the first 2 axes must be of one length, got \(3, 4\)"):
        act_on_grid(cyclic(4))(1, np.ones((3, 4)))
    with pytest.raises(ValueError, match="elements must hold at least one, got none"):
        equivariance_error(lambda x: x, [], np.ones(2), unchanged)
    with pytest.raises(ValueError, match=r"act_out must give the shape of f's output, got \(3,\) for \(4,\) with element 0"):
        equivariance_error(lambda x: x, cyclic(1), np.ones(4), unchanged, lambda g, y: y[:3])


def test_shifts_of_motions_have_the_size_that_is_asked_for():
    assert not any(move.shift.any() for move in random_motions(jax.random.key(1), 3, shift=0.0))
    one, other = (random_motions(jax.random.key(1), 3, shift=size) for size in (1.0, 4.0))
    assert all(np.allclose(4 * a.shift, b.shift) and np.array_equal(a.turn, b.turn) for a, b in zip(one, other, strict=True))
