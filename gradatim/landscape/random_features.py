"""A student with a random first layer, of which only the read-out learns: what its test error consists of
(Advani, Saxe and Sompolinsky, arXiv:1710.03667, figures 7 and 9).

With features F(x) in N_h dimensions, C = E[F Fᵀ], best read-out w* = C⁻¹ E[F y], samples F with P rows and r = y - F w*, the read-out
that gradient flow from zero ends in, F⁺y, has the test error

    E (y - F⁺y·F(x))² = E (y - w*·F(x))²  +  |(I - F⁺F) w*|²_C  +  |F⁺r|²_C  +  cross term
                        approximation        null space            over-fitting

with |v|²_C = vᵀCv. r takes the place of label noise, though nothing need be noisy: what a small student cannot express is noise to it. The
cross term vanishes where r is independent of F. The formulas follow the captions of the figures; the article's text was not at hand.
For ReLU units and normal inputs C and E[F y] are known in closed form (Cho and Saul 2009), so that no test sample is drawn.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from gradatim.numerics.ridge import check_not_negative, least_squares

from .tangent_kernel import relu_expectations


class Population(eqx.Module):
    """What a linear read-out of given features can know of all inputs."""

    covariance: Float[Array, "units units"]
    "C = E[F Fᵀ]."
    correlation: Float[Array, " units"]
    "E[F y]."
    power: Float[Array, ""]
    "E y²."

    def test_error(self, weights: Float[Array, "*batch units"]) -> Float[Array, "*batch"]:
        """E (y - w·F)² = E y² - 2 w·E[F y] + wᵀCw."""
        return self.power - 2 * weights @ self.correlation + jnp.sum((weights @ self.covariance) * weights, axis=-1)

    def best(self) -> Float[Array, " units"]:
        """The read-out w* = C⁻¹ E[F y] that infinitely many samples would give."""
        operator = lx.MatrixLinearOperator(self.covariance, lx.positive_semidefinite_tag)
        return lx.linear_solve(operator, self.correlation, lx.Cholesky()).value


class ErrorParts(eqx.Module):
    """The test error of the minimum-norm read-out and its three parts, whose sum it is up to the cross term."""

    approximation: Float[Array, ""]
    null_space: Float[Array, ""]
    overfitting: Float[Array, ""]
    test: Float[Array, ""]


def relu_features(inputs: Float[Array, "samples dim"], units: Float[Array, "units dim"]) -> Float[Array, "samples units"]:
    """F = max(0, W x) for each input, one a row.

    >>> relu_features(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 1.0], [1.0, -1.0]])).tolist()
    [[3.0, 0.0]]
    """
    return jax.nn.relu(inputs @ units.T)


@jax.jit
def relu_kernel(a: Float[Array, "n dim"], b: Float[Array, "m dim"]) -> Float[Array, "n m"]:
    """E[max(0, a·x) max(0, b·x)] over x ~ N(0, I), for each pair of rows: the arc-cosine kernel of order one (Cho and Saul 2009).

        |a| |b| (sin θ + (π - θ) cos θ) / 2π,     θ the angle between a and b

    >>> print(relu_kernel(jnp.eye(2), jnp.eye(2)).round(4).tolist()[0], "half the square's mean, and 1/2π")
    [0.5, 0.15919999778270721] half the square's mean, and 1/2π
    """
    return relu_expectations(a @ b.T, jnp.sum(a**2, axis=1)[:, None], jnp.sum(b**2, axis=1)[None])[0]


@jax.jit
def relu_population(
    units: Float[Array, "units dim"], teacher_units: Float[Array, "hidden dim"], teacher_weights: Float[Array, " hidden"]
) -> Population:
    """What ReLU units can know of the teacher y = Σ aₖ max(0, uₖ·x) for x ~ N(0, I).

    >>> W = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> print(f"{relu_population(W, W, jnp.array([1.0, -2.0])).best()[1]:.3f}")
    -2.000
    """
    cross = relu_kernel(units, teacher_units)
    power = teacher_weights @ relu_kernel(teacher_units, teacher_units) @ teacher_weights
    return Population(relu_kernel(units, units), cross @ teacher_weights, power)


def error_parts(features: Float[Array, "samples units"], targets: Float[Array, " samples"], population: Population) -> ErrorParts:
    """Splits the test error of the minimum-norm fit, which is where gradient flow from zero ends.

    **Arguments:** `features`: of the training samples, one a row; `targets`: theirs, noisy or not; `population`: of the same features and
    of the noiseless teacher. In double precision: at as many units as samples the fit takes all digits that single precision has.

    >>> W, a = jnp.eye(3), jnp.array([1.0, -2.0])
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> parts = error_parts(relu_features(x, W), relu_features(x, W[:2]) @ a, relu_population(W, W[:2], a))
    >>> print(bool(parts.test < 1e-4), "the teacher's units are among the student's")
    True the teacher's units are among the student's
    """
    best = population.best()
    known = features @ best
    # One decomposition for both: the fit of what the best read-out explains, and that of the rest.
    ends = least_squares(features, jnp.stack([known, targets - known], axis=1)).minimum_norm().weights
    missed, noise = ends[:, 0] - best, ends[:, 1]
    covariance = population.covariance
    return ErrorParts(
        approximation=population.power - population.correlation @ best,
        null_space=missed @ covariance @ missed,
        overfitting=noise @ covariance @ noise,
        test=population.test_error(ends[:, 0] + noise),
    )


def rademacher_complexity(features: Float[Array, "samples units"], norm: float | Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The usual bound |w| ‖F‖_F / P of the empirical Rademacher complexity of all read-outs up to a norm (Bartlett and Mendelson 2002).

    With the norm that *any* weights of one size may have it grows with the number of units. Gradient flow from zero never leaves the span
    of the samples: with the norm that it comes to, it is large where the features' correlations are badly conditioned, and nowhere else.

    **Raises:** `ValueError` for a negative norm.

    >>> print(f"{rademacher_complexity(jnp.ones((4, 9)), 2.0):.1f}")
    3.0
    """
    check_not_negative("norm", norm)
    return norm * jnp.linalg.norm(features) / features.shape[0]
