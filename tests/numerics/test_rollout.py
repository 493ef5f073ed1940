import jax
import jax.numpy as jnp
import pytest

from gradatim.numerics import rollout


def test_snapshots_are_the_states_of_a_loop():
    states = rollout(lambda s: (s[0] + s[1], s[0]), (jnp.array(1), jnp.array(0)), n_steps=6, every=3)
    assert states[0].tolist() == [1, 3, 13]


def test_gradient_passes_through():
    assert jax.grad(lambda a: rollout(lambda x: a * x, jnp.array(1.0), n_steps=4, every=2)[-1])(2.0) == 32


def test_only_snapshots_are_kept_for_the_way_back():
    start, kept = jnp.linspace(0.0, 1.0, 10), {}
    for every in (1, 8):
        _, back = jax.vjp(lambda x, every=every: rollout(jnp.sin, x, n_steps=64, every=every)[-1], start)
        kept[every] = sum(leaf.size for leaf in jax.tree.leaves(back))
    assert kept[8] < 64 * start.size / 2 < kept[1]


@pytest.mark.parametrize(("n_steps", "every"), [(4, 3), (0, 1), (4, 0)])
def test_every_must_divide(n_steps, every):
    with pytest.raises(ValueError, match="every must divide n_steps"):
        rollout(lambda x: x, jnp.array(1.0), n_steps=n_steps, every=every)
