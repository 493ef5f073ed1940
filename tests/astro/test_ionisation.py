import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.astro import BPT_CURVES, bpt_class

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize(("curve", "b", "c"), [("kauffmann03", 0.05, 1.3), ("kewley01", 0.47, 1.19)])
def test_oracle_the_curve_is_the_boundary(curve, b, c):
    n2 = np.linspace(-2.0, b - 0.05, 41)
    on = 0.61 / (n2 - b) + c
    for step, is_active in ((1e-6, True), (-1e-6, False)):
        found = bpt_class(jax.device_put(n2), jax.device_put(on + step), curve=curve)
        assert (np.asarray(found.is_active) == is_active).all() and found.is_valid.all()
    # To the right of the pole young stars reach nothing, however faint [O III] is.
    assert bpt_class(jnp.asarray([b, b + 0.1, b + 2]), jnp.asarray([-9.0, -9.0, -9.0]), curve=curve).is_active.all()


def test_oracle_known_places():
    # An H II region, a composite and a Seyfert nucleus.
    n2, o3 = jnp.asarray([-0.7, -0.2, 0.0]), jnp.asarray([0.0, 0.0, 1.0])
    assert bpt_class(n2, o3, curve="kauffmann03").is_active.tolist() == [False, True, True]
    assert bpt_class(n2, o3, curve="kewley01").is_active.tolist() == [False, False, True]


def test_whatever_exceeds_the_models_exceeds_the_data():
    # Below n2 = -1.3, where no galaxies are, the curves cross.
    n2, o3 = (jax.device_put(part.ravel()) for part in np.meshgrid(np.linspace(-1.2, 1, 80), np.linspace(-1.5, 1.5, 80)))
    lower, upper = (np.asarray(bpt_class(n2, o3, curve=curve).is_active) for curve in ("kauffmann03", "kewley01"))
    assert (lower | ~upper).all() and (lower & ~upper).any()


def test_a_lost_line_leaves_no_class():
    found = bpt_class(jnp.asarray([jnp.nan, -0.5]), jnp.asarray([2.0, jnp.nan]), curve="kewley01")
    assert not found.is_valid.any() and not found.is_active.any()


def test_other_curves_are_refused():
    with pytest.raises(Exception, match=f"curve must be one of {', '.join(BPT_CURVES)}, got 'schawinski07'|Type-check error"):
        bpt_class(jnp.zeros(1), jnp.zeros(1), curve="schawinski07")
