"""Flows and diffusions of a score: samples, and likelihoods by the change of variables along the flow
(Song et al., arXiv:2011.13456; Horvat and Pfister, arXiv:2402.03845, Eq. 3).

With pₜ the density of aₜ x₁ + mₜ x₀ on a [probability path][gradatim.transport.AbstractGaussianPath], t from noise to data, and s a field
that stands for ∇ log pₜ:

    dx = [(a′/a) x + (g²/2) s] dt     or     dx = [(a′/a) x + g² s] dt + g dW,     g² = 2 (m² a′/a - m m′)
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .flow_likelihood import FlowLikelihood, LogDensity, standard_normal_log_density, velocity_log_likelihood
from .probability_paths import AbstractGaussianPath

Score = Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]
"A field of one time and one point."


class ScoreFlow(eqx.Module):
    """The velocity of the flow that a score makes: `ScoreFlow(score, path)(t, x)`, to be sampled or differentiated.

    The flow carries pₜ where the score is exact, and also where it is exact up to a
    [gauge field][gradatim.transport.GaugeField]. Singular at t = 0 for a path that begins at a = 0, and at t = 1.

    >>> from gradatim.transport import VariancePreserving
    >>> flow = ScoreFlow(lambda t, x: -x, VariancePreserving())  # standard normal data: nothing moves
    >>> print(flow(jnp.array(0.5), jnp.array([1.0, -2.0])))
    [0. 0.]
    """

    score: Score
    path: AbstractGaussianPath

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The velocity at one time and one point."""
        linear, squared = drift_and_noise(self.path, t)
        return linear.astype(x.dtype) * x + squared.astype(x.dtype) / 2 * self.score(t, x)


def drift_and_noise(path: AbstractGaussianPath, t: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """a′/a and g² of a path, for times in (0, 1).

    **Raises:** `ValueError` for a time at which a is 0, where it is known.

    >>> from gradatim.transport import VariancePreserving
    >>> linear, squared = drift_and_noise(VariancePreserving(), jnp.array(0.5))
    >>> print(f"{linear:.3f} {squared:.3f}")  # half the rate of noise, and the rate
    5.025 10.050
    """
    check_has_data("t", path, t)
    c = path.coefficients(t)
    linear = c.da / c.a
    return linear, 2 * (c.m**2 * linear - c.m * c.dm)


def check_has_data(name: str, path: AbstractGaussianPath, t: Float[Array, "*batch"] | float) -> None:
    """Refuses times at which there are no data yet in a path, so that a′/a is infinite, where both are known."""
    if not is_known(t):
        return
    with jax.ensure_compile_time_eval():
        a = path.coefficients(t).a
    if is_known(a) and not np.all(np.asarray(a) > 0):
        raise ValueError(f"{name} must be a time at which the path's a is above 0, got {float(np.asarray(t).min())}")


def flow_log_likelihood(
    score: Score,
    path: AbstractGaussianPath,
    x: Float[Array, " dim"],
    *,
    end: float,
    prior: LogDensity = standard_normal_log_density,
    start: float = 0.0,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    max_steps: int = 16384,
    key: PRNGKeyArray | None = None,
) -> FlowLikelihood:
    """The log density, at time `end`, of what the flow of a score makes of noise.

    It is [`velocity_log_likelihood`][gradatim.transport.velocity_log_likelihood] of a [`ScoreFlow`][gradatim.transport.ScoreFlow].

    Exact for the true density where the score is, and where what is added to it is a gauge field. For data on a manifold it grows without
    bound as `end` goes to 1.

    **Arguments:** `score`; `path`; `end`: below 1 for a path that is singular there; `start`: above 0 for a path that begins at a = 0; the
    others as there.

    **Raises:** as there, and for a `start` at which a is 0.

    >>> from gradatim.transport import VariancePreserving
    >>> found = flow_log_likelihood(lambda t, x: -x, VariancePreserving(), jnp.zeros(1), end=0.9)  # standard normal data
    >>> print(f"{found.log_density:.3f}")
    -0.919
    """
    check_has_data("start", path, start)
    return velocity_log_likelihood(
        ScoreFlow(score, path), x, end=end, prior=prior, start=start, rtol=rtol, atol=atol, max_steps=max_steps, key=key
    )


def sample_reverse_diffusion(
    score: Score, path: AbstractGaussianPath, x0: Float[Array, " dim"], times: Float[Array, " times"], *, key: PRNGKeyArray
) -> Float[Array, " dim"]:
    """The end of dx = [(a′/a) x + g² s] dt + g dW from noise x₀, by Euler and Maruyama's steps between given times; one point.

    **Arguments:** `score`; `path`; `x0`: standard normal; `times`: ascending, from the noise towards the data; steps that shrink with
    1 - t are best, such as `1 - jnp.geomspace(1, 1e-3, 200)`, from 0.99 on for a path that begins at a = 0; `key`: of this point's own
    noise.

    **Raises:** `ValueError` for times that do not ascend, or a first one at which a is 0, where they are known.

    >>> from gradatim.transport import VariancePreserving
    >>> times = 1 - jnp.geomspace(1, 1e-3, 100)
    >>> still = sample_reverse_diffusion(lambda t, x: -x, VariancePreserving(), jnp.zeros(2), times, key=jax.random.key(0))
    >>> still.shape
    (2,)
    """
    if is_known(times) and not (np.asarray(times).size >= 2 and np.all(np.diff(np.asarray(times)) > 0)):
        raise ValueError(f"times must ascend, two of them at least, got {np.asarray(times).size} from {times[0]} to {times[-1]}")
    if is_known(times):
        check_has_data("times[0]", path, float(np.asarray(times)[0]))
    widths = jnp.diff(times)
    # Drawn flat: XLA compiles draws with several axes many times slower.
    noise = jax.random.normal(key, (widths.size * x0.size,), x0.dtype).reshape(widths.size, x0.size)

    def step(x: Array, given: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, width, z = given
        linear, squared = (part.astype(x.dtype) for part in drift_and_noise(path, t))
        return x + width * (linear * x + squared * score(t, x)) + jnp.sqrt(squared * width) * z, None

    return jax.lax.scan(step, x0, (times[:-1], widths.astype(x0.dtype), noise))[0]
