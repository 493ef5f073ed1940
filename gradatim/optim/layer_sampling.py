"""Which layers a step updates: distributions over sets of layers, their marginals and costs (Gruntkowska et al., arXiv:2510.02239).

Layer 1 is the one nearest to the input, layer b the one nearest to the loss. In randomised progressive training a start s is
drawn, layers s, …, b are updated, and back-propagation ends at layer s: one step costs the forward pass and the backward passes of
layers s to b. Only what is drawn before the step is compiled can save time, so samplers draw *variants*, static sets of layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Active = tuple[bool, ...]
"For each layer, from the input on, whether it is updated."
ROUND_OFF = 1e-6
MOST_LAYERS = 10
"For independent layers, whose subsets are all compiled apart."


class LayerSampler(eqx.Module):
    """A distribution over sets of layers, P ∝ exp((1 - r) early + r late) at progress r of the training.

    Made by the functions of this module. `variants`: the sets with a positive probability.

    >>> sampler = uniform_starts(2)
    >>> sampler.variants, round(float(sampler.expected_cost([1.0, 1.0], forward_cost=1.0)), 3)
    (((True, True), (False, True)), 2.5)
    """

    variants: tuple[Active, ...] = eqx.field(static=True)
    early: Float[Array, " variants"]
    late: Float[Array, " variants"]

    @property
    def n_layers(self) -> int:
        """Layers that there are to choose from."""
        return len(self.variants[0])

    def probabilities(self, progress: float | Array = 0.0) -> Float[Array, " variants"]:
        """Of each variant, at a progress in [0, 1]."""
        progress = jnp.asarray(progress, self.early.dtype)
        progress = eqx.error_if(progress, ~((progress >= 0) & (progress <= 1)), "progress must lie in [0, 1]")
        return jax.nn.softmax(self.early + progress * (self.late - self.early))

    def marginals(self, progress: float | Array = 0.0) -> Float[Array, " layers"]:
        """p: the probability of each layer to be updated."""
        return self.probabilities(progress) @ jnp.asarray(self.variants, self.early.dtype)

    def expected_cost(self, costs: Sequence[float], forward_cost: float = 0.0, *, progress: float | Array = 0.0) -> Float[Array, ""]:
        """Of one step: that of its forward pass, and of its backward pass from the lowest layer that is updated on.

        **Arguments:** `costs`: backward pass and update of each layer, positive; `forward_cost`: the whole forward pass, at least 0.

        **Raises:** `ValueError` for costs out of their ranges or not one a layer.
        """
        costs = _costs(costs, forward_cost, self.n_layers)
        # Layers above the lowest one are passed through whether they are updated or not.
        each = [sum(costs[variant.index(True) :]) if any(variant) else 0.0 for variant in self.variants]
        return forward_cost + self.probabilities(progress) @ jnp.asarray(each, self.early.dtype)

    def draw(self, key: PRNGKeyArray, n_steps: int) -> Int[Array, " n_steps"]:
        """The number of the variant of each of `n_steps` steps, whose progress goes from 0 to 1."""
        progress = jnp.linspace(0.0, 1.0, n_steps, dtype=self.early.dtype)[:, None]
        return jax.random.categorical(key, self.early[None] + progress * (self.late - self.early)[None])


def every_layer(n_layers: int) -> LayerSampler:
    """All layers at each step: the optimiser as it is.

    >>> every_layer(3).variants
    ((True, True, True),)
    """
    return sampled_starts([1.0] + [0.0] * (_at_least_one(n_layers) - 1))


def uniform_starts(n_layers: int) -> LayerSampler:
    """Every start alike, qᵢ = 1/b: layer i is updated in i of b steps, (b + 1)/2 layers a step.

    >>> [f"{p:.2f}" for p in uniform_starts(4).marginals()]
    ['0.25', '0.50', '0.75', '1.00']
    """
    return sampled_starts([1 / _at_least_one(n_layers)] * n_layers)


def sampled_starts(probabilities: Sequence[float] | Float[Array, " layers"]) -> LayerSampler:
    """Layers s, …, b, with s drawn from `probabilities` q: layer i is updated with probability q₁ + … + qᵢ.

    **Raises:** `ValueError` unless there is at least one, all are at least 0 and they sum to 1.

    >>> print(sampled_starts([0.25, 0.75, 0.0]).marginals())
    [0.25 1.   1.  ]
    """
    q = np.asarray(probabilities, np.float64)
    if not q.size or not (q >= 0).all() or not math.isclose(q.sum(), 1, abs_tol=ROUND_OFF):
        raise ValueError(f"probabilities of the starts must be at least 0 and sum to 1, got {q.tolist()}")
    return _of({_from(start, q.size): np.log(p) for start, p in enumerate(q) if p > 0})


def shifting_starts(n_layers: int, strength: float = 0.5) -> LayerSampler:
    """Starts that move from shallow to deep over the training.

        qᵢ ∝ exp(α [(1 - r)(b - i) + r (i - 1)])        i = 1, …, b, progress r

    **Arguments:** `strength`: α; 0 is uniform, a negative one moves from deep to shallow.

    >>> [f"{q:.4f}" for q in shifting_starts(3).probabilities(0.0)]
    ['0.5065', '0.3072', '0.1863']
    """
    b = _at_least_one(n_layers)
    early, late = [strength * (b - i) for i in range(1, b + 1)], [strength * (i - 1) for i in range(1, b + 1)]
    return _of({_from(start, b): early[start] for start in range(b)}, {_from(start, b): late[start] for start in range(b)})


def starts_from_marginals(marginals: Sequence[float] | Float[Array, " layers"]) -> LayerSampler:
    """The starts under which layer i is updated with probability pᵢ.

    **Raises:** `ValueError` unless the marginals lie in [0, 1], never fall, and end with 1.

    >>> [f"{q:.2f}" for q in starts_from_marginals([0.25, 0.5, 1.0]).probabilities()]
    ['0.25', '0.25', '0.50']
    """
    p = np.asarray(marginals, np.float64)
    if not p.size or p[0] < 0 or (np.diff(p) < 0).any() or not math.isclose(p[-1], 1, abs_tol=ROUND_OFF):
        raise ValueError(f"marginals of starts must be at least 0, must not fall from layer to layer and must end with 1, got {p.tolist()}")
    return sampled_starts((np.diff(p, prepend=0.0) / p[-1]).tolist())


def independent_layers(marginals: Sequence[float] | Float[Array, " layers"]) -> LayerSampler:
    """Each layer by itself with probability pᵢ: any set may come up, also none.

    The backward pass still goes down to the lowest layer of the set. Each of the up to 2ᵇ sets is a program of its own.

    **Raises:** `ValueError` unless the marginals lie in [0, 1], for 1 to 10 layers.

    >>> print(independent_layers([0.5, 1.0]).variants)
    ((True, True), (False, True))
    """
    p = np.asarray(marginals, np.float64)
    if not 1 <= p.size <= MOST_LAYERS or (p < 0).any() or (p > 1).any():
        raise ValueError(f"marginals must be 1 to {MOST_LAYERS} numbers in [0, 1], got {p.tolist()}")
    chances = {
        variant: math.prod(chance if active else 1 - chance for active, chance in zip(variant, p.tolist(), strict=True))
        for variant in itertools.product((True, False), repeat=p.size)
    }
    return _of({variant: math.log(chance) for variant, chance in chances.items() if chance > 0})


def optimal_marginals(
    smoothness: Sequence[float], costs: Sequence[float] | None = None, forward_cost: float = 0.0
) -> Float[Array, " layers"]:
    """The marginals of starts with the least total cost to a given accuracy.

        minimise (c_f + Σ pᵢ cᵢ) maxᵢ Lᵢ/pᵢ     over 0 < p₁ ≤ … ≤ p_b = 1
        pᵢ = max(L₁, …, Lᵢ) / max L,    p_b = 1

    They do not depend on the costs, given here to be checked. All are 1, full updates are best, only if L₁ is the largest.

    **Arguments:** `smoothness`: Lᵢ > 0 of each layer in its norm ([`layer_smoothness`][gradatim.optim.layer_smoothness] measures it).

    **Raises:** `ValueError` for a number out of its range.

    >>> print(optimal_marginals([1.0, 4.0, 2.0]))
    [0.25 1.   1.  ]
    """
    constants = np.asarray(smoothness, np.float64)
    if not constants.size or not (constants > 0).all():
        raise ValueError(f"smoothness must be positive for every layer, got {constants.tolist()}")
    if costs is not None:
        _costs(costs, forward_cost, constants.size)
    p = np.maximum.accumulate(constants) / constants.max()
    p[-1] = 1
    return jnp.asarray(p, jnp.result_type(float))


def total_cost(marginals: Sequence[float] | Array, smoothness: Sequence[float], costs: Sequence[float], forward_cost: float = 0.0) -> float:
    """(c_f + Σ pᵢ cᵢ) maxᵢ Lᵢ/pᵢ: the cost to a given accuracy of starts with marginals p, up to a factor that all share.

    **Arguments:** `marginals`: pᵢ in (0, 1], as a layer that is never updated never gets there; `smoothness`: Lᵢ > 0;
    `costs`, `forward_cost`: those of `LayerSampler.expected_cost`.

    **Raises:** `ValueError` for a number out of its range, or unless there is one of each a layer.

    >>> total_cost([0.25, 1.0, 1.0], [1.0, 4.0, 2.0], [1.0, 1.0, 1.0]), total_cost([1.0] * 3, [1.0, 4.0, 2.0], [1.0] * 3)
    (9.0, 12.0)
    """
    p, constants = np.asarray(marginals, np.float64), np.asarray(smoothness, np.float64)
    # Marginals in single precision may add up to a little more than 1.
    if not p.size or not ((p > 0) & (p <= 1 + ROUND_OFF)).all():
        raise ValueError(f"marginals must lie in (0, 1] for every layer, got {p.tolist()}")
    if constants.shape != p.shape or not (constants > 0).all():
        raise ValueError(f"smoothness must be {p.size} positive numbers, got {constants.tolist()}")
    c = np.asarray(_costs(costs, forward_cost, p.size))
    return float((forward_cost + p @ c) * (constants / p).max())


def _at_least_one(n_layers: int) -> int:
    if n_layers < 1:
        raise ValueError(f"n_layers must be at least 1, got {n_layers}")
    return n_layers


def _costs(costs: Sequence[float], forward_cost: float, n_layers: int) -> list[float]:
    costs = list(map(float, costs))
    if len(costs) != n_layers or not all(cost > 0 for cost in costs) or not forward_cost >= 0:
        raise ValueError(f"costs must be {n_layers} positive numbers and forward_cost at least 0, got {costs} and {forward_cost}")
    return costs


def _from(start: int, n_layers: int) -> Active:
    return (False,) * start + (True,) * (n_layers - start)


def _of(early: dict[Active, float], late: dict[Active, float] | None = None) -> LayerSampler:
    dtype = jnp.result_type(float)
    first = jnp.asarray(list(early.values()), dtype)
    # A buffer of its own: two fields that share one cannot be donated.
    last = jnp.asarray(list((late or early).values()), dtype)
    return LayerSampler(tuple(early), first, last)
