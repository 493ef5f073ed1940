import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from gradatim.astro import deproject, inclination_of, kpc_per_arcsec

pytestmark = pytest.mark.usefixtures("double")


def test_oracle_radius_of_a_tilted_disc():
    place = deproject(jnp.asarray(3.0), jnp.asarray(-1.0), position_angle=np.deg2rad(30), inclination=np.deg2rad(60))
    assert abs(place.radius - 5.176314) < 1e-6


@given(st.floats(-6.2, 6.2), st.floats(0, 1.48), st.floats(-5, 5), st.floats(-5, 5))
def test_along_the_major_axis_nothing_changes_and_across_all_is_stretched(angle, inclination, x, y):
    with jax.enable_x64(True):
        place = deproject(jnp.asarray(x), jnp.asarray(y), position_angle=angle, inclination=inclination)
        along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / np.cos(inclination)
        assert np.isclose(place.radius, np.hypot(along, across), rtol=1e-9, atol=1e-12)
        assert -1 - 1e-12 <= place.cosine <= 1 + 1e-12 and np.isclose(place.cosine * place.radius, along, atol=1e-9)


def test_the_centre_has_a_finite_derivative():
    slope = jax.grad(lambda x: deproject(x, jnp.zeros(()), position_angle=0.3, inclination=0.5).radius)(jnp.zeros(()))
    assert np.isfinite(slope)


def test_oracle_inclination_from_the_axis_ratio():
    found = np.rad2deg(inclination_of(jnp.array([0.3, 0.5, 0.9, 0.1, 1.0]), thickness=0.2))
    assert np.allclose(found, [76.8078, 62.1144, 26.4156, 90.0, 0.0], atol=1e-4)


def test_oracle_scale_at_a_redshift():
    z = np.array([0.5, 1.0, 1.104, 1.7])
    found = np.asarray(kpc_per_arcsec(jnp.asarray(z)))
    assert np.allclose(found, [6.104, 8.009, 8.179, 8.465], atol=1e-3)
    distances = [integrate.quad(lambda x: 1 / np.sqrt(0.3 * (1 + x) ** 3 + 0.7), 0, end)[0] * 299_792.458 / 70 for end in z]
    assert np.allclose(found, np.array(distances) / (1 + z) * 1000 * np.pi / 648_000, rtol=1e-12)


def test_oracle_scale_of_a_universe_of_matter_alone():
    z = np.array([0.5, 2.0])
    distance = 2 * 299_792.458 / 50 * (1 - 1 / np.sqrt(1 + z))
    assert np.allclose(kpc_per_arcsec(jnp.asarray(z), hubble=50.0, matter=1.0), distance / (1 + z) * 1000 * np.pi / 648_000, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: deproject(jnp.ones(1), jnp.ones(1), position_angle=30.0, inclination=0.5), "position_angle must be in radians.*degrees"),
        (
            lambda: deproject(jnp.ones(1), jnp.ones(1), position_angle=0.5, inclination=60.0),
            r"inclination must be in radians, .*\(85°\), got 60",
        ),
        (lambda: deproject(jnp.ones(1), jnp.ones(1), position_angle=0.5, inclination=1.5), r"between 0 and 1.4835 \(85°\), got 1.5"),
        (lambda: inclination_of(jnp.ones(1), thickness=1.0), r"thickness must lie in \[0, 1\), got 1.0"),
        (lambda: inclination_of(jnp.zeros(1)), r"axis_ratio must lie in \(0, 1\]"),
        (lambda: kpc_per_arcsec(jnp.zeros(1)), "redshift must be positive"),
        (lambda: kpc_per_arcsec(jnp.ones(1), matter=0.0), r"matter must lie in \(0, 1\], got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
