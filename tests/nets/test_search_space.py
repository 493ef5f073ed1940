import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.nets import Choice, SearchSpace, entropies, outer_probabilities

SPACE = SearchSpace((Choice("width", (8, 16, 32)), Choice("kernel", (3, 5))))


def test_o10_sizes_of_the_authors_spaces():
    cell = SearchSpace(tuple(Choice(f"{kind} {edge}", ("sep3", "sep5", "dil3", "dil5")) for kind in "nr" for edge in range(3)))
    macro = SearchSpace(tuple(Choice(f"{kind} {layer}", (1, 2, 3)) for kind in "wk" for layer in range(4)))
    assert (cell.n_architectures, macro.n_architectures) == (4096, 6561)


def test_every_architecture_comes_once_in_the_order_of_its_number():
    rows = SPACE.every()
    assert [SPACE.number(row) for row in rows] == list(range(6))
    assert [SPACE.decode(row) for row in rows] == list(SPACE)


@given(st.integers(0, 5))
def test_encoding_is_undone_by_decoding(number):
    positions = SPACE.positions(number)
    assert SPACE.number(positions) == number and SPACE.encode(SPACE.decode(positions)) == positions


def test_samples_are_uniform():
    drawn = np.asarray(SPACE.sample(jax.random.key(0), 6000))
    counts = np.bincount([SPACE.number(row) for row in drawn], minlength=6)
    # Six cells of a thousand: five standard deviations.
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_logits_are_small_and_discretised_to_the_largest():
    logits = SPACE.logits(jax.random.key(1))
    assert [a.shape for a in logits.values()] == [(3,), (2,)] and max(float(np.abs(a).max()) for a in logits.values()) < 5e-3
    chosen = SPACE.discretise({"width": jnp.array([0.0, 2.0, 1.0]), "kernel": jnp.array([1.0, 1.0])})
    assert chosen.tolist() == [1, 0]
    assert {name: p.argmax() for name, p in SPACE.one_hot(chosen).items()} == {"width": 1, "kernel": 0}


def test_entropy_of_the_undecided_is_one_and_of_the_decided_zero():
    found = jax.jit(entropies)({"a": np.full(3, 1 / 3), "b": np.array([0.0, 1.0])})
    assert abs(float(found["a"]) - 1) < 1e-6 and found["b"] == 0
    slope = jax.jit(jax.grad(lambda p: entropies({"b": p})["b"]))(np.array([0.0, 1.0]))
    assert np.isfinite(slope).all()


def test_combinations_are_in_the_order_of_a_product():
    p, q, r = jnp.array([0.25, 0.75]), jnp.array([0.5, 0.125, 0.375]), jnp.array([1.0])
    expected = [a * b * c for a in p.tolist() for b in q.tolist() for c in r.tolist()]
    assert outer_probabilities(p, q, r).tolist() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Choice("kernel", ()), "at least one and differ, got"),
        (lambda: Choice("kernel", (3, 3)), r"'kernel' must be at least one and differ, got \(3, 3\)"),
        (lambda: SearchSpace(()), "at least one, of different names"),
        (lambda: SearchSpace((Choice("a", (1,)), Choice("a", (2,)))), "of different names, got"),
        (lambda: SPACE.encode({"width": 8}), "must be given for width, kernel, got width"),
        (lambda: SPACE.encode({"width": 9, "kernel": 3}), r"width must be one of \(8, 16, 32\), got 9"),
        (lambda: SPACE.decode((0, 2)), r"must be below \(3, 2\), got \(0, 2\)"),
        (lambda: SPACE.positions(6), r"must lie in \[0, 6\), got 6"),
        (lambda: SPACE.check({"width": [1, 0, 0]}), "must have an entry 'kernel'"),
        (lambda: SPACE.check({"width": [0.5, 0.5], "kernel": [1, 0]}), r"'width' must have length 3, got shape \(2,\)"),
        (lambda: SPACE.check({"width": [1.5, -0.5, 0], "kernel": [1, 0]}), "'width' must be at least 0 and sum to 1"),
        (lambda: SPACE.check({"width": [1, 0, 0], "kernel": [0.5, 0.4]}), "'kernel' must be at least 0 and sum to 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_choices_are_along_the_last_axis():
    logits = {"width": jnp.array([[0.0, 2.0, 1.0], [3.0, 2.0, 4.0]]), "kernel": jnp.array([[0.0, 1.0], [1.0, 0.0]])}
    assert SPACE.discretise(logits).tolist() == [[1, 1], [2, 0]]
    rows = {"width": np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]), "kernel": np.array([[0.5, 0.5], [0.0, 1.0]])}
    SPACE.check(rows)
    found = jax.jit(entropies)(rows)
    np.testing.assert_allclose([found["width"], found["kernel"]], [[0, 1], [1, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="'kernel' must be at least 0 and sum to 1"):
        SPACE.check(rows | {"kernel": np.array([[0.5, 0.5], [0.5, 0.6]])})


def test_numbers_below_zero_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 6\), got -1"):
        SPACE.positions(-1)
    with pytest.raises(ValueError, match=r"must be below \(3, 2\), got \(0, -1\)"):
        SPACE.number((0, -1))
