import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gradatim.numerics import PeriodicGrid, phi_1, phi_2, phi_3

GRIDS = [((9,), 2.0), ((6, 8), (1.0, 2.0)), ((5, 7), 4.0), ((4, 6, 8), (1.0, 2.0, 3.0))]
ROUND_OFF = 1e-12
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture(params=GRIDS, ids=str)
def grid(request):
    return PeriodicGrid(*request.param)


def full_wavenumbers(grid):
    return np.meshgrid(*(2 * np.pi / side * np.fft.fftfreq(n) * n for n, side in zip(grid.shape, grid.box, strict=True)), indexing="ij")


def test_wavenumbers_and_multiplicity_are_those_of_the_whole_spectrum(grid):
    square = sum(k**2 for k in full_wavenumbers(grid))
    assert np.isclose((grid.squared_wavenumber() * grid.multiplicity()).sum(), square.sum(), rtol=ROUND_OFF)
    assert float(grid.multiplicity().sum()) == grid.n_cells
    assert grid.wavevectors().shape == (*grid.spectrum_shape, grid.dim)


def test_noise_is_white_and_belongs_to_a_real_field(grid):
    keys = jax.random.split(jax.random.key(3), 4000)
    draw = jax.jit(jax.vmap(lambda key: grid.white_noise(key, jnp.float64)))
    noise = draw(keys)
    back = np.fft.rfftn(np.fft.irfftn(noise, grid.shape, axes=range(1, grid.dim + 1)), axes=range(1, grid.dim + 1))
    # Only spectra of real fields survive the way to space and back.
    assert np.abs(back - noise).max() < ROUND_OFF * np.abs(noise).max()
    # Six standard deviations of a mean over 4,000 squares of real normal numbers.
    assert np.abs((np.abs(noise) ** 2).mean(0) - 1).max() < 6 * np.sqrt(2 / 4000)


def test_inverse_laplacian_inverts_all_but_the_mean(grid):
    product = np.asarray(grid.laplacian() * grid.inverse_laplacian())
    assert product.flat[0] == 0 and np.allclose(product.flat[1:], 1)


def test_derivative_is_that_of_a_wave():
    grid = PeriodicGrid((16, 12), (2.0, 3.0))
    x, y = map(np.asarray, grid.positions())
    wave = jnp.asarray(np.sin(2 * np.pi * (2 * x / 2.0 + y / 3.0)))
    exact = 2 * np.pi * np.cos(2 * np.pi * (2 * x / 2.0 + y / 3.0)) * 2 / 2.0
    derivative = jax.jit(lambda wave: grid.backward(1j * grid.derivative_wavenumbers()[0] * grid.forward(wave)))
    assert np.allclose(derivative(wave), exact, atol=ROUND_OFF * 10)


def test_dealiased_modes_multiply_without_folding_back(getkey):
    fine, coarse = PeriodicGrid((36,), 1.0), PeriodicGrid((18,), 1.0)
    kept = np.asarray(coarse.dealiased())
    spectrum = np.asarray(coarse.white_noise(getkey(), jnp.float64)) * kept
    padded = np.pad(2 * spectrum, (0, fine.spectrum_shape[0] - spectrum.size))
    squares = jax.jit(lambda *spectra: [g.forward(g.backward(z) ** 2) for g, z in zip((coarse, fine), spectra, strict=True)])
    product, exact = map(np.asarray, squares(spectrum, padded))
    keep = np.flatnonzero(kept)
    assert np.allclose(2 * product[keep], exact[keep], atol=1e-12) and not kept[6]


def test_structure_factor_of_independent_cells_is_their_variance_times_their_volume():
    grid = PeriodicGrid((16, 16), 8.0)
    fields = np.random.default_rng(0).normal(size=(400, 16, 16))
    factors = jax.jit(lambda fields: grid.structure_factor(grid.forward(fields)))(fields)
    assert abs(np.asarray(factors).mean() / 0.25 - 1) < 0.02


def test_phi_functions_meet_their_series_and_have_derivatives():
    z = np.array([-30.0, -1.0, -0.999, -0.5, -0.49, -1e-9, 0.0, 1e-9, 0.3])
    one, two, three = map(np.asarray, jax.jit(lambda z: (phi_1(z), phi_2(z), phi_3(z)))(z))
    exact_1 = np.array([np.expm1(v) / v if v else 1.0 for v in z])
    assert np.allclose(one, exact_1, rtol=1e-15)
    assert np.allclose(two * z, one - 1, atol=1e-15)
    assert np.allclose(three * z, two - 1 / 2, atol=1e-15) and three[6] == 1 / 6
    check_grads(jax.jit(lambda z: (phi_1(z) + phi_2(z) + phi_3(z)).sum()), (np.array([-2.0, -0.3]),), order=1, modes=["rev"])
    weighted = jax.grad(lambda z: jnp.stack([phi_1(z), phi_2(z), phi_3(z)]) @ jnp.array([1.0, 6.0, 24.0]))
    at_zero = jax.jit(jax.vmap(weighted))(np.array([0.0, 1e-9]))
    np.testing.assert_allclose(at_zero, 1 / 2 + 6 / 6 + 24 / 24, rtol=1e-8)


def test_single_precision_stays():
    with jax.enable_x64(False):
        grid = PeriodicGrid((8, 8), 1.0)
        assert grid.white_noise(jax.random.key(0), jnp.float32).dtype == jnp.complex64 and grid.laplacian().dtype == jnp.float32


@pytest.mark.parametrize(
    ("shape", "box", "match"),
    [
        ((3,), 1.0, "shape must have one to three axes of at least 4 cells"),
        ((8,) * 4, 1.0, "shape must have one to three axes"),
        ((8, 8), (1.0,), r"box must have one side for each of the 2 axes"),
        ((8,), -1.0, r"box must have positive sides, got \(-1.0,\)"),
        ((8,), float("nan"), "box must have positive sides"),
    ],
)
def test_grids_that_make_no_sense_are_refused(shape, box, match):
    with pytest.raises(ValueError, match=match):
        PeriodicGrid(shape, box)


def test_fields_and_spectra_must_fit():
    grid = PeriodicGrid((8, 6), 1.0)
    with pytest.raises(ValueError, match=r"field must have the grid's shape \(8, 6\)"):
        grid.forward(jnp.zeros((6, 8)))
    with pytest.raises(ValueError, match=r"spectrum must have \(8, 4\)"):
        grid.backward(jnp.zeros((8, 6)) + 0j)


def test_wavevectors_are_numpys_and_odd_derivatives_have_no_nyquist_mode(grid):
    last = grid.dim - 1
    frequencies = [(np.fft.rfftfreq if i == last else np.fft.fftfreq)(n) for i, n in enumerate(grid.shape)]
    for odd in (False, True):
        axes = [
            2 * np.pi * n / side * np.where(odd & (np.abs(f) == 0.5), 0.0, f)
            for f, n, side in zip(frequencies, grid.shape, grid.box, strict=True)
        ]
        expected = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        assert np.allclose(grid.wavevectors(odd=odd), expected, rtol=ROUND_OFF)
    kept = [3 * np.abs(np.rint(f * n)) < n for f, n in zip(frequencies, grid.shape, strict=True)]
    assert np.array_equal(grid.dealiased(), np.all(np.meshgrid(*kept, indexing="ij"), axis=0))
