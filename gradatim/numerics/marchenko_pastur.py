"""The Marchenko–Pastur law: eigenvalues of the correlations of independent inputs, in the limit of many parameters and samples
(Marchenko and Pastur, Math. USSR Sbornik 1, 457, 1967).

    X: P samples of N parameters, entries of variance 1/N;     α = P/N;     eigenvalues of the N × N matrix XᵀX

    ρ(λ) = √((λ₊ - λ)(λ - λ₋)) / (2πλ) on [λ₋, λ₊] + max(0, 1 - α) δ(λ),     λ± = (√α ± 1)²

α is samples over parameters. Much of the statistics literature has γ = N/P = 1/α and entries of variance 1, and divides by P: its
eigenvalues are those here over α.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, PRNGKeyArray

from .checks import is_known

Number = float | Float[Array, ""]


class MarchenkoPastur(eqx.Module):
    """The law for one ratio α of samples to parameters.

    Integrals use λ = (1 - √α)² + 4√α cos²φ, under which the density is smooth at both ends, at α = 1 too, where it has no bound in λ:
    the midpoint rule in φ then converges exponentially for smooth functions of λ. Differentiable in α off 1.

    **Arguments:** `alpha` > 0, samples over parameters.

    **Raises:** `ValueError` for another `alpha`.

    >>> law = MarchenkoPastur(0.25)
    >>> print(f"{law.zero_mass:.2f} at 0, the rest between {law.support[0]:.2f} and {law.support[1]:.2f}")
    0.75 at 0, the rest between 0.25 and 2.25
    """

    alpha: Float[Array, ""]

    def __init__(self, alpha: Number):
        if is_known(alpha) and not alpha > 0:
            raise ValueError(f"alpha, samples over parameters, must be positive, got {alpha}")
        self.alpha = jnp.asarray(alpha, jnp.result_type(alpha, 0.0))

    @property
    def support(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The ends λ₋, λ₊ of what does not lie at zero."""
        root = jnp.sqrt(self.alpha)
        return (root - 1) ** 2, (root + 1) ** 2

    @property
    def zero_mass(self) -> Float[Array, ""]:
        """The share of eigenvalues that are zero, max(0, 1 - α): directions that no sample has."""
        return jnp.maximum(0, 1 - self.alpha)

    def pdf(self, eigenvalue: float | Float[Array, "*points"]) -> Float[Array, "*points"]:
        """The density ρ(λ) without what lies at zero; 0 outside the support, ∞ at zero for α = 1."""
        low, high = self.support
        x = jnp.asarray(eigenvalue) * jnp.ones_like(low)
        is_inside = (x >= low) & (x <= high)
        is_pole = is_inside & (x == 0)
        # Its logarithm is finite and differentiable everywhere else too.
        within = jnp.where(is_inside & ~is_pole, x, (low + high) / 2)
        density = jnp.sqrt((high - within) * (within - low)) / (2 * jnp.pi * within)
        return jnp.where(is_pole, jnp.inf, jnp.where(is_inside, density, 0))

    def cdf(self, eigenvalue: float | Float[Array, "*points"]) -> Float[Array, "*points"]:
        """The share of eigenvalues up to λ, in closed form, with what lies at zero."""
        low, high = self.support
        x = jnp.asarray(eigenvalue) * jnp.ones_like(low)
        is_inside = (x > low) & (x < high)
        within = jnp.where(is_inside, x, (low + high) / 2)
        share = 1 - self._mass_above(jnp.arctan2(jnp.sqrt(high - within), jnp.sqrt(within - low)))
        return jnp.where(is_inside, share, jnp.where(x >= high, 1, jnp.where(x >= 0, self.zero_mass, 0)))

    def quantile(self, share: float | Float[Array, "*shares"]) -> Float[Array, "*shares"]:
        """The eigenvalue below which a share in [0, 1] lies; 0 within the mass at zero.

        **Raises:** `ValueError` for a share outside [0, 1].
        """
        if is_known(share) and not ((np.asarray(share) >= 0) & (np.asarray(share) <= 1)).all():
            raise ValueError(f"share must lie in [0, 1], got {share}")
        wanted = jnp.asarray(share) * jnp.ones_like(self.alpha)

        # Odd about one end and rising beyond the other: a wider bracket holds the ends themselves.
        bracket = {"lower": -0.1, "upper": jnp.pi / 2 + 0.1}

        def excess(phi: Array, above: Array) -> Array:
            return self._mass_above(phi) - above

        def solve(above: Array) -> Array:
            bisection = optx.Bisection(rtol=0.0, atol=2 * float(jnp.finfo(above.dtype).eps), flip=False)
            first = jnp.full_like(above, 0.5)
            return optx.root_find(excess, bisection, first, above, bracket, max_steps=60, throw=False).value

        phi = jax.vmap(solve)(1 - jnp.maximum(wanted, self.zero_mass).ravel()).reshape(wanted.shape)
        return jnp.where((wanted <= self.zero_mass) & (self.zero_mass > 0), 0, self._eigenvalue(phi))

    def sample(self, key: PRNGKeyArray, n: int, p: int) -> Float[Array, " n"]:
        """The eigenvalues of XᵀX, ascending, of one draw of p samples of n parameters: the law, as far as finite sizes have it.

        **Arguments:** `n`, `p` ≥ 1, with p/n as near to α as whole numbers come.

        **Raises:** `ValueError` for numbers of another ratio.

        >>> found = MarchenkoPastur(0.25).sample(jax.random.key(0), 400, 100)
        >>> int((found == 0).sum()), bool(jnp.abs(found[300] - 0.25) < 0.1)
        (300, True)
        """
        if min(n, p) < 1:
            raise ValueError(f"n and p must be at least 1, got {n} and {p}")
        if is_known(self.alpha) and abs(p - float(self.alpha) * n) >= 1:
            raise ValueError(f"p/n must be alpha, {float(self.alpha):.4g}, got {p}/{n}")
        # Drawn flat, which XLA compiles faster.
        X = jax.random.normal(key, (p * n,), self.alpha.dtype).reshape(p, n) / n**0.5
        found = jnp.linalg.eigvalsh(X @ X.T if p < n else X.T @ X)
        return jnp.concatenate([jnp.zeros(max(n - p, 0), found.dtype), found])

    def quadrature(self, *, n_nodes: int = 4096) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
        """Nodes λ and weights of the part that does not lie at zero, whose sum is min(1, α).

        **Raises:** `ValueError` for fewer than one node.
        """
        if n_nodes < 1:
            raise ValueError(f"n_nodes must be at least 1, got {n_nodes}")
        phi = (jnp.arange(n_nodes) + 0.5) * (jnp.pi / (2 * n_nodes))
        nodes = self._eigenvalue(phi)
        return nodes, 2 * self.alpha * jnp.sin(2 * phi) ** 2 / nodes / n_nodes

    def expect(
        self,
        fn: Callable[[Float[Array, " nodes"]], Float[Array, "*shape nodes"]],
        at_zero: float | Float[Array, "*shape"],
        *,
        n_nodes: int = 4096,
    ) -> Float[Array, "*shape"]:
        """E f(λ) = ∫ f ρ dλ, with max(0, 1 - α) f(0).

        **Arguments:** `fn`: of all nodes, along its last axis, none of which is zero; `at_zero`: f(0), finite, which is asked for apart
        since most functions of interest divide by λ; `n_nodes`: of the quadrature. A function that changes within Δλ of λ = 0 needs, at
        α = 1, some 10/√Δλ.
        """
        nodes, weights = self.quadrature(n_nodes=n_nodes)
        return fn(nodes) @ weights + self.zero_mass * at_zero

    def stieltjes(self, shift: Number) -> Float[Array, ""]:
        """m(g) = E 1/(λ + g) for g > 0, the positive root of g m² + (g + α - 1) m - 1 = 0; at g = 0 its limit.

        **Raises:** `ValueError` for a negative shift.
        """
        if is_known(shift) and not shift >= 0:
            raise ValueError(f"shift must be at least 0, got {shift}")
        g = jnp.asarray(shift) * jnp.ones_like(self.alpha)
        b = g + self.alpha - 1
        root = jnp.sqrt(b**2 + 4 * g)
        # Either form loses all its digits where the other is good.
        is_direct = b >= 0
        return jnp.where(is_direct, 2 / jnp.where(is_direct, b + root, 1), (root - b) / jnp.where(is_direct, 1, 2 * g))

    def inverse_mean(self) -> Float[Array, ""]:
        """∫ ρ/λ dλ without what lies at zero, min(1, α)/|1 - α|; ∞ at α = 1."""
        return jnp.minimum(1, self.alpha) / jnp.abs(1 - self.alpha)

    def _eigenvalue(self, phi: Array) -> Array:
        root = jnp.sqrt(self.alpha)
        return (1 - root) ** 2 + 4 * root * jnp.cos(phi) ** 2

    def _mass_above(self, phi: Array) -> Array:
        """∫ ρ from λ(φ) to λ₊: φ runs from 0 at λ₊ to π/2 at λ₋."""
        root = jnp.sqrt(self.alpha)
        turn = jnp.arctan2(jnp.abs(1 - root) * jnp.sin(phi), (1 + root) * jnp.cos(phi))
        return ((1 + self.alpha) * phi - root * jnp.sin(2 * phi) - jnp.abs(1 - self.alpha) * turn) / jnp.pi
