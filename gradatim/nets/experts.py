"""Mixture of experts: each token passes through a few of many networks (DeepSeek-V3's form, arXiv:2412.19437, section 2.1.2)."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .feed_forward import SwiGLU, of_rows
from .parameters import MatrixAxes

DENSE_UP_TO = 8
"Routed experts up to which all of them are evaluated, by default: then one dense product is cheaper than grouping."
LARGEST_BLOCK = 64
"Rows of a block of tokens: enough for a fast product, few enough that the last block of each expert wastes little."


class Routing(NamedTuple):
    """Where each token goes: gates sum to one, before those beyond an expert's capacity are set to zero."""

    experts: Int[Array, "tokens top_k"]
    gates: Float[Array, "tokens top_k"]
    places: Int[Array, "tokens top_k"]  # among the tokens of the expert, from 0
    load: Int[Array, " routed"]  # tokens of each expert


class MixtureOfExperts(eqx.Module):
    """A few routed experts for each token, and shared ones for all.

        sᵢ = σ(eᵢ·x);   S = the `top_k` largest sᵢ + bᵢ;   gᵢ = sᵢ / Σ_S s for i in S;   y = shared(x) + Σ_S gᵢ FFNᵢ(x)

    The bias b balances: it chooses, but never enters a gate, and no gradient moves it. It is a whole number of steps of `bias_rate`, so
    that gradients and optimisers, which see floating-point arrays, leave it alone; [`balanced`][gradatim.nets.balanced] moves it
    after a training step. Of equal sᵢ + bᵢ the first expert is chosen. An expert that no token chose has a gradient of exactly zero.

    **Arguments:** `width` of tokens; `hidden`: units of each expert; `n_routed`: experts to choose from; `n_shared`: experts for
    every token, evaluated as one of `n_shared * hidden` units, which is the same; `top_k`: experts a token is routed to;
    `capacity`: tokens of one call that an expert takes, those after them lose its share of y (None: all); `bias_rate`: u;
    `dispatch`: `"dense"` evaluates all experts and weighs them, `"grouped"` lays tokens in blocks by expert (None: dense up to 8
    routed experts); both give the same; `key`. No biases in the networks.

    `jax.lax.ragged_dot` would group without filling up, but on a CPU it multiplies every row by every expert.

    **Raises:** `ValueError` for a size below 1 (`n_shared`: below 0), a `top_k` above `n_routed`, or an unknown `dispatch`.

    >>> experts = MixtureOfExperts(8, 4, n_routed=6, n_shared=2, top_k=2, key=jax.random.key(0))
    >>> y, load = eqx.filter_jit(experts)(jax.random.normal(jax.random.key(1), (10, 8)))
    >>> y.shape, int(load.sum())
    ((10, 8), 20)
    """

    parameter_kinds: ClassVar = {name: MatrixAxes((-1,), (-2,)) for name in ("gate", "up", "down")}

    router: eqx.nn.Linear
    gate: Float[Array, "routed hidden width"]
    up: Float[Array, "routed hidden width"]
    down: Float[Array, "routed width hidden"]
    shared: SwiGLU | None
    bias_steps: Int[Array, " routed"]
    bias_rate: float = eqx.field(static=True)
    top_k: int = eqx.field(static=True)
    capacity: int | None = eqx.field(static=True)
    dispatch: str = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        n_routed: int,
        n_shared: int = 0,
        top_k: int,
        capacity: int | None = None,
        bias_rate: float = 1e-3,
        dispatch: str | None = None,
        key: PRNGKeyArray,
    ) -> None:
        for name, size in (("width", width), ("hidden", hidden), ("n_routed", n_routed), ("top_k", top_k), ("capacity", capacity)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if n_shared < 0:
            raise ValueError(f"n_shared must be at least 0, got {n_shared}")
        if top_k > n_routed:
            raise ValueError(f"top_k must be at most the number of routed experts, {n_routed}, got {top_k}")
        if not bias_rate >= 0:
            raise ValueError(f"bias_rate must be at least 0, got {bias_rate}")
        if dispatch not in (None, "dense", "grouped"):
            raise ValueError(f"dispatch must be 'dense', 'grouped' or None, got {dispatch!r}")
        router, gate, up, down, shared = jax.random.split(key, 5)
        self.router = eqx.nn.Linear(width, n_routed, use_bias=False, key=router)
        self.gate, self.up = (_uniform(each, (n_routed, hidden, width)) for each in (gate, up))
        self.down = _uniform(down, (n_routed, width, hidden))
        self.shared = SwiGLU(width, n_shared * hidden, key=shared) if n_shared else None
        self.bias_steps, self.bias_rate = jnp.zeros(n_routed, jnp.int32), bias_rate
        self.top_k, self.capacity = top_k, capacity
        self.dispatch = dispatch or ("dense" if n_routed <= DENSE_UP_TO else "grouped")

    def __call__(self, x: Float[Array, "tokens width"]) -> tuple[Float[Array, "tokens width"], Int[Array, " routed"]]:
        """The output, and how many tokens each routed expert was chosen by."""
        routing = self.route(x)
        routed = self._dense(x, routing) if self.dispatch == "dense" else self._grouped(x, routing)
        return routed if self.shared is None else routed + self.shared(x), routing.load

    def route(self, x: Float[Array, "tokens width"]) -> Routing:
        """Which experts each token passes through, and with which weights."""
        affinity = jax.nn.log_sigmoid(of_rows(self.router, x))
        bias = (self.bias_rate * self.bias_steps).astype(x.dtype)
        _, experts = jax.lax.top_k(jax.lax.stop_gradient(jnp.exp(affinity)) + bias[None], self.top_k)
        # A softmax of log σ is σ over the sum of those chosen, and finite where all of these are tiny.
        gates = jax.nn.softmax(jnp.take_along_axis(affinity, experts, axis=1), axis=1)
        # A token chooses an expert once at most, so that counting down the tokens gives each a place of its own.
        counts = jnp.cumsum((experts[:, :, None] == jnp.arange(len(self.gate))[None, None]).any(1), axis=0, dtype=jnp.int32)
        places = jnp.take_along_axis(counts, experts, axis=1) - 1
        if self.capacity is not None:
            gates = jnp.where(places < self.capacity, gates, 0.0)
        return Routing(experts, gates, places, counts[-1])

    def _dense(self, x: Float[Array, "tokens width"], routing: Routing) -> Float[Array, "tokens width"]:
        """All experts as one wide network whose units are weighed."""
        n_routed, hidden, width = self.gate.shape
        is_this = routing.experts[:, :, None] == jnp.arange(n_routed)[None, None]
        weights = jnp.where(is_this, routing.gates[:, :, None], 0.0).sum(1)
        gate, up = (x @ each.reshape(-1, width).T for each in (self.gate, self.up))
        units = (jax.nn.silu(gate) * up).reshape(-1, n_routed, hidden) * weights[:, :, None]
        return units.reshape(len(x), -1) @ self.down.transpose(0, 2, 1).reshape(-1, width)

    def _grouped(self, x: Float[Array, "tokens width"], routing: Routing) -> Float[Array, "tokens width"]:
        """Tokens laid in blocks of one expert each, the last of an expert filled up with zeros: one batched product."""
        n_routed, n_rows = len(self.gate), routing.experts.size
        rows = max(1, min(LARGEST_BLOCK, n_rows // n_routed))
        n_blocks = n_rows // rows + min(n_routed, n_rows)
        ends = jnp.cumsum(-(-routing.load // rows))
        first = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
        slots = first[routing.experts] * rows + routing.places
        tokens = jnp.broadcast_to(jnp.arange(len(x))[:, None], slots.shape)
        source = jnp.full(n_blocks * rows, len(x)).at[slots].set(tokens)
        blocks = x.at[source].get(mode="fill", fill_value=0).reshape(n_blocks, rows, -1)
        expert = jnp.minimum(jnp.searchsorted(ends, jnp.arange(n_blocks), side="right"), n_routed - 1)
        gate, up = (jnp.einsum("brw,bhw->brh", blocks, each[expert]) for each in (self.gate, self.up))
        out = jnp.einsum("brh,bwh->brw", jax.nn.silu(gate) * up, self.down[expert]).reshape(n_blocks * rows, -1)
        return (out[slots] * routing.gates[:, :, None]).sum(1)


def balanced(experts: MixtureOfExperts, load: Int[Array, " routed"]) -> MixtureOfExperts:
    """The experts with their bias moved by one step, towards an even load: bᵢ ← bᵢ + u sign(mean load - loadᵢ).

    A larger `bias_rate` balances sooner and leaves a larger ripple. Called after an optimiser's step, outside any gradient.

    **Arguments:** `load`: of the step's whole batch, tokens an expert.

    **Raises:** `ValueError` for a load of another length.

    >>> experts = MixtureOfExperts(8, 4, n_routed=3, top_k=1, key=jax.random.key(0))
    >>> balanced(experts, jnp.array([5, 3, 1])).bias_steps.tolist()
    [-1, 0, 1]
    """
    if load.shape != experts.bias_steps.shape:
        raise ValueError(f"load must have shape {experts.bias_steps.shape}, got {load.shape}; sum it over the batch first")
    # Whole numbers throughout: mean and load are compared without rounding.
    step = jnp.sign(load.sum() - load * len(load)).astype(experts.bias_steps.dtype)
    return eqx.tree_at(lambda e: e.bias_steps, experts, experts.bias_steps + step)


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "routed out into"]:
    """As `equinox.nn.Linear` starts, one expert at a time."""
    limit = 1 / math.sqrt(shape[-1])
    # Drawn flat, which gives the same numbers and compiles several times faster.
    return jax.random.uniform(key, (math.prod(shape),), minval=-limit, maxval=limit).reshape(shape)
