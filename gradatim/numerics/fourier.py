"""Cosine and Fourier transforms on cell-centred grids, each through one real FFT of the same size, and the Laplacian's eigenvalues.

A cosine transform is the real FFT of its input with the even entries first and the odd ones, reversed, behind them, turned by a
quarter-wave phase (J. Makhoul, IEEE Trans. Acoust. Speech Signal Process. 28, 27 (1980)). `jax.scipy.fft.dct` mirrors its input to a
complex FFT of twice the length instead and costs five to ten times as much on CPU.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float


def cosine_transform(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*shape"]:
    """Type-II cosine transform along one axis, in the normalisation of `scipy.fft.dct`.

        Xₖ = 2 Σⱼ xⱼ cos(π k (2j + 1) / (2n)),   k = 0 … n - 1

    >>> abs(cosine_transform(jnp.ones(4)).round(6)).tolist()
    [8.0, 0.0, 0.0, 0.0]
    """
    n = x.shape[axis]
    spectrum = jnp.moveaxis(jnp.fft.rfft(_fold(x, axis), axis=axis), axis, -1)
    turned = _last(_phase(n, spectrum.dtype)[: n // 2 + 1], x.ndim) * spectrum
    # The upper half of the real FFT's spectrum is the conjugate of the lower: X₍ₙ₋ₖ₎ is the imaginary part of what gives Xₖ.
    upper = -jnp.flip(turned[..., 1 : (n + 1) // 2].imag, -1)
    return jnp.moveaxis(2 * jnp.concatenate([turned.real, upper], -1), -1, axis)


def inverse_cosine_transform(coefficients: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*shape"]:
    """The inverse of [`cosine_transform`][gradatim.numerics.cosine_transform]."""
    n = coefficients.shape[axis]
    x = jnp.moveaxis(coefficients, axis, -1) / 2
    half = n // 2 + 1
    mirrored = jnp.concatenate([jnp.zeros_like(x[..., :1]), jnp.flip(x[..., n - half + 1 :], -1)], -1)
    turned = jax.lax.complex(x[..., :half], -mirrored)
    spectrum = jnp.moveaxis(_last(_phase(n, turned.dtype)[:half].conj(), x.ndim) * turned, -1, axis)
    return _unfold(jnp.fft.irfft(spectrum, n, axis=axis), axis)


def cosine_transform_2d(x: Float[Array, "nx ny"]) -> Float[Array, "nx ny"]:
    """Type-II cosine transform along both axes, in the normalisation of `scipy.fft.dctn`, through one `rfft2`."""
    ny = x.shape[1]
    half = _cosine_fourier(_fold(x, 1))
    turn = _phase(ny, jnp.result_type(x, jnp.complex64))[None, : ny // 2 + 1]
    real, imaginary = _times(turn, *half)
    return 2 * jnp.concatenate([real, -jnp.flip(imaginary[:, 1 : (ny + 1) // 2], 1)], 1)


def inverse_cosine_transform_2d(coefficients: Float[Array, "nx ny"]) -> Float[Array, "nx ny"]:
    """The inverse of [`cosine_transform_2d`][gradatim.numerics.cosine_transform_2d].

    Vₖₗ = ¼ exp(iπk/(2 nx) + iπl/(2 ny)) [Xₖₗ - X₋ₖ₋ₗ - i (X₋ₖₗ + Xₖ₋ₗ)],     X₋ₖ = X₍ₙ₋ₖ₎ and X₋₀ = 0
    """
    nx, ny = coefficients.shape
    half = ny // 2 + 1

    def columns(x: Array) -> tuple[Array, Array]:
        return x[:, :half], jnp.concatenate([jnp.zeros_like(x[:, :1]), jnp.flip(x[:, ny - half + 1 :], 1)], 1)

    here, beside = columns(coefficients)
    above, across = columns(_mirror(coefficients))
    dtype = jnp.result_type(coefficients, jnp.complex64)
    turn = _phase(nx, dtype)[:, None].conj() * _phase(ny, dtype)[None, :half].conj() / 4
    spectrum = jax.lax.complex(*_times(turn, here - across, -(above + beside)))
    return _unfold(_unfold(jnp.fft.irfft2(spectrum, (nx, ny)), 0), 1)


def cosine_fourier_transform(x: Float[Array, "nx ny"]) -> Complex[Array, "nx ny//2+1"]:
    """Cosine transform along the first axis (walls), real Fourier transform along the second (periodic), through one `rfft2`.

    Xₖₗ = 2 Σᵢⱼ xᵢⱼ cos(π k (2i + 1) / (2 nx)) exp(-2πi l j / ny)
    """
    return jax.lax.complex(*_cosine_fourier(x))


def inverse_cosine_fourier_transform(coefficients: Complex[Array, "nx half"], ny: int) -> Float[Array, "nx {ny}"]:
    """The inverse of [`cosine_fourier_transform`][gradatim.numerics.cosine_fourier_transform] for a second axis of `ny` points."""
    return _inverse_cosine_fourier(coefficients.real, coefficients.imag, ny)


def fold_spectrum(x: Float[Array, ...]) -> Complex[Array, ...]:
    """The real FFT of x, (n,) or (nx, ny), in Makhoul's order along the first axis: a cosine(–Fourier) transform short of its phases.

    Enough for a filter, [`FoldedResponse`][gradatim.numerics.FoldedResponse], and a good third cheaper than the transform itself.
    """
    folded = _fold(x, 0)
    return jnp.fft.rfft(folded) if x.ndim == 1 else jnp.fft.rfft2(folded)


def unfold_spectrum(spectrum: Complex[Array, ...], shape: tuple[int, ...]) -> Float[Array, ...]:
    """The inverse of [`fold_spectrum`][gradatim.numerics.fold_spectrum] for an array of that shape."""
    return _unfold(jnp.fft.irfft(spectrum, *shape) if len(shape) == 1 else jnp.fft.irfft2(spectrum, shape), 0)


class FoldedResponse(eqx.Module):
    """A real filter hₖ of cosine coefficients, applied to a folded spectrum V:

        V'ₖ = ½ (hₖ + h₍ₙ₋ₖ₎) Vₖ + ½ (hₖ - h₍ₙ₋ₖ₎) exp(iπk/n) V₋ₖ

    The phases of the forward and of the inverse transform meet in one factor.

    **Arguments:** `response`: h in the order of `cosine_transform` (n,) or `cosine_fourier_transform` (nx, ny//2 + 1).
    """

    direct: Float[Array, ...]
    reflected: Complex[Array, ...]

    def __init__(self, response: Float[Array, ...]):
        n = response.shape[0]
        mirrored = _reflect(response)
        turn = _phase(n, jnp.result_type(response, jnp.complex64)).conj() ** 2
        direct, reflected = (response + mirrored) / 2, (response - mirrored) / 2 * turn.reshape(n, *(1 for _ in response.shape[1:]))
        # Along one axis V₋ₖ is the conjugate of Vₖ, and the real FFT holds half of them.
        self.direct, self.reflected = (direct, reflected) if response.ndim == 2 else (direct[: n // 2 + 1], reflected[: n // 2 + 1])

    def __call__(self, spectrum: Complex[Array, ...]) -> Complex[Array, ...]:
        """The filtered spectrum, in the precision of the spectrum."""
        other = spectrum.conj() if spectrum.ndim == 1 else _reflect(spectrum)
        return self.direct.astype(spectrum.real.dtype) * spectrum + self.reflected.astype(spectrum.dtype) * other


def cosine_eigenvalues(n: int, dx: float | Float[Array, ""] = 1.0) -> Float[Array, " {n}"]:
    """Eigenvalues of the three-point -∂²/∂x² between walls (no flux), in the order of the cosine transform: (2 - 2 cos(πk/n)) / dx²."""
    return jnp.asarray(4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2) / dx**2


def fourier_eigenvalues(n: int, dx: float | Float[Array, ""] = 1.0) -> Float[Array, " {n}//2+1"]:
    """Eigenvalues of the periodic three-point -∂²/∂x², in the order of the real FFT: (2 - 2 cos(2πk/n)) / dx²."""
    return jnp.asarray(4 * np.sin(np.pi * np.arange(n // 2 + 1) / n) ** 2) / dx**2


def cosine_wavenumbers(n: int, dx: float | Float[Array, ""] = 1.0) -> Float[Array, " {n}"]:
    """Wavenumbers of the cosine transform: π k / (n dx)."""
    return jnp.asarray(np.pi * np.arange(n) / n) / dx


# In two real planes: compiled, complex factors over concatenations cost as much again as the FFT.
def _cosine_fourier(x: Array) -> tuple[Array, Array]:
    spectrum = fold_spectrum(x)
    phase = _phase(x.shape[0], spectrum.dtype)[:, None]
    turned = _times(phase, spectrum.real, spectrum.imag)
    # conj(Vₖ) of each real column is V₋ₖ, and stays so under the transform along the other axis.
    mirrored = _times(phase.conj(), _reflect(spectrum.real), _reflect(spectrum.imag))
    return turned[0] + mirrored[0], turned[1] + mirrored[1]


def _inverse_cosine_fourier(real: Array, imaginary: Array, ny: int) -> Array:
    nx = real.shape[0]
    # Xₖ - i X₍ₙ₋ₖ₎ with X₍ₙ₎ = 0 is twice the turned spectrum; for k > n/2 it is the conjugate pair's own entry.
    mirrored_real, mirrored_imaginary = _mirror(real), _mirror(imaginary)
    half_turn = _phase(nx, jnp.result_type(real, jnp.complex64))[:, None].conj() / 2
    spectrum = jax.lax.complex(*_times(half_turn, real + mirrored_imaginary, imaginary - mirrored_real))
    return _unfold(jnp.fft.irfft2(spectrum, (nx, ny)), 0)


def _times(factor: Array, real: Array, imaginary: Array) -> tuple[Array, Array]:
    """A complex factor times a complex number in two planes."""
    return factor.real * real - factor.imag * imaginary, factor.real * imaginary + factor.imag * real


def _reflect(x: Array) -> Array:
    """Entry k from entry -k modulo n."""
    return jnp.concatenate([x[:1], jnp.flip(x[1:], 0)])


def _mirror(x: Array) -> Array:
    """Entry k from entry n - k, and zero for k = 0."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), jnp.flip(x[1:], 0)])


def _phase(n: int, dtype: np.dtype) -> Array:
    return jnp.asarray(np.exp(-0.5j * np.pi * np.arange(n) / n), dtype)


def _last(x: Array, ndim: int) -> Array:
    return x.reshape(*(1 for _ in range(ndim - 1)), -1)


def _fold(x: Array, axis: int) -> Array:
    even, odd = (jax.lax.slice_in_dim(x, start, None, 2, axis) for start in (0, 1))
    return jnp.concatenate([even, jnp.flip(odd, axis)], axis)


def _unfold(x: Array, axis: int) -> Array:
    n, axis = x.shape[axis], axis % x.ndim
    even, odd = jnp.split(x, [(n + 1) // 2], axis)
    # An odd count has one even-numbered entry more; what fills the gap is cut off again.
    filling = jax.lax.slice_in_dim(even, 0, n % 2, axis=axis)
    odd = jnp.concatenate([jnp.flip(odd, axis), filling], axis)
    pairs = jnp.stack([even, odd], axis + 1).reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(pairs, 0, n, axis=axis)
