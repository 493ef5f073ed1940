import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from gradatim.astro import (
    HALPHA_COMPLEX,
    Moments,
    ThinDisk,
    disk_cube,
    disk_plane,
    fit_gradient_map,
    fit_rotation,
    gaussian_aperture,
    gaussian_beam,
    line_of_sight_velocity,
    line_surfaces,
    moments,
    pixel_centres,
    smeared_gradient,
)

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize(("gradient", "offset"), [(-0.04, 0.0029085), (0.0, 0.0)])
def test_oracle_what_a_beam_leaves_of_a_gradient(gradient, offset):
    # A Gaussian source and a Gaussian beam, on pixels so fine that the integral over one does not count.
    fine, seen = pixel_centres(8001, 0.01), pixel_centres(61, 0.1)
    halpha = np.exp(-(fine**2) / 18)
    nitrogen = halpha * 10 ** ((8.5 + gradient * fine - 8.90) / 0.57)
    beam = gaussian_aperture(fine, seen, width=0.01, fwhm=2.354820045)
    z = 8.90 + 0.57 * np.log10((beam @ nitrogen) / (beam @ halpha))
    slope, middle = np.polyfit(seen, z, 1)
    law = smeared_gradient(gradient, scale=3.0, beam=1.0, calibration_slope=0.57)
    assert abs(slope - 0.9 * gradient) < 1e-7 and abs(middle - 8.5 - offset) < 1e-6
    assert abs(law.slope - 0.9 * gradient) < 1e-12 and abs(law.offset - offset) < 1e-7


@given(st.floats(0.05, 3), st.integers(1, 4))
def test_oracle_beam_and_stepped_slit_keep_the_flux(fwhm, steps):
    # Apertures reach far beyond the source.
    source, at = pixel_centres(9, 0.25), pixel_centres(61, 0.5)
    light = gaussian_aperture(source, at, width=0.5 * steps, step=0.5, fwhm=fwhm).sum(axis=0)
    assert np.allclose(light, 1, atol=1e-6)


def test_oracle_without_a_beam_a_map_is_itself():
    surface = jax.device_put(np.random.default_rng(0).uniform(size=(5, 5)))
    assert np.allclose(gaussian_beam(5, 0.1, fwhm=0.0, oversampling=1)(surface), surface)
    assert np.allclose(gaussian_beam(5, 0.1, fwhm=1e-6, oversampling=1)(surface), surface)
    whole = gaussian_beam(2, 0.1, fwhm=0.0, oversampling=2)(jnp.ones((4, 4)))
    assert np.allclose(whole, 4)


N, OVER = 20, 2
BEAM = {"fwhm": 0.15, "oversampling": OVER, "slit": 0.28}


def disk(gradient=-0.05, speed=180.0):
    values = (1.0, 2.0, 8.4, gradient, speed, 1.0, 45.0)
    return ThinDisk(*map(number, values))


def number(value):
    """As the experiment's are, so that its compiled programs serve here."""
    return jnp.asarray(np.float64(value))


@eqx.filter_jit
def seen_through(one, beam, angle, inclination):
    plane = disk_plane(N * OVER, 0.14 / OVER, kpc_per_arcsec=number(8.0), position_angle=angle, inclination=inclination)
    return plane, beam(line_surfaces(one, plane, "pp04-n2")), moments(one, plane, beam), line_of_sight_velocity(one, plane)


@pytest.fixture(scope="module")
def seen():
    with jax.enable_x64(True):
        beam = gaussian_beam(N, 0.14, **BEAM)
        return beam, seen_through(disk(), beam, number(0.7), number(0.9))


def test_a_slit_is_wide_along_the_axis_along_which_it_is_stepped():
    seen = gaussian_beam(3, 1.0, fwhm=0.0, oversampling=1, slit=2.0)(jnp.zeros((3, 3)).at[1, 1].set(1.0))
    assert np.allclose(seen, [[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]])


def test_rows_of_a_map_lie_above_each_other_and_the_receding_side_along_the_position_angle():
    plane = disk_plane(3, 1.0, kpc_per_arcsec=number(2.0), position_angle=number(0.0), inclination=number(1.0))
    across = 2 / np.cos(1.0)
    assert np.allclose(plane.radius[1], [2, 0, 2]) and np.allclose(plane.radius[:, 1], [across, 0, across])
    assert np.allclose(plane.cosine[1], [-1, 0, 1]) and np.allclose(plane.cosine[:, 1], 0, atol=1e-15)


def test_oracle_a_cube_holds_the_lines_of_all_its_places():
    beam, edges = gaussian_beam(2, 0.2, fwhm=0.15, oversampling=2, slit=0.3), np.linspace(6535.0, 6605.0, 8)
    one = disk()
    settings = {"lines": HALPHA_COMPLEX, "edges": jnp.asarray(edges), "instrument": 47.0, "calibration": "pp04-n2"}

    @eqx.filter_jit
    def both(one, beam):
        plane = disk_plane(4, 0.1, kpc_per_arcsec=number(8.0), position_angle=number(0.7), inclination=number(0.9))
        return disk_cube(one, plane, beam, **settings), line_surfaces(one, plane, "pp04-n2"), line_of_sight_velocity(one, plane)

    cube, (halpha, nitrogen), velocity = jax.tree.map(np.asarray, both(one, beam))
    fine = np.zeros((4, 4, 7))
    for wavelength, light in ((6564.61, halpha), (6585.27, nitrogen), (6549.86, nitrogen / 3.05)):
        centre = wavelength * (1 + velocity / 299_792.458)[..., None]
        fine += light[..., None] * np.diff(ndtr((edges - centre) / (centre * np.hypot(45.0, 47.0) / 299_792.458))) / 10
    assert np.allclose(cube, np.einsum("ya,xb,abc->yxc", beam.rows, beam.columns, fine), rtol=1e-9, atol=1e-12)


def test_oracle_rotation_is_odd_about_the_minor_axis(seen):
    velocity = np.asarray(seen[1][3])
    assert np.allclose(velocity, -velocity[::-1, ::-1]) and velocity.max() < 180 * np.sin(0.9)
    assert np.allclose(seen[1][2].velocity, -np.asarray(seen[1][2].velocity)[::-1, ::-1])


def test_rotation_within_the_beam_widens_lines_in_the_middle(seen):
    dispersion = np.asarray(seen[1][2].dispersion)
    assert dispersion[N // 2, N // 2] > 55 and abs(dispersion[0, 0] - 45) < 5


@pytest.mark.parametrize(("angle", "inclination"), [(0.0, 0.0), (2.0, 1.4)])
def test_oracle_no_gradient_stays_none_through_any_beam_and_inclination(angle, inclination):
    _, (halpha, nitrogen), _, _ = seen_through(disk(0.0), gaussian_beam(N, 0.14, **BEAM), number(angle), number(inclination))
    assert np.allclose(nitrogen / halpha, 10 ** ((8.4 - 8.90) / 0.57), rtol=1e-10)


def fits(start, plane, beam, fluxes, errors, seen, moment_errors):
    return (
        fit_gradient_map(start, plane, beam, fluxes=fluxes, errors=errors, calibration="pp04-n2"),
        fit_rotation(start, plane, beam, seen=seen, errors=moment_errors),
    )


def test_disc_comes_back_through_the_beam_and_its_errors_are_the_scatter(seen):
    beam, (plane, flux, moment, _) = seen
    start = ThinDisk(*map(number, (2.0, 1.5, 8.6, 0.0, 100.0, 0.6, 60.0)))
    error = jnp.full(flux.shape, 0.02)
    clean = Moments(*(jnp.full(part.shape, value) for part, value in zip(moment, (0.02, 3.0, 3.0), strict=True)))
    # What is left out may be anything.
    clean = Moments(clean.flux, clean.velocity.at[0, 0].set(jnp.inf), clean.dispersion)
    broken = Moments(moment.flux, moment.velocity.at[0, 0].set(jnp.nan), moment.dispersion)
    holes = flux.at[1, 3, 4].set(jnp.nan), error.at[1, 3, 4].set(jnp.inf)
    gradient, rotation = fits(start, plane, beam, *holes, broken, clean)
    assert gradient.is_valid and rotation.is_valid and gradient.chi_squared < 1e-6 and rotation.chi_squared < 1e-6
    truth = disk()
    assert abs(gradient.disk.gradient - truth.gradient) < 1e-6 and abs(gradient.disk.central_metallicity - 8.4) < 1e-6
    assert abs(rotation.disk.speed - 180) < 1e-2 and abs(rotation.disk.dispersion - 45) < 1e-2
    # Numbers of the start that are not fitted stay, and are certain.
    assert gradient.disk.speed == 100 and gradient.standard_error.speed == 0 and rotation.standard_error.gradient == 0
    pulls = []
    for i in range(12):
        noise = np.random.default_rng(i).normal(size=flux.shape)
        found = fits(start, plane, beam, flux + error * noise, error, broken, clean)[0]
        pulls.append(float((found.disk.gradient - truth.gradient) / found.standard_error.gradient))
    assert abs(np.mean(pulls)) < 0.9 and 0.5 < np.std(pulls, ddof=1) < 1.7


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gaussian_aperture(np.ones(1), np.ones(1), width=0.0, fwhm=1.0), "width must be positive, got 0.0"),
        (lambda: gaussian_aperture(np.ones(1), np.ones(1), width=1.0, fwhm=-1.0), "fwhm must be at least 0, got -1.0"),
        (lambda: gaussian_aperture(np.ones(1), np.ones(1), width=1.0, step=0.0, fwhm=1.0), "step must be positive, got 0.0"),
        (lambda: gaussian_beam(0, 0.1, fwhm=0.1, oversampling=1), "n_pixels and oversampling must be at least 1, got 0 and 1"),
        (lambda: smeared_gradient(0.1, scale=0.0, beam=1.0, calibration_slope=0.5), "scale must be positive and beam at least 0, got 0.0"),
        (lambda: smeared_gradient(0.1, scale=1.0, beam=1.0, calibration_slope=0), "calibration_slope must not be 0"),
        (lambda: line_surfaces(disk(), None, "pp04-o3n2"), "calibration must be one of pp04-n2, .*, got 'pp04-o3n2'|Type-check error"),
    ],
)
def test_what_cannot_be_is_refused(call, match):
    with pytest.raises(Exception, match=match):
        call()
