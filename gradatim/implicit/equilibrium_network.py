"""Networks that settle into an equilibrium: a vector field on layers whose activities drive one another."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray, PyTree

from .holomorphic import check_holomorphic

ARROW = "->"


class AbstractEquilibriumNetwork(eqx.Module):
    """Layers u that drive one another through their activities r = φ(u), for one input; batch with `jax.vmap`.

        u ← G(r; x)     at rest, and under a nudge β     u ← G(r; x) + β ∂L/∂r

    G need not be the gradient of anything. For nudges in the complex plane, G, φ and ∂L/∂r must be holomorphic.
    """

    activation: eqx.AbstractVar[Callable[[Array], Array]]
    "φ, for every unit by itself."

    @abc.abstractmethod
    def drive(self, x: Array) -> PyTree[Array]:
        """All of G that does not depend on the state, of the state's structure: computed once for a whole relaxation."""

    @abc.abstractmethod
    def field(self, activity: PyTree[Array], drive: PyTree[Array]) -> PyTree[Array]:
        """G(r; x) from the activities and the drive."""

    @abc.abstractmethod
    def cost(self, activity: PyTree[Array], target: Array) -> Inexact[Array, ""]:
        """L(r, y)."""


def activities(network: AbstractEquilibriumNetwork, state: PyTree[Array]) -> PyTree[Array]:
    """Activities r = φ(u), unit by unit."""
    return jax.tree.map(network.activation, state)


def steep_sigmoid(u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """φ(u) = 1/(1 + e^{2 - 4u}): from 0 to 1 with slope 1 in the middle, at u = ½ (Laborieux & Zenke, arXiv:2309.02214).

    Holomorphic but for poles at u = ½ + iπ(2k + 1)/4.

    >>> print(steep_sigmoid(jnp.array(0.5)), jax.grad(steep_sigmoid)(0.5))
    0.5 1.0
    """
    return jax.nn.sigmoid(4 * u - 2)


class Readout(eqx.Module):
    """Logits R r + b of the last layer."""

    weight: Float[Array, "classes units"]
    bias: Float[Array, " classes"]


class LayeredNetwork(AbstractEquilibriumNetwork):
    """Dense connections between named layers, in both directions or round a loop (Laborieux & Zenke, arXiv:2309.02214, section 2).

        G_post = b_post + Σ_pre W_{pre→post} r_pre,     L = cross-entropy of softmax(R r_out + c),  or ½ ‖r_out - y‖² without a readout

    Weights that lead to an earlier layer are parameters of their own and need not mirror those that lead forward. The more they amplify,
    the more steps a relaxation takes, up to several equilibria, or two states between which it swings for ever: watch the residual.

    **Arguments:** `sizes`: units of each layer by name, the input first and the output last; `connections`: such as `"l1->l2"`, see
    [`chain_connections`][gradatim.implicit.chain_connections] and [`loop_connections`][gradatim.implicit.loop_connections]; `classes`: of
    a readout, None to read the output's activities themselves; `activation` φ; `gain`: standard deviation of the first weights times the
    root of their number of inputs; `key`: draws them; biases start at zero. The target of a readout is the number of the class, else y.

    **Raises:** `ValueError` for fewer than two layers, connections that name no layer, lead into the input or are there twice, and layers
    that nothing leads into.

    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = LayeredNetwork(sizes, chain_connections(sizes), classes=2, key=jax.random.key(0))
    >>> sorted(network.weights)
    ['in->l1', 'l1->out', 'out->l1']
    """

    weights: dict[str, Float[Array, "post pre"]]
    biases: dict[str, Float[Array, " post"]]
    readout: Readout | None
    activation: Callable[[Array], Array] = eqx.field(static=True)
    input: str = eqx.field(static=True)
    output: str = eqx.field(static=True)

    def __init__(
        self,
        sizes: Mapping[str, int],
        connections: Sequence[str],
        *,
        classes: int | None = None,
        activation: Callable[[Array], Array] = steep_sigmoid,
        gain: float = 1.0,
        key: PRNGKeyArray,
        dtype: Any = None,
    ) -> None:
        _check_connections(sizes, connections)
        dtype = jnp.result_type(float) if dtype is None else dtype
        names = list(sizes)
        keys = jax.random.split(key, len(connections) + 1)

        def draw(key: PRNGKeyArray, post: int, pre: int) -> Float[Array, "post pre"]:
            # Drawn flat: XLA compiles draws with several axes many times slower.
            return gain / math.sqrt(pre) * jax.random.normal(key, (post * pre,), dtype).reshape(post, pre)

        self.weights = {}
        for connection, one in zip(connections, keys[1:], strict=True):
            pre, post = ends(connection)
            self.weights[connection] = draw(one, sizes[post], sizes[pre])
        self.biases = {name: jnp.zeros(sizes[name], dtype) for name in names[1:]}
        self.readout = None if classes is None else Readout(draw(keys[0], classes, sizes[names[-1]]), jnp.zeros(classes, dtype))
        self.activation, self.input, self.output = activation, names[0], names[-1]

    def drive(self, x: Float[Array, " inputs"]) -> dict[str, Float[Array, " _"]]:
        """Biases and what the input sends."""
        drive = dict(self.biases)
        for connection, weight in self.weights.items():
            pre, post = ends(connection)
            if pre == self.input:
                drive[post] = drive[post] + weight @ x
        return drive

    def field(self, activity: dict[str, Inexact[Array, " _"]], drive: dict[str, Inexact[Array, " _"]]) -> dict[str, Inexact[Array, " _"]]:
        """What every layer is sent."""
        sent: dict[str, Array] = dict(drive)
        for connection, weight in self.weights.items():
            pre, post = ends(connection)
            if pre != self.input:
                sent[post] = sent[post] + _product(weight, activity[pre])
        return sent

    def cost(self, activity: dict[str, Inexact[Array, " _"]], target: Int[Array, ""] | Float[Array, " outputs"]) -> Inexact[Array, ""]:
        """L of the output; NaN for a number that is no class."""
        found = self.predict(activity)
        if self.readout is None:
            # Not a norm: the square of a complex number, whose derivative exists.
            return jnp.sum((found - target) ** 2) / 2
        # Only what keeps the exponentials finite is real and held: the value is holomorphic in the logits.
        largest = jax.lax.stop_gradient(found.real.max())
        chosen = found.at[target].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return jnp.log(jnp.sum(jnp.exp(found - largest))) + largest - chosen

    def predict(self, activity: dict[str, Inexact[Array, " _"]]) -> Inexact[Array, " _"]:
        """Logits, or the output's activities where there is no readout."""
        found = activity[self.output]
        return found if self.readout is None else _product(self.readout.weight, found) + self.readout.bias

    def reciprocal_pairs(self) -> list[tuple[str, str]]:
        """Connections and those that lead back, `("l1->l2", "l2->l1")`, in the order of the layers."""
        order = {name: i for i, name in enumerate((self.input, *self.biases))}
        both = ((c, ARROW.join(reversed(ends(c)))) for c in self.weights if order[ends(c)[0]] < order[ends(c)[1]])
        return sorted(((c, back) for c, back in both if back in self.weights), key=lambda pair: order[ends(pair[0])[0]])

    def own(self) -> list[str]:
        """Connections of a layer to itself."""
        return sorted(c for c in self.weights if ends(c)[0] == ends(c)[1])

    def unpaired(self) -> list[str]:
        """Connections between two layers with a state that none leads back from."""
        paired = {c for pair in self.reciprocal_pairs() for c in pair} | set(self.own())
        return sorted(c for c in self.weights if c not in paired and ends(c)[0] != self.input)


def chain_connections(names: Sequence[str] | Mapping[str, int]) -> tuple[str, ...]:
    """Every layer to the next, and every layer but the input's back.

    >>> chain_connections(["in", "l1", "out"])
    ('in->l1', 'l1->out', 'out->l1')
    """
    names = list(names)
    return (*(f"{a}{ARROW}{b}" for a, b in pairwise(names)), *(f"{b}{ARROW}{a}" for a, b in pairwise(names[1:])))


def loop_connections(names: Sequence[str] | Mapping[str, int]) -> tuple[str, ...]:
    """Every layer to the next, and the last to the first that is not the input: with three such layers or more, no link has a partner.

    >>> loop_connections(["in", "l1", "l2", "out"])
    ('in->l1', 'l1->l2', 'l2->out', 'out->l1')
    """
    names = list(names)
    return (*(f"{a}{ARROW}{b}" for a, b in pairwise(names)), f"{names[-1]}{ARROW}{names[1]}")


def ends(connection: str) -> tuple[str, str]:
    """Where a connection comes from and where it leads."""
    pre, _, post = connection.partition(ARROW)
    return pre, post


def check_complex(network: AbstractEquilibriumNetwork) -> None:
    """Refuses an activation that complex nudges would be wrong with."""
    check_holomorphic(network.activation, "activation")


def _product(weight: Float[Array, "post pre"], activity: Inexact[Array, " pre"]) -> Inexact[Array, " post"]:
    if not jnp.iscomplexobj(activity):
        return weight @ activity
    # Twice the products of real numbers: with the weights made complex there would be four.
    return jax.lax.complex(weight @ activity.real, weight @ activity.imag)


def _check_connections(sizes: Mapping[str, int], connections: Sequence[str]) -> None:
    names = list(sizes)
    if len(names) < 2:
        raise ValueError(f"sizes must hold an input and at least one layer, got {names}")
    if bad := [name for name, size in sizes.items() if size < 1]:
        raise ValueError(f"sizes must be at least 1, got {sizes[bad[0]]} for {bad[0]}")
    for connection in connections:
        pre, post = ends(connection)
        if pre not in sizes or post not in sizes:
            raise ValueError(f"connections must join layers among {', '.join(names)} as in {names[0]}->{names[1]}, got {connection!r}")
        if post == names[0]:
            raise ValueError(f"connections must not lead into the input {names[0]}, got {connection!r}")
    if twice := [c for c in connections if connections.count(c) > 1]:
        raise ValueError(f"connections must not be there twice, got {twice[0]!r}")
    if lost := [name for name in names[1:] if name not in {ends(c)[1] for c in connections}]:
        raise ValueError(f"connections must lead into every layer, none leads into {lost[0]}")
