"""Fields in a periodic box: wavenumbers, derivatives, dealiasing and white noise in the layout of the real FFT, and exponential steps."""

from __future__ import annotations

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, PRNGKeyArray


class PeriodicGrid(eqx.Module):
    """Cells of a periodic box in one to three dimensions, and their spectra in the layout of `jnp.fft.rfftn`.

    A field is u(r) = Σₖ uₖ exp(ik·r); what the methods call a spectrum is the plain FFT, which is `n_cells` times uₖ. Odd derivatives have
    no Nyquist mode: the derivative of a real field would not be real there.

    **Arguments:** `shape`: cells along each axis, at least 4; `box`: sides, positive; one number for all.

    >>> grid = PeriodicGrid((8, 8), 2 * jnp.pi)
    >>> wave = grid.forward(jnp.sin(2 * grid.positions()[0]) + jnp.zeros((8, 8)))
    >>> print(f"{float(jnp.abs(grid.backward(grid.laplacian() * wave)).max()):.3f}")
    4.000
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    box: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], box: float | tuple[float, ...]):
        box = (float(box),) * len(shape) if not isinstance(box, tuple) else tuple(map(float, box))
        if len(shape) not in (1, 2, 3) or min(shape) < 4:
            raise ValueError(f"shape must have one to three axes of at least 4 cells each, got {shape}")
        if len(box) != len(shape):
            raise ValueError(f"box must have one side for each of the {len(shape)} axes of shape, got {box}")
        if not all(0 < side < math.inf for side in box):
            raise ValueError(f"box must have positive sides, got {box}")
        self.shape, self.box = tuple(shape), box

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    @property
    def volume(self) -> float:
        """Length, area or volume of the box."""
        return math.prod(self.box)

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Shape of a spectrum: the last axis holds half of it."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1)

    def positions(self) -> tuple[Float[Array, ...], ...]:
        """Corners of the cells along each axis, shaped to broadcast."""
        return self._spread([np.arange(n) * side / n for n, side in zip(self.shape, self.box, strict=True)])

    def wavenumbers(self) -> tuple[Float[Array, ...], ...]:
        """K along each axis, shaped to broadcast against a spectrum."""
        return self._spread(self._wavenumbers())

    def derivative_wavenumbers(self) -> tuple[Float[Array, ...], ...]:
        """K for odd derivatives: 0 at the Nyquist mode."""
        axes = [np.where(2 * np.abs(_indices(k.size, n, i == self.dim - 1)) == n, 0.0, k) for i, (k, n) in enumerate(self._axes())]
        return self._spread(axes)

    def wavevectors(self, *, odd: bool = False) -> Float[Array, "*spectrum dim"]:
        """The vector k of each mode along a last axis; with `odd`, that of odd derivatives."""
        axes = self.derivative_wavenumbers() if odd else self.wavenumbers()
        return jnp.stack([jnp.broadcast_to(k, self.spectrum_shape) for k in axes], -1)

    # Compiled, as is the other: each of their dozen small operations would be a program of its own.
    @jax.jit
    def squared_wavenumber(self) -> Float[Array, ...]:
        """|k|² of each mode."""
        return functools.reduce(jnp.add, [jnp.broadcast_to(k**2, self.spectrum_shape) for k in self.wavenumbers()])

    def laplacian(self) -> Float[Array, ...]:
        """-|k|²."""
        return -self.squared_wavenumber()

    def inverse_laplacian(self) -> Float[Array, ...]:
        """-1/|k|², and 0 for the mean: what solves ∇²φ = ρ for a ρ without mean."""
        square = self.squared_wavenumber()
        return jnp.where(square > 0, -1 / jnp.where(square > 0, square, 1.0), 0.0)

    def dealiased(self) -> Bool[Array, ...]:
        """The modes whose quadratic products do not fall back onto each other: |index| < n/3 along every axis."""
        axes = [3 * np.abs(_indices(k.size, n, i == self.dim - 1)) < n for i, (k, n) in enumerate(self._axes())]
        return functools.reduce(jnp.logical_and, [jnp.broadcast_to(keep, self.spectrum_shape) for keep in self._spread(axes)])

    @jax.jit
    def multiplicity(self) -> Float[Array, ...]:
        """How often each stored mode counts in a sum over all modes: 2 where its conjugate is not stored."""
        n = self.shape[-1]
        weights = np.full(n // 2 + 1, 2.0)
        weights[0] = 1.0
        if n % 2 == 0:
            weights[-1] = 1.0
        return jnp.broadcast_to(jnp.asarray(weights).reshape(*(1 for _ in self.shape[1:]), -1), self.spectrum_shape)

    def forward(self, field: Float[Array, "*batch_shape"]) -> Complex[Array, "*batch_spectrum"]:
        """The spectrum of a field; axes before the grid's stay as they are.

        **Raises:** `ValueError` if the last axes are not those of the grid.
        """
        if field.shape[-self.dim :] != self.shape:
            raise ValueError(f"field must have the grid's shape {self.shape} as its last axes, got {field.shape}")
        return jnp.fft.rfftn(field, axes=tuple(range(-self.dim, 0)))

    def backward(self, spectrum: Complex[Array, "*batch_spectrum"]) -> Float[Array, "*batch_shape"]:
        """The field of a spectrum, inverse of `forward`.

        **Raises:** `ValueError` if the last axes are not those of the grid's spectra.
        """
        if spectrum.shape[-self.dim :] != self.spectrum_shape:
            raise ValueError(f"spectrum must have {self.spectrum_shape} as its last axes, got {spectrum.shape}")
        return jnp.fft.irfftn(spectrum, self.shape, axes=tuple(range(-self.dim, 0)))

    def structure_factor(self, spectrum: Complex[Array, "*batch_spectrum"]) -> Float[Array, "*batch_spectrum"]:
        """V |uₖ|² of one sample: its mean is the structure factor, N̄/V at all k for independent particles."""
        return (spectrum.real**2 + spectrum.imag**2) * (self.volume / self.n_cells**2)

    def white_noise(self, key: PRNGKeyArray, dtype: jnp.dtype | type = float) -> Complex[Array, ...]:
        """Independent complex numbers wₖ with ⟨|wₖ|²⟩ = 1 that belong to a real field: w₋ₖ = wₖ*, real where k = -k."""
        *outer, half = self.spectrum_shape
        # Flat: several axes compile many times slower.
        real, imag = jax.random.normal(key, (2 * math.prod(self.spectrum_shape),), dtype).reshape(2, *outer, half) * math.sqrt(0.5)
        noise = jax.lax.complex(real, imag)
        for i in (0, half - 1) if self.shape[-1] % 2 == 0 else (0,):
            plane = noise[..., i]
            noise = noise.at[..., i].set((plane + _reflect(plane).conj()) * math.sqrt(0.5))
        return noise

    def _wavenumbers(self) -> list[np.ndarray]:
        last = self.dim - 1
        sizes = zip(self.shape, self.box, self.spectrum_shape, strict=True)
        return [2 * np.pi / side * _indices(size, n, i == last) for i, (n, side, size) in enumerate(sizes)]

    def _axes(self) -> list[tuple[np.ndarray, int]]:
        return list(zip(self._wavenumbers(), self.shape, strict=True))

    def _spread(self, axes: list[np.ndarray]) -> tuple[Array, ...]:
        return tuple(jnp.asarray(k).reshape([-1 if i == j else 1 for j in range(self.dim)]) for i, k in enumerate(axes))


def phi_1(z: Float[Array, ...]) -> Float[Array, ...]:
    """(exp(z) - 1)/z, 1 at z = 0: the weight of a constant force over an exponential step."""
    # The closed form has all digits at any z but 0, but not its derivative.
    small = jnp.abs(z) < 1e-4
    safe = jnp.where(small, 1.0, z)
    near = jnp.where(small, z, 0.0)
    return jnp.where(small, 1 + near / 2 * (1 + near / 3 * (1 + near / 4)), jnp.expm1(safe) / safe)


def phi_2(z: Float[Array, ...]) -> Float[Array, ...]:
    """(exp(z) - 1 - z)/z², ½ at z = 0: the weight of a force that grows in proportion to time."""
    # Below 1/2 the closed form loses digits, and the series to z¹² has them all.
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, -1.0, z)
    coefficients = jnp.asarray([1 / math.factorial(k + 2) for k in range(12, -1, -1)], z.dtype)
    return jnp.where(small, jnp.polyval(coefficients, jnp.where(small, z, 0.0)), (jnp.expm1(safe) - safe) / safe**2)


def phi_3(z: Float[Array, ...]) -> Float[Array, ...]:
    """(exp(z) - 1 - z - z²/2)/z³, 1/6 at z = 0: the weight of a force that grows as the square of time."""
    # As for φ₂; the series goes to z¹⁴.
    small = jnp.abs(z) < 1
    safe = jnp.where(small, -1.0, z)
    coefficients = jnp.asarray([1 / math.factorial(k + 3) for k in range(14, -1, -1)], z.dtype)
    return jnp.where(small, jnp.polyval(coefficients, jnp.where(small, z, 0.0)), (jnp.expm1(safe) - safe - safe**2 / 2) / safe**3)


def _indices(size: int, n: int, is_half: bool) -> np.ndarray:
    return np.arange(size) if is_half else np.rint(np.fft.fftfreq(n) * n).astype(int)


def _reflect(plane: Array) -> Array:
    """Entry k from entry -k along every axis."""
    for axis in range(plane.ndim):
        plane = jnp.roll(jnp.flip(plane, axis), 1, axis)
    return plane
