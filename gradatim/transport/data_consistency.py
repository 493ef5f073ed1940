"""How an estimate of a clean image is fitted to a measurement, without a derivative of the network that made it
(Chung, Lee and Ye, arXiv:2303.05754; ranges and null spaces: Wang, Yu and Zhang, arXiv:2212.00490).

Each is a step `x, state = consistency(operator, y, x, state)` for a batch of images. All but the pseudo-inverse move x by combinations of
(AᴴA)ⁱ Aᴴ(y - A x) alone: what the operator does not see of x, stays.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from gradatim.numerics.checks import is_known
from gradatim.numerics.conjugate_gradient import conjugate_gradient

from .imaging import AbstractForward

Images = Inexact[Array, "*batch height width"]


class AbstractConsistency(eqx.Module):
    """A step towards the measurement, with what it remembers from one level of noise to the next."""

    def init(self, x: Images) -> Any:
        """What is remembered at the start, nothing by default."""
        del x
        return None

    @abc.abstractmethod
    def __call__(self, operator: AbstractForward, y: Inexact[Array, ...], x: Images, state: Any) -> tuple[Images, Any]:
        """The fitted images, and what is remembered now."""


def krylov_data_consistency(
    operator: AbstractForward, y: Inexact[Array, ...], x: Images, *, n_steps: int = 5, tolerance: float = 1e-5
) -> Images:
    """The images of x + span((AᴴA)ⁱ Aᴴ(y - A x), i < n_steps) that fit the measurement best; for data without noise.

    Steps of conjugate gradients on AᴴA x = Aᴴy, from x. With as many steps as A has ranks it is x - A⁺(A x - y).

    **Arguments:** `operator`: A; `y`: measurements, with the images' leading axes; `x`; `n_steps` ≥ 0, the article's 5 by default: too many
    fit noise, too few do nothing where A is badly conditioned; `tolerance`: see
    [`conjugate_gradient`][gradatim.numerics.conjugate_gradient].

    **Raises:** `ValueError` for measurements that do not fit the images.

    >>> from gradatim.transport import Inpainting
    >>> seen = Inpainting(jnp.array([[True, False]]))
    >>> print(krylov_data_consistency(seen, jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 1.0]])))
    [[3. 1.]]
    """
    _check_measurements(operator, y, x)
    return conjugate_gradient(operator.normal, operator.adjoint(y), x, n_steps=n_steps, batch_axes=x.ndim - 2, tolerance=tolerance).x


def proximal_data_consistency(
    operator: AbstractForward,
    y: Inexact[Array, ...],
    x: Images,
    gamma: Float[Array, ...] | float,
    *,
    n_steps: int = 5,
    tolerance: float = 1e-5,
) -> Images:
    """The x′ of least (γ/2) ‖y - A x′‖² + (1/2) ‖x′ - x‖², for noisy data: conjugate gradients on (I + γ AᴴA) x′ = x + γ Aᴴy, from x.

    γ → ∞ is [`krylov_data_consistency`][gradatim.transport.krylov_data_consistency], γ → 0 leaves x. The right-hand side is complex where
    the images are: with real and imaginary part as channels the measurement must not be added to both.

    **Arguments:** `gamma` > 0, one or one for each image, whose meaning depends on the size of A and of the images; the others as there.

    **Raises:** `ValueError` for a γ that is not positive, or measurements that do not fit.

    >>> from gradatim.transport import Inpainting
    >>> seen = Inpainting(jnp.array([[True, False]]))
    >>> print(proximal_data_consistency(seen, jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 1.0]]), 1.0))  # half of the way
    [[2. 1.]]
    """
    if is_known(gamma) and not np.all(np.asarray(gamma) > 0):
        raise ValueError(f"gamma must be positive, got {gamma}")
    _check_measurements(operator, y, x)
    weight = jnp.broadcast_to(jnp.asarray(gamma, jnp.finfo(x.dtype).dtype), x.shape[:-2])[..., None, None]

    def product(x: Array) -> Array:
        return x + weight * operator.normal(x)

    target = x + weight * operator.adjoint(y)
    return conjugate_gradient(product, target, x, n_steps=n_steps, batch_axes=x.ndim - 2, tolerance=tolerance).x


class Krylov(AbstractConsistency):
    """[`krylov_data_consistency`][gradatim.transport.krylov_data_consistency] at every level.

    >>> from gradatim.transport import Inpainting
    >>> y, x = jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 1.0]])
    >>> print(Krylov()(Inpainting(jnp.array([[True, False]])), y, x, None)[0])
    [[3. 1.]]
    """

    n_steps: int = eqx.field(static=True, default=5)

    def __call__(self, operator: AbstractForward, y: Inexact[Array, ...], x: Images, state: Any) -> tuple[Images, Any]:
        """Best fit in the Krylov space."""
        return krylov_data_consistency(operator, y, x, n_steps=self.n_steps), state


class Proximal(AbstractConsistency):
    """[`proximal_data_consistency`][gradatim.transport.proximal_data_consistency] at every level.

    >>> from gradatim.transport import Inpainting
    >>> y, x = jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 1.0]])
    >>> print(Proximal(3.0)(Inpainting(jnp.array([[True, False]])), y, x, None)[0])  # three parts of four
    [[2.5 1. ]]
    """

    gamma: Float[Array, "*batch"] = eqx.field(converter=jnp.asarray, default=1.0)
    n_steps: int = eqx.field(static=True, default=5)

    def __check_init__(self) -> None:
        if is_known(self.gamma) and not np.all(np.asarray(self.gamma) > 0):
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def __call__(self, operator: AbstractForward, y: Inexact[Array, ...], x: Images, state: Any) -> tuple[Images, Any]:
        """Balance between the misfit and the estimate."""
        return proximal_data_consistency(operator, y, x, self.gamma, n_steps=self.n_steps), state


class RangeNullSpace(AbstractConsistency):
    """x - A⁺(A x - y), with A⁺ = (AᴴA)⁺Aᴴ: what the operator sees is taken from the measurement, noise and all (DDNM).

    **Arguments:** `inverse`: (AᴴA)⁺, as a matrix of pixels, one or one for each image.

    >>> from gradatim.transport import SuperResolution
    >>> mean = SuperResolution((2, 2), 2)
    >>> x, _ = RangeNullSpace.of(mean)(mean, jnp.array([[2.5]]), jnp.array([[0.0, 1.0], [2.0, 3.0]]), None)
    >>> print([f"{pixel:.2f}" for pixel in x.ravel()])  # of mean 1.5, and measured as 2.5
    ['1.00', '2.00', '3.00', '4.00']
    """

    inverse: Inexact[Array, "*batch pixels pixels"]

    @classmethod
    def of(cls, operator: AbstractForward, *, cutoff: float | Float[np.ndarray, "*batch"] = 1e-2) -> RangeNullSpace:
        """By the singular values of A above `cutoff` times the largest, in (0, 1): of several cutoffs, as many matrices.

        AᴴA, whose eigenvalues are their squares, is made in double precision, so that the cut is where it is said to be. In single
        precision, which the step then takes, what it does along a singular vector has an error of about 1e-7 over the square of its
        value's share of the largest: one that is kept at a thousandth leaves a digit.

        **Raises:** `ValueError` for a cutoff outside (0, 1).
        """
        cutoffs = np.asarray(cutoff, np.float64)
        if not ((cutoffs > 0) & (cutoffs < 1)).all():
            raise ValueError(f"cutoff must lie in (0, 1), got {cutoff}")
        height, width = operator.shape
        dtype = jnp.result_type(float, jnp.complex64) if operator.has_complex_images else jnp.result_type(float)
        with jax.enable_x64(True):
            basis = jnp.eye(height * width, dtype=jnp.promote_types(dtype, jnp.float64)).reshape(-1, height, width)
            # Column by column, and so Hermitian but for round-off.
            normal = np.asarray(_normal_of_all(operator, basis)).reshape(height * width, -1).T
        values, vectors = np.linalg.eigh((normal + normal.conj().T) / 2)
        is_kept = values > cutoffs[..., None] ** 2 * values[-1]
        inverses = np.where(is_kept, 1 / np.where(values > 0, values, 1), 0)
        inverse = (vectors * inverses[..., None, :]) @ vectors.conj().T
        return cls(jnp.asarray(inverse, dtype))

    def __call__(self, operator: AbstractForward, y: Inexact[Array, ...], x: Images, state: Any) -> tuple[Images, Any]:
        """The projection."""
        _check_measurements(operator, y, x)
        gap = operator.adjoint(operator(x) - y).reshape(*x.shape[:-2], -1)
        return x - jnp.einsum("...ij,...j->...i", self.inverse.astype(x.dtype), gap).reshape(x.shape), state


class SlicesState(NamedTuple):
    """What total variation across slices remembers from one level of noise to the next."""

    split: Inexact[Array, "*batch slices height width"]
    "z, which stands for D x."
    dual: Inexact[Array, "*batch slices height width"]
    "u, scaled."


class AcrossSlices(AbstractConsistency):
    """One sweep of the alternating directions method for ‖y - A x‖² / 2 + λ ‖D x‖₁, D the periodic difference between neighbouring slices.

        x ← CG(AᴴA + ρ DᵀD, Aᴴy + ρ Dᵀ(z - u), from x);    z ← soft(D x + u, λ/ρ);    u ← u + D x - z

    The estimates come from a network of single slices; z and u live through all levels of noise, so that one sweep each is enough. What ρ
    and λ mean depends on the size of A: the article's values are for a back-projection that is no adjoint.

    **Arguments:** `rho` ρ > 0 and `weight` λ ≥ 0, one or one for each volume; `n_steps` ≥ 0, of conjugate gradients.

    **Raises:** `ValueError` for numbers out of range.

    >>> from gradatim.transport import Inpainting
    >>> first, x = Inpainting(jnp.ones((1, 1), bool)), jnp.array([[[0.0]], [[3.0]]])  # a volume of two slices of one pixel
    >>> across = AcrossSlices(rho=1.0, weight=0.0)
    >>> print([f"{pixel:.2f}" for pixel in across(first, x, x, across.init(x))[0].ravel()])  # drawn together
    ['1.20', '1.80']
    """

    rho: Float[Array, "*batch"] = eqx.field(converter=jnp.asarray)
    weight: Float[Array, "*batch"] = eqx.field(converter=jnp.asarray)
    n_steps: int = eqx.field(static=True, default=5)

    def __check_init__(self) -> None:
        if is_known(self.rho, self.weight) and not (np.all(np.asarray(self.rho) > 0) and np.all(np.asarray(self.weight) >= 0)):
            raise ValueError(f"rho must be positive and weight at least 0, got {self.rho} and {self.weight}")

    def init(self, x: Images) -> SlicesState:
        """Zeros.

        **Raises:** `ValueError` for images that have no axis of slices.
        """
        if x.ndim < 3:
            raise ValueError(f"x must have an axis of slices before its height and width, got shape {x.shape}")
        return SlicesState(jnp.zeros_like(x), jnp.zeros_like(x))

    def __call__(self, operator: AbstractForward, y: Inexact[Array, ...], x: Images, state: SlicesState) -> tuple[Images, SlicesState]:
        """One sweep."""
        _check_measurements(operator, y, x)
        real = jnp.finfo(x.dtype).dtype
        rho, weight = (jnp.broadcast_to(one.astype(real), x.shape[:-3])[..., None, None, None] for one in (self.rho, self.weight))

        def product(x: Array) -> Array:
            return operator.normal(x) + rho * slice_difference_adjoint(slice_difference(x))

        target = operator.adjoint(y) + rho * slice_difference_adjoint(state.split - state.dual)
        # All slices of a volume are one system.
        x = conjugate_gradient(product, target, x, n_steps=self.n_steps, batch_axes=x.ndim - 3).x
        raised = slice_difference(x) + state.dual
        split = soft_threshold(raised, weight / rho)
        return x, SlicesState(split, raised - split)


def slice_difference(x: Inexact[Array, "*batch slices height width"]) -> Inexact[Array, "*batch slices height width"]:
    """D x: each slice's successor less itself, the first one after the last."""
    return jnp.roll(x, -1, axis=-3) - x


def slice_difference_adjoint(z: Inexact[Array, "*batch slices height width"]) -> Inexact[Array, "*batch slices height width"]:
    """Dᵀ z."""
    return jnp.roll(z, 1, axis=-3) - z


def soft_threshold(x: Inexact[Array, "*shape"], threshold: Float[Array, ...] | float) -> Inexact[Array, "*shape"]:
    """Numbers moved towards zero by the threshold, at most to it; complex ones keep their phase.

    >>> print(soft_threshold(jnp.array([-2.0, 0.5, 3.0]), 1.0).round(3))
    [-1.  0.  2.]
    """
    size = jnp.abs(x)
    return x * jnp.where(size > threshold, 1 - threshold / jnp.where(size > threshold, size, 1), 0)


@eqx.filter_jit
def _normal_of_all(operator: AbstractForward, images: Images) -> Images:
    return operator.normal(images)


def _check_measurements(operator: AbstractForward, y: Inexact[Array, ...], x: Images) -> None:
    expected = jax.eval_shape(operator, x).shape
    if y.shape != expected:
        raise ValueError(f"y must have shape {expected} for images of shape {x.shape}, got {y.shape}")
