import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from jax.test_util import check_grads

from gradatim.numerics import fourier
from gradatim.physics.phase_field import faces

SHAPES = [(1, 1), (2, 3), (7, 5), (8, 6), (16, 9)]
ROUND_OFF = 1e-13  # relative to a sum of at most 144 numbers of order one
DX = 0.5
pytestmark = pytest.mark.usefixtures("double")


@jax.jit
def transforms(x):
    """Whatever is asserted of one field, through one compiled program."""
    nx, ny = x.shape
    cosine = {axis: fourier.cosine_transform(x, axis=axis) for axis in (0, 1, -1)}
    both, mixed = fourier.cosine_transform_2d(x), fourier.cosine_fourier_transform(x)
    eigenvalues = fourier.cosine_eigenvalues(nx, DX)[:, None] + fourier.fourier_eigenvalues(ny, DX)[None, :]
    response = 1 / (1 + eigenvalues)
    folded = fourier.FoldedResponse(response)(fourier.fold_spectrum(x))
    line = fourier.FoldedResponse(response[:, 0])(fourier.fold_spectrum(x[:, 0]))
    return {
        **{f"cosine along {axis}": coefficients for axis, coefficients in cosine.items()},
        "cosine along both": both,
        "cosine, Fourier": mixed,
        "back along 0": fourier.inverse_cosine_transform(cosine[0], axis=0),
        "back along 1": fourier.inverse_cosine_transform(cosine[1], axis=1),
        "back along both": fourier.inverse_cosine_transform_2d(both),
        "back from cosine, Fourier": fourier.inverse_cosine_fourier_transform(mixed, ny),
        "spectral laplacian": fourier.inverse_cosine_fourier_transform(-eigenvalues * mixed, ny),
        "laplacian": faces.laplacian(x, DX),
        "filtered": fourier.inverse_cosine_fourier_transform(response * mixed, ny),
        "filtered folded": fourier.unfold_spectrum(folded, x.shape),
        "line filtered": fourier.inverse_cosine_transform(response[:, 0] * fourier.cosine_transform(x[:, 0])),
        "line filtered folded": fourier.unfold_spectrum(line, x.shape[:1]),
    }


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def seen(request):
    field = np.random.default_rng(0).normal(size=request.param)
    with jax.enable_x64(True):
        return {"field": field, **jax.device_get(transforms(jnp.asarray(field)))}


def close(a, b):
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= ROUND_OFF * (1 + np.abs(b).sum())


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cosine_transform_is_scipys(seen, axis):
    close(seen[f"cosine along {axis}"], scipy.fft.dct(seen["field"], axis=axis))


def test_cosine_transform_2d_is_scipys(seen):
    close(seen["cosine along both"], scipy.fft.dctn(seen["field"]))


def test_cosine_fourier_transform_is_a_cosine_then_a_fourier_transform(seen):
    close(seen["cosine, Fourier"], np.fft.rfft(scipy.fft.dct(seen["field"], axis=0), axis=1))


@pytest.mark.parametrize("way", ["along 0", "along 1", "along both", "from cosine, Fourier"])
def test_inverses(seen, way):
    close(seen[f"back {way}"], seen["field"])


def test_eigenvalues_diagonalise_the_discrete_laplacian(seen):
    close(seen["spectral laplacian"], seen["laplacian"])


def test_filter_is_the_filter_between_the_transforms(seen):
    close(seen["filtered folded"], seen["filtered"])
    close(seen["line filtered folded"], seen["line filtered"])


@pytest.mark.parametrize("transform", [fourier.cosine_transform, fourier.cosine_transform_2d, fourier.cosine_fourier_transform])
def test_single_precision_stays(transform):
    assert jax.eval_shape(transform, jax.ShapeDtypeStruct((8, 6), jnp.float32)).dtype in (jnp.float32, jnp.complex64)


def test_vmap_is_a_loop_and_gradients_are_right():
    batch = np.random.default_rng(1).normal(size=(3, 6, 5))
    close(np.asarray(jax.jit(jax.vmap(fourier.cosine_transform_2d))(batch)), scipy.fft.dctn(batch, axes=(1, 2)))

    @jax.jit
    def energy(x):
        return jnp.sum(jnp.abs(fourier.cosine_fourier_transform(x)) ** 2) + jnp.sum(fourier.inverse_cosine_transform(x) ** 3)

    check_grads(energy, (jnp.asarray(batch[0]),), order=1)


@pytest.mark.parametrize("n", [5, 8])
def test_a_wave_of_one_wavenumber_is_one_coefficient(n):
    x = (np.arange(n) + 0.5) * DX
    waves = jnp.cos(fourier.cosine_wavenumbers(n, DX)[:, None] * x[None])
    close(np.asarray(fourier.cosine_transform(waves)), np.diag([2.0 * n, *[1.0 * n] * (n - 1)]))
