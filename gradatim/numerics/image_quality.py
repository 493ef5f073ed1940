"""How near an image is to a reference: the peak signal-to-noise ratio, and the structural similarity (Wang et al., 2004)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

WINDOW = 7
"Pixels a side, over which means and variances are taken evenly, as scikit-image does by default."
K1, K2 = 0.01, 0.03


def psnr(x: Float[Array, "*batch height width"], reference: Float[Array, ...], *, data_range: float) -> Float[Array, "*batch"]:
    """10 log₁₀(R² / mean (x - reference)²), in dB, of each image.

    R is the range that the values *may* have, the same for all images: with each image stretched to its own minimum and maximum first, an
    error of scale or offset would not count.

    **Arguments:** `x`, `reference`; `data_range` R > 0.

    **Raises:** `ValueError` for images of different shapes, or a range that is not positive.

    >>> print(f"{psnr(jnp.full((2, 2), 0.1), jnp.zeros((2, 2)), data_range=1.0):.2f}")
    20.00
    """
    _check(x, reference, data_range)
    return 10 * jnp.log10(data_range**2 / jnp.mean((x - reference) ** 2, axis=(-2, -1)))


def ssim(x: Float[Array, "*batch height width"], reference: Float[Array, ...], *, data_range: float) -> Float[Array, "*batch"]:
    """The structural similarity of each image, 1 for equal ones: the mean over all whole windows of 7 × 7 pixels of

        (2 μ ν + c₁) (2 σ_xy + c₂) / ((μ² + ν² + c₁) (σ_x² + σ_y² + c₂)),     c₁ = (0.01 R)²,  c₂ = (0.03 R)²

    with means μ, ν and unbiased covariances.

    **Arguments:** as for [`psnr`][gradatim.numerics.psnr], of at least 7 × 7 pixels.

    **Raises:** `ValueError` as there, and for smaller images.

    >>> image = jnp.arange(64.0).reshape(8, 8) / 63
    >>> print(f"{ssim(image, image, data_range=1.0):.3f} {ssim(image, 1 - image, data_range=1.0):.3f}")
    1.000 -0.955
    """
    _check(x, reference, data_range)
    if min(x.shape[-2:]) < WINDOW:
        raise ValueError(f"images must have at least {WINDOW} pixels a side, got {x.shape[-2:]}")
    mean_x, mean_y, xx, yy, xy = (_windowed(u) for u in (x, reference, x * x, reference * reference, x * reference))
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    variance = unbiased * (xx - mean_x**2 + yy - mean_y**2)
    covariance = unbiased * (xy - mean_x * mean_y)
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variance + c2))
    return similar.mean((-2, -1))


def _windowed(u: Float[Array, "*batch height width"]) -> Float[Array, "*batch rows columns"]:
    rows = u.shape[-2] - WINDOW + 1
    summed = sum((u[..., i : i + rows, :] for i in range(1, WINDOW)), u[..., :rows, :])
    columns = u.shape[-1] - WINDOW + 1
    return sum((summed[..., i : i + columns] for i in range(1, WINDOW)), summed[..., :columns]) / WINDOW**2


def _check(x: Array, reference: Array, data_range: float) -> None:
    if x.shape != reference.shape:
        raise ValueError(f"reference must have the shape of x, {x.shape}, got {reference.shape}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
