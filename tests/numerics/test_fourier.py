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
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture(params=SHAPES, ids=str)
def field(request, getkey):
    with jax.enable_x64(True):
        return jax.random.normal(getkey(), request.param)


def close(a, b):
    assert a.shape == b.shape
    assert np.abs(np.asarray(a) - np.asarray(b)).max() <= ROUND_OFF * (1 + np.abs(np.asarray(b)).sum())


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cosine_transform_is_scipys(field, axis):
    close(fourier.cosine_transform(field, axis=axis), scipy.fft.dct(np.asarray(field), axis=axis))


def test_cosine_transform_2d_is_scipys(field):
    close(fourier.cosine_transform_2d(field), scipy.fft.dctn(np.asarray(field)))


def test_cosine_fourier_transform_is_a_cosine_then_a_fourier_transform(field):
    close(fourier.cosine_fourier_transform(field), np.fft.rfft(scipy.fft.dct(np.asarray(field), axis=0), axis=1))


def test_inverses(field):
    for axis in (0, 1):
        close(fourier.inverse_cosine_transform(fourier.cosine_transform(field, axis=axis), axis=axis), field)
    close(fourier.inverse_cosine_transform_2d(fourier.cosine_transform_2d(field)), field)
    close(fourier.inverse_cosine_fourier_transform(fourier.cosine_fourier_transform(field), field.shape[1]), field)


@pytest.mark.parametrize("shape", [(8, 6), (7, 5)])
def test_eigenvalues_diagonalise_the_discrete_laplacian(shape, getkey):
    u = jax.random.normal(getkey(), shape)
    eigenvalues = fourier.cosine_eigenvalues(shape[0], 0.5)[:, None] + fourier.fourier_eigenvalues(shape[1], 0.5)[None, :]
    filtered = fourier.inverse_cosine_fourier_transform(-eigenvalues * fourier.cosine_fourier_transform(u), shape[1])
    close(filtered, faces.laplacian(u, 0.5))


def test_filter_is_the_filter_between_the_transforms(field):
    response = 1 / (1 + fourier.cosine_eigenvalues(field.shape[0])[:, None] + fourier.fourier_eigenvalues(field.shape[1])[None, :])
    through = fourier.inverse_cosine_fourier_transform(response * fourier.cosine_fourier_transform(field), field.shape[1])
    folded = fourier.FoldedResponse(response)(fourier.fold_spectrum(field))
    close(fourier.unfold_spectrum(folded, field.shape), through)
    line = fourier.FoldedResponse(response[:, 0])(fourier.fold_spectrum(field[:, 0]))
    expected = fourier.inverse_cosine_transform(response[:, 0] * fourier.cosine_transform(field[:, 0]))
    close(fourier.unfold_spectrum(line, field.shape[:1]), expected)


@pytest.mark.parametrize("transform", [fourier.cosine_transform, fourier.cosine_transform_2d, fourier.cosine_fourier_transform])
def test_single_precision_stays(transform):
    x = jnp.ones((8, 6), jnp.float32)
    assert transform(x).dtype in (jnp.float32, jnp.complex64)


def test_vmap_is_a_loop_and_gradients_are_right(getkey):
    batch = jax.random.normal(getkey(), (3, 6, 5))
    close(jax.vmap(fourier.cosine_transform_2d)(batch), np.stack([fourier.cosine_transform_2d(x) for x in batch]))

    def energy(x):
        x = jnp.asarray(x)  # numerical differences hand in NumPy arrays
        return jnp.sum(jnp.abs(fourier.cosine_fourier_transform(x)) ** 2) + jnp.sum(fourier.inverse_cosine_transform(x) ** 3)

    check_grads(energy, (batch[0],), order=1)
