"""MAML: a start from which a few steps fit a network to any one task of many (Finn et al., arXiv:1703.03400).

    φ₀ = θ,   φₖ₊₁ = φₖ - α ∇L(φₖ; support),     outer loss = mean over tasks of L(φ_K; query)

The derivative in θ goes through the inner steps: each hands a cotangent λ back as λ - α ∇²L λ. The Hessian being symmetric, its product
is taken forward over reverse from the parameters alone, so that K steps keep K copies of the parameters and no activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

Model = TypeVar("Model")
Loss = Callable[[Any, Any], Float[Array, ""]]
"`loss(model, data)`."


class Tasks(NamedTuple):
    """What a model is adapted to, and what it is then judged by; any two pytrees of arrays."""

    support: PyTree
    query: PyTree


class MAML(eqx.Module):
    """Adaptation by a few steps of any optimiser of optax, differentiated through; the outer optimiser is the caller's.

    The gradient of `meta_loss` is of second order unless `first_order` says otherwise. It is right with
    respect to the model, the data, and a rate that `optimizer` was made of (Meta-SGD); not with respect to what `loss` itself closes
    over, which JAX refuses. It is a reverse derivative: there is no `jax.jvp` of it.

    **Arguments:** `optimizer`: of the inner steps, such as `optax.sgd(0.1)`; `n_steps` ≥ 0: with none, the outer loss is that of
    training on the query points of all tasks together; `first_order`: inner gradients count as constants (FOMAML): cheaper, another
    gradient; `where`: the parts of a model that inner steps move, all by default: with the last layer alone this is ANIL.

    **Raises:** `ValueError` for a negative number of steps.

    >>> maml = MAML(optax.sgd(0.1), n_steps=1)
    >>> loss = lambda theta, target: jnp.sum((theta - target) ** 2)
    >>> slope = jax.grad(lambda theta: loss(maml.adapt(theta, loss, 1.0), 0.0))(jnp.array(2.0))
    >>> print(f"{slope:.2f}")
    2.88
    """

    optimizer: optax.GradientTransformation
    n_steps: int = eqx.field(static=True)
    first_order: bool = eqx.field(static=True, default=False)
    where: Callable[[Any], Any] | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.n_steps < 0:
            raise ValueError(f"n_steps must be at least 0, got {self.n_steps}")

    def adapt(self, model: Model, loss: Loss, support: PyTree) -> Model:
        """The model after the inner steps on one task."""
        return self.watched(model, loss, support, lambda model: None)[0]

    def watched(self, model: Model, loss: Loss, support: PyTree, watch: Callable[[Model], PyTree]) -> tuple[Model, PyTree]:
        """The adapted model, and what `watch` sees of it before the first step and after each, along a first axis."""
        moved, rest = eqx.partition(model, self._spec(model))

        def step(carry: tuple[PyTree, Any], _: None) -> tuple[tuple[PyTree, Any], PyTree]:
            moved, memory = carry
            seen = watch(eqx.combine(moved, rest))
            gradient = loss_gradient((moved, rest, support), loss)
            if self.first_order:
                gradient = jax.lax.stop_gradient(gradient)
            updates, memory = self.optimizer.update(gradient, memory, moved)
            return (eqx.apply_updates(moved, updates), memory), seen

        (moved, _), history = jax.lax.scan(step, (moved, self.optimizer.init(moved)), length=self.n_steps)
        adapted = eqx.combine(moved, rest)
        history = jax.tree.map(lambda rows, last: jnp.concatenate([rows, jnp.asarray(last)[None]]), history, watch(adapted))
        return adapted, history

    def meta_loss(self, model: Any, loss: Loss, tasks: Tasks) -> Float[Array, ""]:
        """The mean over tasks, a first axis of all their arrays, of the adapted model's loss of the query points."""
        return jnp.mean(jax.vmap(lambda task: loss(self.adapt(model, loss, task.support), task.query))(tasks))

    def _spec(self, model: Any) -> PyTree:
        if self.where is None:
            return jax.tree.map(eqx.is_inexact_array, model)
        return eqx.tree_at(self.where, jax.tree.map(lambda _: False, model), replace_fn=lambda _: True)


@eqx.filter_custom_vjp
def loss_gradient(inputs: tuple[PyTree, PyTree, PyTree], loss: Loss) -> PyTree:
    """∇L in the moved part of a model, whose own reverse derivative is taken forward over reverse.

        λ ↦ ∇²L λ     for the moved part,     λ ↦ ∇(λ·∇L)     for the rest and the data, only where they are differentiated

    **Arguments:** `inputs`: the moved part of a model, the rest as `eqx.partition` makes it, and the data; `loss`: of
    the whole model and the data.

    >>> product = jax.grad(lambda x: loss_gradient((x, None, None), lambda x, _: jnp.sum(x**3)) @ jnp.array([1.0, 0.0]))
    >>> product(jnp.array([2.0, 3.0])).tolist()
    [12.0, 0.0]
    """
    moved, rest, data = inputs
    return _gradient(loss, rest, data)(moved)


@loss_gradient.def_fwd
def _forward(perturbed: PyTree, inputs: tuple[PyTree, PyTree, PyTree], loss: Loss) -> tuple[PyTree, None]:
    del perturbed
    moved, rest, data = inputs
    return _gradient(loss, rest, data)(moved), None


@loss_gradient.def_bwd
def _backward(
    residuals: None, cotangent: PyTree, perturbed: PyTree, inputs: tuple[PyTree, PyTree, PyTree], loss: Loss
) -> tuple[PyTree, PyTree, PyTree]:
    del residuals
    moved, rest, data = inputs

    def whole(x: Any, λ: Any) -> Any:
        return jnp.zeros_like(x) if x is not None and λ is None else λ

    λ = jax.tree.map(whole, moved, cotangent, is_leaf=lambda x: x is None)
    _, product = jax.jvp(_gradient(loss, rest, data), (moved,), (λ,))
    wanted, others = eqx.partition((rest, data), perturbed[1:])

    def slope(wanted: PyTree) -> Float[Array, ""]:
        rest, data = eqx.combine(wanted, others)
        return jax.jvp(lambda moved: loss(eqx.combine(moved, rest), data), (moved,), (λ,))[1]

    return (product, *(jax.grad(slope)(wanted) if jax.tree.leaves(wanted) else wanted))


def _gradient(loss: Loss, rest: PyTree, data: PyTree) -> Callable[[PyTree], PyTree]:
    return jax.grad(lambda moved: loss(eqx.combine(moved, rest), data))
