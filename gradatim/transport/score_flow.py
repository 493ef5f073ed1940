"""Flows and diffusions of a score: samples, and likelihoods by the change of variables along the flow
(Song et al., arXiv:2011.13456; Chen et al., arXiv:1806.07366; Horvat and Pfister, arXiv:2402.03845, Eq. 3).

With pₜ the density of aₜ x₁ + mₜ x₀ on a [probability path][gradatim.transport.AbstractGaussianPath], t from noise to data, and s a field
that stands for ∇ log pₜ:

    dx = [(a′/a) x + (g²/2) s] dt     or     dx = [(a′/a) x + g² s] dt + g dW,     g² = 2 (m² a′/a - m m′)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known
from gradatim.numerics.divergence import divergence, hutchinson_divergence

from .probability_paths import AbstractGaussianPath

Score = Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]
"A field of one time and one point."
LogDensity = Callable[[Float[Array, " dim"]], Float[Array, ""]]
MOST_EXACT = 64
"Dimensions up to which a derivative is taken along every coordinate."


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


class FlowLikelihood(eqx.Module):
    """The logarithm of a density at a point, and how it was found."""

    log_density: Float[Array, ""]
    noise: Float[Array, " dim"]
    "Where the flow through the point comes from."
    n_steps: Int[Array, ""]
    "Of the solver, rejected ones among them."


def drift_and_noise(path: AbstractGaussianPath, t: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """a′/a and g² of a path, for times in (0, 1).

    >>> from gradatim.transport import VariancePreserving
    >>> linear, squared = drift_and_noise(VariancePreserving(), jnp.array(0.5))
    >>> print(f"{linear:.3f} {squared:.3f}")  # half the rate of noise, and the rate
    5.025 10.050
    """
    c = path.coefficients(t)
    linear = c.da / c.a
    return linear, 2 * (c.m**2 * linear - c.m * c.dm)


def standard_normal_log_density(x: Float[Array, " dim"]) -> Float[Array, ""]:
    """The logarithm of N(x; 0, I)."""
    return -(x @ x + x.size * jnp.log(2 * jnp.pi).astype(x.dtype)) / 2


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
    """The log density, at time `end`, of what the flow of a score makes of noise: log p(x₀) - ∫ div v(t, xₜ) dt.

    Exact for the true density where the score is, and where what is added to it is a gauge field. For data on a manifold it grows without
    bound as `end` goes to 1.

    **Arguments:** `score`; `path`; `x`: one point, batch with `jax.vmap`; `end`: its time, below 1 for a path that is singular there;
    `prior`: log density at `start`, of noise; `rtol`, `atol`: per step of Tsitouras' pair of orders 5 and 4; `max_steps`: more raise an
    error; `key`: for an unbiased estimate of the divergence with one random probe for the whole path, instead of one product a coordinate.

    **Raises:** `ValueError` for times that do not obey 0 ≤ `start` < `end` ≤ 1, or more than 64 dimensions without a key.
    """
    if not 0 <= start < end <= 1:
        raise ValueError(f"times must obey 0 <= start < end <= 1, got {start} and {end}")
    _check_dimensions(x, key)
    noise, change, n_steps = _solve(ScoreFlow(score, path), x, key, start=start, end=end, rtol=rtol, atol=atol, max_steps=max_steps)
    return FlowLikelihood(prior(noise) - change, noise, n_steps)


def sample_reverse_diffusion(
    score: Score, path: AbstractGaussianPath, x0: Float[Array, " dim"], times: Float[Array, " times"], *, key: PRNGKeyArray
) -> Float[Array, " dim"]:
    """The end of dx = [(a′/a) x + g² s] dt + g dW from noise x₀, by Euler and Maruyama's steps between given times; one point.

    **Arguments:** `score`; `path`; `x0`: standard normal; `times`: ascending, from the noise towards the data; steps that shrink with
    1 - t are best, such as `1 - jnp.geomspace(1, 1e-3, 200)`; `key`: of this point's own noise.

    **Raises:** `ValueError` for times that do not ascend, where they are known.

    >>> from gradatim.transport import VariancePreserving
    >>> times = 1 - jnp.geomspace(1, 1e-3, 100)
    >>> still = sample_reverse_diffusion(lambda t, x: -x, VariancePreserving(), jnp.zeros(2), times, key=jax.random.key(0))
    >>> still.shape
    (2,)
    """
    if is_known(times) and not (np.asarray(times).size >= 2 and np.all(np.diff(np.asarray(times)) > 0)):
        raise ValueError(f"times must ascend, two of them at least, got {np.asarray(times).size} from {times[0]} to {times[-1]}")
    widths = jnp.diff(times)
    # Drawn flat: XLA compiles draws with several axes many times slower.
    noise = jax.random.normal(key, (widths.size * x0.size,), x0.dtype).reshape(widths.size, x0.size)

    def step(x: Array, given: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, width, z = given
        linear, squared = (part.astype(x.dtype) for part in drift_and_noise(path, t))
        return x + width * (linear * x + squared * score(t, x)) + jnp.sqrt(squared * width) * z, None

    return jax.lax.scan(step, x0, (times[:-1], widths.astype(x0.dtype), noise))[0]


def field_divergence(
    field: Callable[[Float[Array, " dim"]], Float[Array, " dim"]], x: Float[Array, " dim"], key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """The divergence along every coordinate, or with a key its estimate by one random probe.

    **Raises:** `ValueError` in more than 64 dimensions without a key.
    """
    _check_dimensions(x, key)
    return divergence(field, x) if key is None else hutchinson_divergence(field, x, key)


@eqx.filter_jit
def _solve(
    velocity: ScoreFlow,
    x: Float[Array, " dim"],
    key: PRNGKeyArray | None,
    *,
    start: float,
    end: float,
    rtol: float,
    atol: float,
    max_steps: int,
) -> tuple[Float[Array, " dim"], Float[Array, ""], Int[Array, ""]]:
    """The first point of the flow, ∫ div v dt, and the solver's steps."""

    def rates(t: Any, state: tuple[Array, Array], args: Any) -> tuple[Array, Array]:
        def at(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
            return velocity(jnp.asarray(t), x)

        return at(state[0]), -field_divergence(at, state[0], key)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rates),
        diffrax.Tsit5(),
        t0=jnp.asarray(end, x.dtype),
        t1=jnp.asarray(start, x.dtype),
        dt0=None,
        y0=(x, jnp.zeros((), x.dtype)),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
    )
    # Typed as any pytree.
    ys: Any = solution.ys
    return ys[0][-1].astype(x.dtype), ys[1][-1].astype(x.dtype), cast(Array, solution.stats["num_steps"])


def _check_dimensions(x: Float[Array, " dim"], key: PRNGKeyArray | None) -> None:
    if key is None and x.size > MOST_EXACT:
        raise ValueError(f"exact derivatives are for at most {MOST_EXACT} dimensions, got {x.size}: pass a key for random probes")
