import jax
import jax.numpy as jnp
import pytest

from gradatim.landscape import line_loss


def test_double_well_has_its_known_barrier_and_crest():
    line = line_loss(lambda w: (w**2 - 1) ** 2, jnp.array(-1.0), jnp.array(1.0))
    assert line.t.shape == (21,) and jnp.allclose(line.loss, ((2 * line.t - 1) ** 2 - 1) ** 2, atol=1e-6)
    assert jnp.allclose(line.barrier, 1) and jnp.allclose(line.crest, 1)


def test_a_convex_loss_has_no_barrier():
    line = line_loss(lambda w: jnp.sum(w["a"] ** 2), {"a": jnp.array([3.0, 1.0])}, {"a": jnp.array([-1.0, 2.0])}, n_points=7)
    assert line.barrier == 0 and line.crest == 0


def test_barrier_is_measured_from_the_chord_and_crest_from_the_higher_end():
    # l = t/5 + 0.3 sin²(πt) rises 0.3 over the chord, 0.2 over the higher end.
    line = line_loss(lambda w: w / 5 + 0.3 * jnp.sin(jnp.pi * w) ** 2, jnp.array(0.0), jnp.array(1.0))
    assert jnp.allclose(line.barrier, 0.3, atol=1e-6) and jnp.allclose(line.crest, 0.2, atol=0.01)


def test_jit_vmap_and_gradient():
    def loss(w):
        return (w**2 - 1) ** 2

    ends = jnp.array([1.0, 0.5])
    batched = jax.jit(jax.vmap(lambda end: line_loss(loss, -end, end).barrier))(ends)
    assert jnp.allclose(batched, jnp.array([line_loss(loss, -end, end).barrier for end in ends]))
    assert jnp.isfinite(jax.grad(lambda end: line_loss(loss, -end, end).barrier)(ends[0]))


def test_bad_input():
    with pytest.raises(ValueError, match="n_points must be at least 3, got 2"):
        line_loss(jnp.sum, jnp.ones(2), jnp.ones(2), n_points=2)
    with pytest.raises(ValueError, match="one structure"):
        line_loss(jnp.sum, jnp.ones(2), (jnp.ones(2),))
    with pytest.raises(ValueError, match="same shapes"):
        line_loss(jnp.sum, jnp.ones(2), jnp.ones(3))
