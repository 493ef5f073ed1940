import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def check_two_orders():
    def check(loss, given, along):
        """First and second derivatives along a direction, in both modes, against differences."""

        def at(step):
            return jax.tree.map(lambda x, dx: x + step * dx, given, along)

        @jax.jit
        def slope(step):
            return jax.jvp(lambda step: loss(at(step)), (step,), (jnp.ones_like(step),))[1]

        @jax.jit
        def pulled(step):
            gradient = jax.grad(loss)(at(step))
            return sum(jnp.vdot(g, dx) for g, dx in zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True))

        value, h = jax.jit(lambda step: loss(at(step))), 1e-5
        first, second = (value(h) - value(-h)) / (2 * h), (pulled(h) - pulled(-h)) / (2 * h)
        assert abs(first) > 1e-2 and abs(second) > 1e-2
        np.testing.assert_allclose([slope(0.0), pulled(0.0)], first, rtol=1e-7)
        np.testing.assert_allclose([jax.jacfwd(pulled)(0.0), jax.jacrev(slope)(0.0)], second, rtol=1e-7)

    return check
