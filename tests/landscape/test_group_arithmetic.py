import jax
import numpy as np
import pytest

from gradatim.landscape import (
    FiniteGroup,
    all_pairs,
    critical_train_fraction,
    cyclic_group,
    dihedral_group,
    product_group,
    split_pairs,
    symmetric_group,
)

QUATERNIONS = FiniteGroup(
    np.array(
        # 1, -1, i, -i, j, -j, k, -k
        [
            [0, 1, 2, 3, 4, 5, 6, 7],
            [1, 0, 3, 2, 5, 4, 7, 6],
            [2, 3, 1, 0, 6, 7, 5, 4],
            [3, 2, 0, 1, 7, 6, 4, 5],
            [4, 5, 7, 6, 1, 0, 2, 3],
            [5, 4, 6, 7, 0, 1, 3, 2],
            [6, 7, 4, 5, 3, 2, 1, 0],
            [7, 6, 5, 4, 2, 3, 0, 1],
        ]
    )
)
GROUPS = {
    "cyclic 7": (cyclic_group(7), [1] * 7),
    "cyclic 8": (cyclic_group(8), [1] * 8),
    "dihedral 5": (dihedral_group(5), [1, 1, 2, 2]),
    "symmetric 4": (symmetric_group(4), [1, 1, 2, 3, 3]),
    "3 × S3": (product_group(cyclic_group(3), symmetric_group(3)), [1] * 6 + [2] * 3),
    "quaternions": (QUATERNIONS, [1, 1, 1, 1, 2]),
}
ROUND_OFF = 1e-10  # of eigenvectors and sums of at most 24 products, in double precision


@pytest.mark.parametrize(("group", "dimensions"), GROUPS.values(), ids=GROUPS)
def test_representations_are_unitary_complete_and_multiply_as_the_group(group, dimensions):
    assert [rho.shape[1] for rho in group.irreps] == dimensions and sum(d**2 for d in dimensions) == group.order
    assert group.largest_dimension == max(dimensions)
    for rho in group.irreps:
        assert np.allclose(np.einsum("aij,bjk->abik", rho, rho), rho[group.table], atol=ROUND_OFF)
        assert np.allclose(rho @ rho.conj().swapaxes(1, 2), np.eye(rho.shape[1]), atol=ROUND_OFF)
    orthogonality = group.characters @ group.characters.conj().T / group.order
    assert np.allclose(orthogonality, np.eye(len(dimensions)), atol=ROUND_OFF)


@pytest.mark.parametrize(("group", "dimensions"), GROUPS.values(), ids=GROUPS)
def test_projectors_are_orthogonal_add_up_and_commute_with_both_translations(group, dimensions):
    projectors = group.isotypic_projectors
    products = np.einsum("axy,byz->abxz", projectors, projectors)
    expected = np.zeros_like(products)
    expected[range(len(projectors)), range(len(projectors))] = projectors
    assert np.allclose(products, expected, atol=ROUND_OFF) and np.allclose(projectors.sum(axis=0), np.eye(group.order), atol=ROUND_OFF)
    ranks = [sum(dimensions[k] ** 2 for k in block) for block in group.blocks]
    assert np.allclose(np.trace(projectors, axis1=1, axis2=2), ranks) and np.allclose(projectors[0], 1 / group.order)
    for a in range(group.order):
        for moved in (group.table[a], group.table[:, a]):
            assert np.allclose(projectors[:, moved][:, :, moved], projectors, atol=ROUND_OFF)


def test_frequencies_of_a_cyclic_group_are_in_order():
    k, g = np.meshgrid(range(9), range(9), indexing="ij")
    assert np.allclose(cyclic_group(9).characters, np.exp(2j * np.pi * k * g / 9))
    assert cyclic_group(9).blocks == ((0,), (1, 8), (2, 7), (3, 6), (4, 5))


def test_types_of_representations_over_the_real_numbers():
    assert cyclic_group(6).is_of_real_type.tolist() == [True, False, False, True]
    assert dihedral_group(5).is_of_real_type.all()
    # The quaternions' own representation has a real character, and no real matrices.
    assert QUATERNIONS.is_of_real_type.tolist() == [True] * 4 + [False] and QUATERNIONS.blocks[-1] == (4,)


def test_permutations_compose_from_right_to_left():
    group = symmetric_group(3)
    # Words in order: 123, 132, 213, 231, 312, 321; 213 after 132 sends 1 to 2, 2 to 3 and 3 to 1.
    assert group.table[2, 1] == 3 and group.table[1, 2] == 4
    assert group.table[3, 3] == 4 and group.inverse.tolist() == [0, 1, 2, 4, 3, 5]


BAD = {
    "closed": ([[0, 1], [1, 2]], "closed"),
    "identity": ([[1, 0], [1, 0]], "identity"),
    "inverse": ([[0, 1], [1, 1]], r"inverse, got none for \[1\]"),
    "associative": (
        [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]],
        r"associative, got \(ab\)c ≠ a\(bc\) for a, b, c = 1",
    ),
}


@pytest.mark.parametrize(("table", "axiom"), BAD.values(), ids=BAD)
def test_bad_tables_are_refused_with_the_axiom_they_break(table, axiom):
    with pytest.raises(ValueError, match=axiom):
        FiniteGroup(np.array(table))


def test_a_split_holds_every_pair_once_and_fewer_pairs_of_one_key_are_the_first_of_more():
    group, key = dihedral_group(3), jax.random.key(3)
    (few, others), (many, _) = (split_pairs(group, key=key, n_train=n) for n in (10, 20))
    pairs = np.concatenate([few.pairs, others.pairs])
    assert len(few.labels) == 10 and len({tuple(pair) for pair in pairs.tolist()}) == 36
    assert np.array_equal(np.concatenate([few.labels, others.labels]), group.table[pairs[:, 0], pairs[:, 1]])
    assert np.array_equal(few.pairs, many.pairs[:10])
    assert np.array_equal(all_pairs(group).labels, group.table.ravel())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_fraction": 0.0}, r"train_fraction must lie in \(0, 1\], got 0.0"),
        ({"train_fraction": 1.1}, r"got 1.1"),
        ({"n_train": 0}, r"n_train must lie in \[1, 9\]"),
        ({"n_train": 10}, "got 10"),
        ({}, "give either train_fraction or n_train, got None and None"),
        ({"n_train": 3, "train_fraction": 0.5}, "give either"),
    ],
)
def test_bad_splits_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        split_pairs(cyclic_group(3), key=jax.random.key(0), **settings)


def test_critical_fraction_grows_with_the_square_of_the_dimension():
    assert np.isclose(critical_train_fraction(127), 2.7482 * np.log(127) / 127)
    assert np.isclose(critical_train_fraction(127, 2), 4 * critical_train_fraction(127)) and critical_train_fraction(3) == 1
    for arguments, message in (((1,), "order must be at least 2"), ((5, 0), "largest_dimension must be at least 1")):
        with pytest.raises(ValueError, match=message):
            critical_train_fraction(*arguments)
    with pytest.raises(ValueError, match="constant must be positive, got 0"):
        critical_train_fraction(5, constant=0)


@pytest.mark.parametrize(("make", "size"), [(cyclic_group, 0), (dihedral_group, 0), (symmetric_group, 6)])
def test_sizes_of_groups_are_checked(make, size):
    with pytest.raises(ValueError, match=f"got {size}"):
        make(size)


@pytest.mark.parametrize(("fraction", "n"), [(1e-6, 1), (0.3, 3), (0.4, 4), (1.0, 9)])
def test_a_fraction_of_the_pairs_is_rounded_to_one_at_least(fraction, n):
    train, test = split_pairs(cyclic_group(3), key=jax.random.key(0), train_fraction=fraction)
    assert (len(train.labels), len(test.labels)) == (n, 9 - n)
