"""Measurements of images as linear maps whose adjoints are exact: magnetic resonance, tomography, masks, blur and coarse pixels.

Each map knows its norm-preserving real or complex inner product: `⟨A x, y⟩ = ⟨x, Aᴴ y⟩`, the real part of it where images are real and
measurements complex. The adjoint is the map's own transpose, made by `jax.linear_transpose`, so that it cannot disagree with the map, as a
filtered or rescaled back-projection would. What a weight of the misfit means depends on the size of A:
[`normalised`][gradatim.transport.normalised] brings it to 1.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact

from gradatim.numerics.singular_values import top_singular_value_of_map

MOST_ENTRIES = 2**28
"Of a projection matrix: a gigabyte in single precision."


class AbstractForward(eqx.Module):
    """A linear map of images to measurements: `forward(images)`, for any number of leading axes."""

    shape: eqx.AbstractVar[tuple[int, int]]
    "Height and width of an image."
    has_complex_images: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def of_one(self, image: Inexact[Array, "height width"]) -> Inexact[Array, ...]:
        """The measurement of one image."""

    def __call__(self, images: Inexact[Array, "*batch height width"]) -> Inexact[Array, ...]:
        """The measurement of each image.

        **Raises:** `ValueError` for images of another size, or complex ones where real ones are measured.
        """
        if images.shape[-2:] != self.shape:
            raise ValueError(f"images must end in the axes {self.shape}, got shape {images.shape}")
        if jnp.iscomplexobj(images) and not self.has_complex_images:
            raise ValueError("images must be real for this operator, got complex ones: set has_complex_images where it has that field")
        return _batched(self.of_one, images, 2)

    def adjoint(self, measurements: Inexact[Array, ...]) -> Inexact[Array, ...]:
        """Aᴴ of each measurement: an image.

        **Raises:** `ValueError` for measurements of another shape.
        """
        real = jnp.finfo(measurements.dtype).dtype
        like = jax.ShapeDtypeStruct(self.shape, jnp.result_type(real, jnp.complex64) if self.has_complex_images else real)
        expected = jax.eval_shape(self.of_one, like)
        lead = measurements.ndim - expected.ndim
        if lead < 0 or measurements.shape[lead:] != expected.shape:
            raise ValueError(f"measurements must end in the axes {expected.shape}, got shape {measurements.shape}")
        if jnp.iscomplexobj(measurements) and not jnp.issubdtype(expected.dtype, jnp.complexfloating):
            raise ValueError("measurements must be real for this operator, got complex ones")
        transpose = jax.linear_transpose(self.of_one, like)
        # Transposes are without conjugation; of real arrays the conjugate is the array.
        whole = measurements.astype(expected.dtype)
        return jnp.conj(_batched(lambda one: transpose(one)[0], jnp.conj(whole), expected.ndim))

    def normal(self, images: Inexact[Array, "*batch height width"]) -> Inexact[Array, "*batch height width"]:
        """AᴴA of each image."""
        return self.adjoint(self(images))


class CartesianMRI(AbstractForward):
    """Lines of k-space of several receiver coils: y_c = M F (S_c x), F the orthonormal Fourier transform.

    Frequencies stand in NumPy's order, zero first. With one coil of sensitivity one A Aᴴ is a projection.

    **Arguments:** `mask`: which frequencies are measured, such as [`cartesian_mask`][gradatim.transport.cartesian_mask]'s;
    `sensitivities` S_c, best with Σ |S_c|² = 1, such as [`coil_sensitivities`][gradatim.transport.coil_sensitivities]; None: one coil;
    `has_complex_images`: images with a phase; real ones let each frequency stand for its opposite too.

    >>> scanner = CartesianMRI(jnp.ones((4, 4), bool))
    >>> image = jnp.arange(16.0).reshape(4, 4)
    >>> print(f"{jnp.abs(eqx.filter_jit(scanner.normal)(image) - image).max():.1f}")
    0.0
    """

    mask: Bool[Array, "height width"]
    sensitivities: Complex[Array, "coils height width"]
    shape: tuple[int, int] = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(
        self,
        mask: Bool[Array, "height width"],
        sensitivities: Complex[Array, "coils coil_height coil_width"] | None = None,
        *,
        has_complex_images: bool = False,
    ) -> None:
        if sensitivities is None:
            sensitivities = jnp.ones((1, *mask.shape), jnp.result_type(float, jnp.complex64))
        if sensitivities.shape[1:] != mask.shape:
            raise ValueError(f"sensitivities must have the mask's shape {mask.shape}, got {sensitivities.shape[1:]}")
        height, width = mask.shape
        self.mask, self.sensitivities = mask, sensitivities
        self.shape, self.has_complex_images = (height, width), has_complex_images

    def of_one(self, image: Inexact[Array, "height width"]) -> Complex[Array, "coils height width"]:
        """k-space of every coil, zero where nothing is measured."""
        whole = image if jnp.iscomplexobj(image) else jax.lax.complex(image, jnp.zeros_like(image))
        spectra = jnp.fft.fft2(self.sensitivities.astype(whole.dtype) * whole[None], norm="ortho")
        return spectra * self.mask.astype(jnp.finfo(whole.dtype).dtype)[None]


class ParallelBeamCT(AbstractForward):
    """Projections along parallel strips: y = P x, each pixel a square that every strip cuts its exact share out of.

    The integral over a strip of width `spacing`, per unit of width, of an image of constant pixels. Detectors are centred on the middle
    of the image, and turn with the angle: its view from 0 adds up columns, from π/2 rows.

    **Arguments:** `side`: pixels of the square image; `angles`, rad; `n_detectors`: by default enough for the diagonal; `pixel`, `spacing`:
    sides of a pixel and of a detector, in one unit of length.

    **Raises:** `ValueError` for no angle, lengths or counts below zero, or a matrix of more than 2²⁸ entries.

    >>> scanner = ParallelBeamCT(2, np.array([0.0]), n_detectors=2)
    >>> print(scanner(jnp.array([[1.0, 2.0], [3.0, 4.0]])))
    [[4. 6.]]
    """

    matrix: Float[Array, "views detectors pixels"]
    shape: tuple[int, int] = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(
        self, side: int, angles: Float[np.ndarray, " views"], *, n_detectors: int | None = None, pixel: float = 1.0, spacing: float = 1.0
    ) -> None:
        if not (pixel > 0 and spacing > 0 and side >= 1 and len(angles) >= 1):
            raise ValueError(
                f"side, the number of angles, pixel and spacing must be positive, got {side}, {len(angles)}, {pixel} and {spacing}"
            )
        if n_detectors is None:
            n_detectors = 2 * math.ceil(side * pixel / spacing / math.sqrt(2)) + 1
        if n_detectors < 1 or len(angles) * n_detectors * side**2 > MOST_ENTRIES:
            raise ValueError(
                f"n_detectors must be at least 1 and the matrix have at most {MOST_ENTRIES} entries, got {n_detectors} detectors"
            )
        centres = pixel * (np.arange(side) - (side - 1) / 2)
        # Rows count downwards, heights upwards.
        across, up = np.meshgrid(centres, -centres)
        edges = spacing * (np.arange(n_detectors + 1) - n_detectors / 2)
        shares = [
            np.diff(_square_below(edges[:, None] - (math.cos(angle) * across + math.sin(angle) * up).ravel()[None], angle, pixel), axis=0)
            for angle in angles
        ]
        self.matrix = jnp.asarray(np.stack(shares) * pixel**2 / spacing, jnp.result_type(float))
        self.shape, self.has_complex_images = (side, side), False

    def of_one(self, image: Float[Array, "height width"]) -> Float[Array, "views detectors"]:
        """The projection from every view."""
        return jnp.einsum("vdp,p->vd", self.matrix.astype(image.dtype), image.ravel())


class Inpainting(AbstractForward):
    """Pixels that are seen: y = M x.

    >>> print(Inpainting(jnp.array([[True, False, True]]))(jnp.array([[1.0, 2.0, 3.0]])))
    [[1. 0. 3.]]
    """

    mask: Bool[Array, "height width"]
    shape: tuple[int, int] = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(self, mask: Bool[Array, "height width"], *, has_complex_images: bool = False) -> None:
        height, width = mask.shape
        self.mask, self.shape, self.has_complex_images = mask, (height, width), has_complex_images

    def of_one(self, image: Inexact[Array, "height width"]) -> Inexact[Array, "height width"]:
        """The image, zero where it is not seen."""
        return image * self.mask.astype(jnp.finfo(image.dtype).dtype)


class Blur(AbstractForward):
    """A periodic convolution: y = F⁻¹(k̂ F x).

    **Arguments:** `kernel`: odd sides, its middle the pixel itself; `shape`: of the images, at least that of the kernel.

    **Raises:** `ValueError` for a kernel with an even side, or larger than the images.

    >>> blur = Blur(jnp.full((1, 3), 1 / 3), (2, 4))
    >>> print(blur(jnp.array([[3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])).round(3))
    [[1. 1. 0. 1.]
     [0. 0. 0. 0.]]
    """

    kernel: Float[Array, "rows columns"]
    shape: tuple[int, int] = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(self, kernel: Float[Array, "rows columns"], shape: tuple[int, int]) -> None:
        if any(side % 2 == 0 or side > whole for side, whole in zip(kernel.shape, shape, strict=True)):
            raise ValueError(f"kernel must have odd sides of at most {shape}, got {kernel.shape}")
        self.kernel, self.shape, self.has_complex_images = kernel, shape, False

    def of_one(self, image: Float[Array, "height width"]) -> Float[Array, "height width"]:
        """The blurred image."""
        rows, columns = self.kernel.shape
        whole = jnp.zeros(self.shape, image.dtype).at[:rows, :columns].set(self.kernel.astype(image.dtype))
        factor = jnp.fft.rfft2(jnp.roll(whole, (-(rows // 2), -(columns // 2)), (0, 1)))
        return jnp.fft.irfft2(factor * jnp.fft.rfft2(image), s=self.shape)


class SuperResolution(AbstractForward):
    """Coarse pixels: the mean of each block of `factor` × `factor`.

    **Raises:** `ValueError` for a factor that does not divide both sides.

    >>> print(SuperResolution((2, 4), 2)(jnp.arange(8.0).reshape(2, 4)))
    [[2.5 4.5]]
    """

    shape: tuple[int, int] = eqx.field(static=True)
    factor: int = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int], factor: int, *, has_complex_images: bool = False) -> None:
        if factor < 1 or shape[0] % factor or shape[1] % factor:
            raise ValueError(f"factor must divide both sides of {shape}, got {factor}")
        self.shape, self.factor, self.has_complex_images = shape, factor, has_complex_images

    def of_one(self, image: Inexact[Array, "height width"]) -> Inexact[Array, "rows columns"]:
        """The coarse image."""
        height, width = self.shape
        return image.reshape(height // self.factor, self.factor, width // self.factor, self.factor).mean((1, 3))


class Forward(AbstractForward):
    """Any linear function of one image, such as one of your own.

    >>> sums = Forward(lambda image: image.sum(axis=0), (2, 3))
    >>> print(sums.adjoint(jnp.array([1.0, 2.0, 3.0])))
    [[1. 2. 3.]
     [1. 2. 3.]]
    """

    function: Callable[[Any], Any]
    shape: tuple[int, int] = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(self, function: Callable[[Any], Any], shape: tuple[int, int], *, has_complex_images: bool = False) -> None:
        self.function, self.shape, self.has_complex_images = function, shape, has_complex_images

    def of_one(self, image: Inexact[Array, "height width"]) -> Inexact[Array, ...]:
        """The function's value."""
        return self.function(image)


class Scaled(AbstractForward):
    """A multiple of an operator: whoever measures with this multiplies the measurements too."""

    operator: AbstractForward
    factor: Float[Array, ""]
    shape: tuple[int, int] = eqx.field(static=True)
    has_complex_images: bool = eqx.field(static=True)

    def __init__(self, operator: AbstractForward, factor: Float[Array, ""]) -> None:
        self.operator, self.factor = operator, factor
        self.shape, self.has_complex_images = operator.shape, operator.has_complex_images

    def of_one(self, image: Inexact[Array, "height width"]) -> Inexact[Array, ...]:
        """The measurement, scaled."""
        return self.factor.astype(jnp.finfo(image.dtype).dtype) * self.operator.of_one(image)


def normalised(operator: AbstractForward, *, iterations: int = 50) -> Scaled:
    """The operator over its largest singular value, found by power iteration, over complex images where it has them.

    **Arguments:** `operator`; `iterations`: their value is an estimate from below, so that the norm may come out a little above 1.

    >>> scanner = normalised(Forward(lambda image: 3 * image, (2, 2)))
    >>> print(f"{scanner.factor:.4f}")
    0.3333
    """
    # A complex image as its two parts: on them AᴴA is symmetric, with the same eigenvalues.
    zeros = jnp.zeros((2 if operator.has_complex_images else 1) * math.prod(operator.shape))
    product = jax.jit(lambda v: top_singular_value_of_map(lambda x: _normal_of(operator, x), lambda x: x, v, iterations=iterations).value)
    return Scaled(operator, 1 / jnp.sqrt(product(zeros)))


def coil_sensitivities(side: int, n_coils: int, *, width: float = 0.6) -> Complex[np.ndarray, "{n_coils} {side} {side}"]:
    """Bumps around places on a circle about the image, each with a slope of phase of its own, and Σ |S_c|² = 1 in every pixel.

    **Arguments:** `side`: pixels; `n_coils` ≥ 1; `width`: standard deviation of a bump in units of the side.

    **Raises:** `ValueError` for counts below 1 or a width that is not positive.

    >>> print(f"{(np.abs(coil_sensitivities(8, 4)) ** 2).sum(axis=0).min():.6f}")
    1.000000
    """
    if side < 1 or n_coils < 1 or not width > 0:
        raise ValueError(f"side, n_coils and width must be positive, got {side}, {n_coils} and {width}")
    places = (np.arange(side) + 0.5) / side - 0.5
    down, across = np.meshgrid(places, places, indexing="ij")
    turns = 2 * np.pi * np.arange(n_coils)[:, None, None] / n_coils
    squares = (across[None] - 0.6 * np.cos(turns)) ** 2 + (down[None] - 0.6 * np.sin(turns)) ** 2
    phases = np.pi * (np.sin(turns) * across[None] + np.cos(turns) * down[None]) + turns
    bumps = np.exp(-squares / (2 * width**2) + 1j * phases)
    return (bumps / np.sqrt((np.abs(bumps) ** 2).sum(axis=0, keepdims=True))).astype(np.complex64)


def cartesian_mask(
    side: int, acceleration: int, *, seed: int, kind: Literal["uniform", "gaussian"] = "uniform", centre_share: float = 0.08
) -> Bool[np.ndarray, "{side} {side}"]:
    """Columns of k-space: the lowest frequencies, and random ones up to one in `acceleration`, zero frequency first.

    **Arguments:** `side`; `acceleration` ≥ 1; `seed` of the draw; `kind`: whether the others are drawn evenly, or from a normal law about
    zero frequency with a third of the half side as standard deviation; `centre_share`: of all columns, the lowest ones taken.

    **Raises:** `ValueError` where these do not leave a column, or the share is outside [0, 1].

    >>> print(cartesian_mask(16, 4, seed=0)[0].sum(), cartesian_mask(16, 4, seed=0)[0, 0])
    4 True
    """
    if kind not in ("uniform", "gaussian"):
        raise ValueError(f"kind must be 'uniform' or 'gaussian', got {kind!r}")
    if not 1 <= acceleration <= side:
        raise ValueError(f"acceleration must lie between 1 and the side, {side}, got {acceleration}")
    if not 0 <= centre_share <= 1:
        raise ValueError(f"centre_share must lie in [0, 1], got {centre_share}")
    frequency = np.abs(np.fft.fftfreq(side, 1 / side))
    order = np.argsort(frequency, kind="stable")
    centre = order[: max(round(centre_share * side), 1)]
    weight = np.ones(side) if kind == "uniform" else np.exp(-((frequency / (side / 6)) ** 2) / 2)
    weight[centre] = 0
    more = max(side // acceleration - len(centre), 0)
    columns = np.zeros(side, bool)
    columns[centre] = True
    columns[np.random.default_rng(seed).choice(side, more, replace=False, p=weight / weight.sum())] = True
    return np.broadcast_to(columns, (side, side)).copy()


def _batched(function: Callable[[Any], Any], arrays: Array, axes: int) -> Array:
    lead = arrays.shape[: arrays.ndim - axes]
    found = jax.vmap(function)(arrays.reshape(-1, *arrays.shape[arrays.ndim - axes :]))
    return found.reshape(*lead, *found.shape[1:])


def _normal_of(operator: AbstractForward, x: Float[Array, " numbers"]) -> Float[Array, " numbers"]:
    if not operator.has_complex_images:
        return operator.normal(x.reshape(operator.shape)).ravel()
    image = operator.normal(jax.lax.complex(*x.reshape(2, *operator.shape)))
    return jnp.stack([image.real, image.imag]).ravel()


def _square_below(offset: np.ndarray, angle: float, pixel: float) -> np.ndarray:
    """The share of a square about zero that lies below a line at this offset along a direction: a trapezium's area, summed up."""
    long, short = sorted((abs(math.cos(angle)) * pixel, abs(math.sin(angle)) * pixel), reverse=True)
    # The square's shadow is the sum of two even ones; of a vanishing one nothing is left.
    if short < 1e-9 * long:
        return np.clip(offset / long + 0.5, 0, 1)
    quadratic = sum(
        sign * np.maximum(offset + shift, 0) ** 2
        for sign, shift in ((1, (long + short) / 2), (-1, (long - short) / 2), (-1, (short - long) / 2), (1, -(long + short) / 2))
    )
    return np.asarray(quadratic / (2 * long * short))
