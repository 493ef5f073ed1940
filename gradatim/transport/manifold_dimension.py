"""The dimension of the manifold that data lie on, read off a diffusion model
(Horvat and Pfister, arXiv:2402.03845, Theorem 1; Stanczuk et al., arXiv:2212.12611; Kamkari et al., arXiv:2406.03537).

Under the flow from noise to data as many singular values of its derivative stay away from zero as the manifold has dimensions; the others
vanish with the noise m. They need not be near one, and a gauge part of the field changes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .flow_jacobian import flow_jacobian
from .flow_likelihood import field_divergence
from .probability_paths import AbstractGaussianPath
from .score_flow import Score, ScoreFlow, check_has_data


class FlowDimension(eqx.Module):
    """The dimension at one point, by two rules, and what they are read from."""

    by_slope: Int[Array, ""]
    "Singular values that fall more slowly than √m, between 0 and D."
    by_gap: Int[Array, ""]
    "Singular values before the widest gap at the end, between 1 and D - 1."
    slopes: Float[Array, " dim"]
    "d log σᵢ / d log m: 0 along the manifold, 1 across it."
    singular_values: Float[Array, "window dim"]


def read_flow_dimension(singular_values: Float[Array, "window dim"], noise: Float[Array, " window"]) -> FlowDimension:
    """The dimension from singular values of the flow from noise to data, over a last window of it.

    **Arguments:** `singular_values`: descending, at each time of the window; `noise`: m at these times, descending. Only the ends of the
    window count for the slopes.

    **Raises:** `ValueError` for fewer than two times or two dimensions, or noise that does not fall, where it is known.

    >>> found = read_flow_dimension(jnp.array([[0.7, 0.6, 0.1], [0.7, 0.5, 0.01]]), jnp.array([0.1, 0.01]))
    >>> print(found.by_slope, found.by_gap, found.slopes.round(2))
    2 2 [0.   0.08 1.  ]
    """
    n, dim = singular_values.shape
    if n < 2 or dim < 2:
        raise ValueError(f"singular_values must be of two times and two dimensions at least, got shape {singular_values.shape}")
    if is_known(noise) and not np.asarray(noise)[0] > np.asarray(noise)[-1] > 0:
        raise ValueError(f"noise must fall and stay positive, got {noise[0]} to {noise[-1]}")
    # A value that has vanished altogether is as small as numbers are.
    logs = jnp.log(jnp.maximum(singular_values, jnp.finfo(singular_values.dtype).tiny))
    slopes = (logs[0] - logs[-1]) / (jnp.log(noise[0]) - jnp.log(noise[-1]))
    gap = jnp.argmax(logs[-1, :-1] - logs[-1, 1:]) + 1
    return FlowDimension(jnp.sum(slopes < 0.5), gap, slopes, singular_values)


def flow_dimension(
    score: Score,
    path: AbstractGaussianPath,
    x0: Float[Array, " dim"],
    *,
    start: float = 0.0,
    window: tuple[float, float] = (1e-2, 1e-3),
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> FlowDimension:
    """The dimension where the flow from the noise x₀ meets the data; of many points take the median, for one outlier is one outlier.

    **Arguments:** `score`; `path`; `x0`: standard normal, one point; `start`: a time that is not singular; `window`: the ends of the last
    stretch, as 1 - t, descending; nearer to the data than the model knows them its values mean nothing; `rtol`, `atol`: per step.

    **Raises:** `ValueError` for a window that does not obey 0 < last < first < 1 - `start`, or a start at which the path's a is 0.

    >>> from gradatim.transport import GaussianScore, VariancePreserving
    >>> score = GaussianScore(VariancePreserving(), jnp.diag(jnp.array([4.0, 1.0, 0.0])))
    >>> flow_dimension(score, score.path, jnp.array([1.0, 0.5, -1.0])).by_slope.item()
    2
    """
    times = _window_times(path, window, start)
    return _dimension(ScoreFlow(score, path), x0, times.astype(x0.dtype), from_data=False, rtol=rtol, atol=atol)


def flow_dimension_at(
    score: Score,
    path: AbstractGaussianPath,
    x: Float[Array, " dim"],
    *,
    start: float = 0.0,
    window: tuple[float, float] = (1e-2, 1e-3),
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> FlowDimension:
    """The same at a given datum: the flow goes from it to the noise, where directions across the manifold grow, and is inverted.

    **Arguments:** `x`: a point as it is at the last time of the window; the others as for
    [`flow_dimension`][gradatim.transport.flow_dimension].

    **Raises:** as there.

    >>> from gradatim.transport import GaussianScore, VariancePreserving
    >>> score = GaussianScore(VariancePreserving(), jnp.diag(jnp.array([4.0, 1.0, 0.0])))
    >>> flow_dimension_at(score, score.path, jnp.array([1.0, 0.5, 0.0])).by_slope.item()
    2
    """
    times = _window_times(path, window, start)
    return _dimension(ScoreFlow(score, path), x, times[::-1].astype(x.dtype), from_data=True, rtol=rtol, atol=atol)


def normal_space_dimension(
    score: Score, path: AbstractGaussianPath, x: Float[Array, " dim"], t: Float[Array, ""], *, key: PRNGKeyArray, n_points: int = 32
) -> Int[Array, ""]:
    """D less the rank of scores around a datum, which near a manifold all point along its normals (Stanczuk et al., arXiv:2212.12611).

    The rank is where the singular values of the stacked scores have their widest gap, so that the dimension lies between 1 and D - 1.

    **Arguments:** `score`; `path`; `x`: a datum; `t`: a time near 1; `key`: of the noise around it; `n_points`: at least D.

    **Raises:** `ValueError` for fewer points than dimensions.

    >>> from gradatim.transport import CondOT
    >>> line = lambda t, x: jnp.array([0.0, -x[1] / (1 - t) ** 2])
    >>> print(normal_space_dimension(line, CondOT(), jnp.array([3.0, 0.0]), jnp.array(0.99), key=jax.random.key(0)))
    1
    """
    if n_points < x.size:
        raise ValueError(f"n_points must be at least the {x.size} dimensions, got {n_points}")
    noise = jax.random.normal(key, (n_points * x.size,), x.dtype).reshape(n_points, x.size)
    around = path.point(noise, jnp.broadcast_to(x, noise.shape), t)
    values = jnp.linalg.svd(jax.vmap(lambda x: score(t, x))(around), compute_uv=False)
    logs = jnp.log(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    return x.size - 1 - jnp.argmax(logs[:-1] - logs[1:])


def fokker_planck_dimension(
    score: Score, path: AbstractGaussianPath, x: Float[Array, " dim"], t: Float[Array, ""], *, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """D + m² (div s + ‖s‖²) at a x, the rate at which log density falls with log noise (FLIPD, Kamkari et al., arXiv:2406.03537).

    One evaluation, no flow; a real number, which a field that is no gradient shifts.

    **Arguments:** `score`; `path`; `x`: a datum; `t`: a time near 1; `key`: for a divergence estimated with a random probe.

    **Raises:** `ValueError` in more than 64 dimensions without a key.

    >>> from gradatim.transport import CondOT
    >>> line = lambda t, x: jnp.array([0.0, -x[1] / (1 - t) ** 2])
    >>> print(f"{fokker_planck_dimension(line, CondOT(), jnp.array([3.0, 0.0]), jnp.array(0.99)):.2f}")
    1.00
    """
    c = path.coefficients(t)
    at, v = c.a.astype(x.dtype) * x, c.m.astype(x.dtype) ** 2
    value = score(t, at)
    return x.size + v * (field_divergence(lambda x: score(t, x), at, key) + value @ value)


@eqx.filter_jit
def _dimension(
    flow: ScoreFlow, x: Float[Array, " dim"], times: Float[Array, " times"], *, from_data: bool, rtol: float, atol: float
) -> FlowDimension:
    """From the first of three times, of noise or of data, to the last."""
    found = flow_jacobian(flow, x, times, rtol=rtol, atol=atol)
    found = found.from_the_other_end() if from_data else found
    return read_flow_dimension(found.singular_values[1:], flow.path.coefficients(found.times[1:]).m.astype(x.dtype))


def _window_times(path: AbstractGaussianPath, window: Sequence[float], start: float) -> Float[Array, " times"]:
    check_has_data("start", path, start)
    first, last = window
    if not 0 < last < first < 1 - start:
        raise ValueError(f"window must obey 0 < last < first < 1 - start = {1 - start}, got {first} and {last}")
    return jnp.asarray([start, 1 - first, 1 - last])
