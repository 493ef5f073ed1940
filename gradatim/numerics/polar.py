"""Polar factors by Newton–Schulz, and steepest descent under a named norm: dual norm, sharp operator, linear minimisation.

A gradient G lives in the dual of the space of its weights. Under a norm ‖·‖ of the weights, with its dual ‖G‖_* = max ⟨G, Z⟩ over ‖Z‖ ≤ 1:

    LMO_t(G) = argmin ⟨G, Z⟩ over ‖Z‖ ≤ t           value -t ‖G‖_*
    G^♯ = argmax ⟨G, Z⟩ - ½ ‖Z‖²                    ⟨G, G^♯⟩ = ‖G‖_*² = ‖G^♯‖²
    LMO_t(G) = -t G^♯ / ‖G‖_*

| norm           | ‖Z‖ of the weights, out × in             | ‖G‖_*                 | G^♯ / ‖G‖_*           |
| ---            | ---                                      | ---                   | ---                   |
| `"spectral"`   | largest singular value                   | ‖G‖_nuc               | U Vᵀ                  |
| `"rms_to_rms"` | √(in/out) times the largest singular one | √(out/in) ‖G‖_nuc     | √(out/in) U Vᵀ        |
| `"frobenius"`  | √Σ Zᵢⱼ²                                  | √Σ Gᵢⱼ²               | G / ‖G‖               |
| `"rms"`        | root of the mean square                  | √d √Σ Gᵢ²             | √d G / ‖G‖            |
| `"sign"`       | largest absolute entry                   | Σ abs(Gᵢⱼ)            | sign G                |
| `"column"`     | largest Euclidean length of a column     | sum of these lengths  | each column / length  |
| `"row"`        | largest Euclidean length of a row        | sum of these lengths  | each row / length     |

The steepest step under the spectral norm is ‖G‖_nuc U Vᵀ: U Vᵀ alone is the step of unit length. Matrix norms take the last two
axes and the others as a batch; `"rms"` takes the last axis; `"frobenius"` and `"sign"` the last two, or all of a vector. The table of a
network's layers: Bernstein and Newhouse, *Old Optimizer, New Norm*, arXiv:2409.20325; Pethick et al., arXiv:2502.07529 (their `column` and
`row` carry a further √out and √in).
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

NORMS = ("spectral", "rms_to_rms", "frobenius", "rms", "sign", "column", "row")
MATRIX_NORMS = ("spectral", "rms_to_rms", "column", "row")
METHODS = ("newton_schulz", "svd")
# Rows from which two halves are multiplied faster than the whole, on a CPU of two cores.
HALVED_FROM = 512

Triple = tuple[float, float, float]
Coefficients = str | Triple | Sequence[Triple]

NEWTON_SCHULZ: dict[str, Triple | tuple[Triple, ...]] = {
    # Jordan et al. 2024: steep at zero, does not converge: singular values end in [0.68, 1.14].
    "jordan": (3.4445, -4.7750, 2.0315),
    # Ahn et al., arXiv:2504.05295.
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    # Amsel et al., arXiv:2505.16932: best at each step for what the step before leaves, from 1e-3 on.
    "polar_express": (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
        (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
        (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        (1.875, -1.25, 0.375),
    ),
    # The classical iteration, which converges, slowly: a singular value grows by 1.5 a step at first.
    "cubic": (1.5, -0.5, 0.0),
    # Its fifth-order sister, by 1.875 a step.
    "quintic": (1.875, -1.25, 0.375),
}
"Named coefficients (a, b, c) of p(x) = a x + b x³ + c x⁵: one triple, or a table with a row a step."


def polar_factor(
    matrix: Inexact[Array, "*batch m n"],
    *,
    method: str = "newton_schulz",
    steps: int = 5,
    coefficients: Coefficients = "jordan",
    eps: float | Array = 0.0,
) -> Inexact[Array, "*batch m n"]:
    """The nearest semi-orthogonal matrix, U Vᵀ of the thin singular value decomposition, or its approximation by matrix products.

        X₀ = M / (‖M‖_F + eps);     A = X Xᵀ,  X ← (a I + b A + c A²) X,   `steps` times, on the smaller side

    which sends each singular value σ/‖M‖_F through p(x) = a x + b x³ + c x⁵
    ([`newton_schulz_singular_map`][gradatim.numerics.newton_schulz_singular_map]).
    **With the default coefficients this does not converge**: what comes out has singular values between 0.68 and 1.14, and
    smaller ones where σ < 1e-3 ‖M‖_F. For the factor itself take `"polar_express"`, whose 8 steps bring all from 1e-3 ‖M‖_F on to 1
    within round-off, or `"svd"`.

    A zero matrix gives zero. Half precision is computed in float32 and rounded at the end.

    **Arguments:** `matrix`: the leading axes are a batch; `method`: `"newton_schulz"` or `"svd"` (whose singular values below
    round-off count as zero; slow, and without a derivative where singular values are equal); `steps`: with a table of
    coefficients its rows are the steps, and this is not used; `coefficients`: a name of `NEWTON_SCHULZ`, a triple, or a table of triples;
    `eps`: added to ‖M‖_F, at least 0 (optax: 1e-8): 0 makes the result independent of the matrix's scale.

    **Raises:** `ValueError` for a name that is none of these, coefficients that are no triples, or fewer than 1 steps.

    >>> print(polar_factor(jnp.array([[3.0, 0.0], [0.0, -1e-3]]), method="svd"))
    [[ 1.  0.]
     [ 0. -1.]]

    Source: Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024).
    """
    check_name("method", method, METHODS)
    table = _table(coefficients, steps)
    dtype = matrix.dtype
    x = matrix.astype(jnp.promote_types(dtype, jnp.float32))
    if method == "svd":
        u, s, vt = jnp.linalg.svd(x, full_matrices=False)
        least = jnp.finfo(x.dtype).eps * max(x.shape[-2:]) * s.max(-1, keepdims=True, initial=0.0)
        return ((u * (s > least)[..., None, :].astype(u.dtype)) @ vt).astype(dtype)
    is_tall = x.shape[-2] > x.shape[-1]
    x = _mT(x) if is_tall else x
    x = _newton_schulz(x, table, eps)
    return (_mT(x) if is_tall else x).astype(dtype)


def newton_schulz_singular_map(
    x: Float[Array, "*shape"], *, steps: int = 5, coefficients: Coefficients = "jordan"
) -> Float[Array, "*shape"]:
    """Where Newton–Schulz sends singular values: x ← a x + b x³ + c x⁵, `steps` times, for x = σ/‖M‖_F in [0, 1].

    **Arguments, raises:** as in [`polar_factor`][gradatim.numerics.polar_factor].

    >>> print([f"{x:.4f}" for x in newton_schulz_singular_map(jnp.array([0.001, 0.1, 1.0]))])
    ['0.4705', '0.7121', '0.6964']
    """
    for a, b, c in _table(coefficients, steps):
        square = x * x
        x = (a + (b + c * square) * square) * x
    return x


def nuclear_norm(
    matrix: Inexact[Array, "*batch m n"], *, method: str = "newton_schulz", steps: int = 5, coefficients: Coefficients = "jordan"
) -> Float[Array, "*batch"]:
    """The sum of the singular values, exactly by `"svd"`, or ⟨M, X⟩ with X of Newton–Schulz.

    By Newton–Schulz each singular value counts 0.68 to 1.14 times with the default coefficients (as long as it is above a
    hundredth of ‖M‖_F); of a matrix of rank one, 0.696436 times.

    **Arguments, raises:** as in [`polar_factor`][gradatim.numerics.polar_factor].

    >>> matrix = jnp.array([[3.0, 0.0], [0.0, -1.0]])
    >>> print(f"{nuclear_norm(matrix, method='svd'):.3f} {nuclear_norm(matrix, coefficients='polar_express'):.3f}")
    4.000 4.000
    """
    check_name("method", method, METHODS)
    x = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    if method == "svd":
        return jnp.linalg.svd(x, compute_uv=False).sum(-1)
    return _inner(x, polar_factor(x, steps=steps, coefficients=coefficients), (-2, -1))


def primal_norm(weights: Inexact[Array, "*shape"], norm: str) -> Float[Array, "*reduced"]:
    """‖Z‖, exactly: the norm in which steps are measured.

    **Arguments, raises:** as in [`dual_norm`][gradatim.numerics.dual_norm].

    >>> print(primal_norm(jnp.array([[3.0, -4.0]]), "sign"), primal_norm(jnp.array([[3.0, -4.0]]), "frobenius"))
    4.0 5.0
    """
    z, axes = _prepared(weights, norm)
    match norm:
        case "spectral" | "rms_to_rms":
            largest = jnp.linalg.svd(z, compute_uv=False).max(-1, initial=0.0)
            return largest if norm == "spectral" else largest / _rms_scale(z)
        case "sign":
            return jnp.abs(z).max(axes, initial=0.0)
        case "column" | "row":
            return _length(z, (-2,) if norm == "column" else (-1,)).max((-2, -1), initial=0.0)
        case _:
            return _flat(_length(z, axes), axes) / (math.sqrt(_size(z, axes)) if norm == "rms" else 1.0)


def dual_norm(
    gradient: Inexact[Array, "*shape"], norm: str, *, method: str = "newton_schulz", steps: int = 5, coefficients: Coefficients = "jordan"
) -> Float[Array, "*reduced"]:
    """‖G‖_*, the largest descent ⟨G, Z⟩ of a step with ‖Z‖ ≤ 1; the table stands at the head of the module.

    **Arguments:** `gradient`; `norm`: of the weights, one of `NORMS`; `method`, `steps`, `coefficients`: of the nuclear norm
    ([`nuclear_norm`][gradatim.numerics.nuclear_norm]; by Newton–Schulz it is approximate).

    **Raises:** `ValueError` for another norm, for a norm of matrices where the gradient has fewer than two axes.

    >>> print(dual_norm(jnp.array([[3.0, -4.0]]), "sign"))
    7.0
    """
    return _steepest(gradient, norm, method, steps, coefficients)[1]


def sharp(
    gradient: Inexact[Array, "*shape"], norm: str, *, method: str = "newton_schulz", steps: int = 5, coefficients: Coefficients = "jordan"
) -> Inexact[Array, "*shape"]:
    """G^♯ = argmax ⟨G, Z⟩ - ½ ‖Z‖²: the step of steepest descent, as long as the gradient is in the dual norm.

    `X ← X - γ G^♯` with γ = 1/L descends a function that is L-smooth in the norm by at least ‖G‖_*²/(2L). Under the spectral norm
    it is ‖G‖_nuc U Vᵀ. Of zero it is zero.

    **Arguments, raises:** as in [`dual_norm`][gradatim.numerics.dual_norm].

    >>> print(sharp(jnp.array([[3.0, 0.0], [0.0, 1.0]]), "spectral", method="svd"))
    [[4. 0.]
     [0. 4.]]
    """
    direction, length, axes = _steepest(gradient, norm, method, steps, coefficients)
    return (direction * _spread(length, axes)).astype(gradient.dtype)


def lmo(
    gradient: Inexact[Array, "*shape"],
    radius: float | Array,
    norm: str,
    *,
    method: str = "newton_schulz",
    steps: int = 5,
    coefficients: Coefficients = "jordan",
) -> Inexact[Array, "*shape"]:
    """The argmin of ⟨G, Z⟩ over ‖Z‖ ≤ radius: the step of a given length that descends most. Of zero it is zero.

    **Arguments, raises:** as in [`dual_norm`][gradatim.numerics.dual_norm]; `radius`: at least 0, a scalar.

    >>> print(lmo(jnp.array([3.0, -4.0]), 0.1, "rms"))
    [-0.08485281  0.11313709]
    """
    direction, _, _ = _steepest(gradient, norm, method, steps, coefficients)
    return (-radius * direction).astype(gradient.dtype)


def check_name(what: str, name: str, allowed: Sequence[str]) -> None:
    """Raises `ValueError` with the names that are allowed, and the one that is most alike."""
    if name not in allowed:
        like = difflib.get_close_matches(name, allowed, 1)
        hint = f"; did you mean {like[0]!r}?" if like else ""
        raise ValueError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {name!r}{hint}")


def _table(coefficients: Coefficients, steps: int) -> tuple[Triple, ...]:
    """A row of coefficients for each step."""
    if isinstance(coefficients, str):
        check_name("coefficients", coefficients, tuple(NEWTON_SCHULZ))
        coefficients = NEWTON_SCHULZ[coefficients]
    if len(coefficients) == 3 and all(isinstance(number, numbers.Real) for number in coefficients):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        coefficients = [coefficients] * steps  # pyright: ignore[reportAssignmentType]: a triple, as was just seen
    try:
        table = tuple((float(a), float(b), float(c)) for a, b, c in coefficients)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError):
        raise ValueError(f"coefficients must be a name, a triple or a table of triples of numbers, got {coefficients!r}") from None
    if not table:
        raise ValueError("coefficients must hold at least one triple, got none")
    return table


def _newton_schulz(x: Inexact[Array, "*batch m n"], table: tuple[Triple, ...], eps: float | Array) -> Inexact[Array, "*batch m n"]:
    # By the largest entry first, so that no square over- or underflows. It cancels, so its derivative need not be taken.
    largest = jax.lax.stop_gradient(jnp.abs(x).max((-2, -1), keepdims=True, initial=0.0))
    largest = jnp.where(largest == 0, 1.0, largest)
    x = x / largest
    length = _length(x, (-2, -1)) + eps / largest
    x = x / jnp.where(length == 0, 1.0, length)
    # The identity belongs to the factor: adding a X instead would be one more pass over X for each step.
    identity = jnp.broadcast_to(jnp.eye(x.shape[-2], dtype=x.dtype), (*x.shape[:-2], x.shape[-2], x.shape[-2]))
    for a, b, c in table:
        gram = _gram(x)
        x = (a * identity + b * gram + c * _gram(gram)) @ x
    return x


def _gram(x: Inexact[Array, "*batch m n"]) -> Inexact[Array, "*batch m m"]:
    """X Xᴴ. Of a large one, the block below the diagonal is copied from above it: a quarter of the products need not be made."""
    half = x.shape[-2] // 2
    if x.shape[-2] < HALVED_FROM:
        return x @ _mT(x).conj()
    above, below = x[..., :half, :], x[..., half:, :]
    cross = above @ _mT(below).conj()
    upper = jnp.concatenate([above @ _mT(above).conj(), cross], -1)
    lower = jnp.concatenate([_mT(cross).conj(), below @ _mT(below).conj()], -1)
    return jnp.concatenate([upper, lower], -2)


def _steepest(
    gradient: Inexact[Array, "*shape"], norm: str, method: str, steps: int, coefficients: Coefficients
) -> tuple[Inexact[Array, "*shape"], Float[Array, "*reduced"], tuple[int, ...]]:
    """The unit step -LMO₁(G) in float32 or wider, ‖G‖_*, and the axes that the norm takes."""
    g, axes = _prepared(gradient, norm)
    match norm:
        case "spectral" | "rms_to_rms":
            direction = polar_factor(g, method=method, steps=steps, coefficients=coefficients)
            direction = direction if norm == "spectral" else _rms_scale(g) * direction
        case "sign":
            direction = jnp.sign(g)
        case _:
            along = {"column": (-2,), "row": (-1,)}.get(norm, axes)
            length = _length(g, along)
            direction = g / jnp.where(length == 0, 1.0, length)
            direction = direction * math.sqrt(_size(g, axes)) if norm == "rms" else direction
    return direction, _inner(g, direction, axes), axes


def _prepared(gradient: Inexact[Array, "*shape"], norm: str) -> tuple[Inexact[Array, "*shape"], tuple[int, ...]]:
    check_name("norm", norm, NORMS)
    if norm in MATRIX_NORMS and gradient.ndim < 2:
        raise ValueError(
            f"norm {norm!r} is one of matrices, got an array of shape {gradient.shape}: take 'rms', 'sign' or 'frobenius' for vectors"
        )
    n_axes = min(gradient.ndim, 1 if norm == "rms" else 2)
    return gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32)), tuple(range(-n_axes, 0))


def _mT(x: Inexact[Array, "*batch m n"]) -> Inexact[Array, "*batch n m"]:
    return jnp.swapaxes(x, -1, -2)


def _inner(x: Inexact[Array, "*shape"], y: Inexact[Array, "*shape"], axes: tuple[int, ...]) -> Float[Array, "*reduced"]:
    # A second reader of y: with the sum alone XLA's CPU backend (jaxlib 0.10) compiles the products that make y into one fusion with
    # it, ten times as slow at 512.
    return jnp.where(jnp.isnan(y).any(axes), jnp.nan, jnp.real(x.conj() * y).sum(axes))


def _length(x: Inexact[Array, "*shape"], axes: tuple[int, ...]) -> Float[Array, "*reduced"]:
    """The Euclidean length over some axes, which stay, with derivative 0 instead of NaN at zero."""
    square = jnp.real(x.conj() * x).sum(axes, keepdims=True)
    return jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))


def _flat(kept: Float[Array, "*kept"], axes: tuple[int, ...]) -> Float[Array, "*flat"]:
    return jnp.squeeze(kept, axes)


def _spread(value: Float[Array, "*flat"], axes: tuple[int, ...]) -> Float[Array, "*kept"]:
    return jnp.expand_dims(value, axes)


def _size(x: Inexact[Array, "*shape"], axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[axis] for axis in axes)


def _rms_scale(x: Inexact[Array, "*batch m n"]) -> float:
    return math.sqrt(x.shape[-2] / x.shape[-1])
