"""Training of networks that stand for a solution operator: Adam, then L-BFGS, in one compiled program."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray, PyTree


class AbstractOperator(eqx.Module):
    """Networks, what they need to make a field of their outputs, and a loss."""

    @abc.abstractmethod
    def loss(self, samples: PyTree) -> Float[Array, ""]:
        """Over a batch, whose arrays have samples along their first axis."""

    @abc.abstractmethod
    def networks(self) -> tuple[PyTree, ...]:
        """What is trained."""

    @abc.abstractmethod
    def renewed(self, key: PRNGKeyArray) -> AbstractOperator:
        """The same with networks that have learnt nothing."""

    def split(self) -> tuple[PyTree, PyTree]:
        """The arrays of the networks, which are trained, and the rest; `eqx.combine` joins them again."""
        trained = tuple(jax.tree.map(eqx.is_inexact_array, network) for network in self.networks())
        return eqx.partition(self, eqx.tree_at(lambda model: model.networks(), jax.tree.map(lambda _: False, self), trained))

    @property
    def parameters(self) -> Float[Array, " parameters"]:
        """All that is trained, in one row."""
        return ravel_pytree(self.split()[0])[0]

    def with_parameters(self, parameters: Float[Array, " parameters"]) -> AbstractOperator:
        """The same with other parameters, in the order of `parameters`."""
        trained, rest = self.split()
        return eqx.combine(ravel_pytree(trained)[1](parameters), rest)


class OperatorFit(NamedTuple):
    """Parameters, for each key one row, for `AbstractOperator.with_parameters`, and how they came about."""

    parameters: Float[Array, "keys parameters"]
    after_adam: Float[Array, "keys parameters"]
    "Those with which the second part began."
    adam_loss: Float[Array, "keys adam_steps"]
    "Of the batch, before each step."
    lbfgs_loss: Float[Array, "keys lbfgs_steps"]
    "Of all samples, after each step."
    is_search_failed: Bool[Array, "keys lbfgs_steps"]
    "Whether the line search found no step with a sufficient decrease."


@eqx.filter_jit
def fit_operator(
    model: AbstractOperator,
    samples: PyTree,
    keys: Key[Array, " keys"],
    *,
    adam_steps: int = 1000,
    lbfgs_steps: int,
    batch_size: int = 10,
    learning_rate: float = 1e-3,
    memory: int = 50,
) -> OperatorFit:
    """Fresh networks for each key, trained by `adam_steps` of Adam on batches, then by `lbfgs_steps` of L-BFGS on all samples.

    The second part does most of the work where a loss is as ill-conditioned as that of a reduced model. Its parameters lie in one row:
    a loop that carries dozens of small arrays, fifty times each, is slow. Keys go one after another: mapped over by `vmap`, a line search
    computes for all what one of them needs. Low losses ask for double precision.

    **Arguments:** `samples`: what `model.loss` takes, samples along the first axis of each array; `keys`: first weights, and the samples of
    each batch, drawn with replacement; `batch_size`: of Adam, at most all samples; `learning_rate`: Adam's, constant; `memory`: pairs that
    L-BFGS keeps. Defaults are those of arXiv:2504.07976, whose tens of thousands of steps of L-BFGS are the caller's to say.

    **Raises:** `ValueError` for a number of steps below 0 or sizes below 1.

    >>> import numpy as np
    >>> from gradatim.sciml import EquilibriumOperator, ModalBasis, PeriodicCell, linear_elastic
    >>> with jax.enable_x64(True):
    ...     cell = PeriodicCell.structured(1, materials=[linear_elastic(4.0, 3.0)])
    ...     basis = ModalBasis.from_snapshots(cell, cell.snapshots(0.01 * np.eye(3)), 2)
    ...     model = EquilibriumOperator(basis, width=4, depth=1, key=jax.random.key(0))
    ...     strains, keys = 0.01 * jnp.eye(3), jax.random.split(jax.random.key(1), 2)
    ...     eqx.filter_eval_shape(lambda: fit_operator(model, strains, keys, adam_steps=5, lbfgs_steps=3)).lbfgs_loss.shape
    (2, 3)
    """
    for name, number, least in (
        ("adam_steps", adam_steps, 0), ("lbfgs_steps", lbfgs_steps, 0), ("batch_size", batch_size, 1), ("memory", memory, 1),
    ):  # fmt: skip
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    count = len(jax.tree.leaves(samples)[0])
    batch_size = min(batch_size, count)
    adam = optax.adam(learning_rate)
    lbfgs = optax.lbfgs(memory_size=memory)

    def one(key: PRNGKeyArray) -> OperatorFit:
        key_first, key_batches = jax.random.split(key)
        fresh = model.renewed(key_first)
        trained, rest = fresh.split()
        flat, unravel = ravel_pytree(trained)

        def loss(flat: Array, samples: PyTree) -> Array:
            return eqx.combine(unravel(flat), rest).loss(samples)

        # With a gradient of its own: else the search differentiates it at each place that calls it, and compiles longer.
        with_gradient = jax.jit(jax.value_and_grad(lambda flat: loss(flat, samples)))

        @jax.custom_vjp
        def of_all(flat: Array) -> Array:
            return with_gradient(flat)[0]

        of_all.defvjp(with_gradient, lambda gradient, weight: (weight * gradient,))

        def adam_step(carry: tuple[Array, Any], rows: Array) -> tuple[tuple[Any, Any], Array]:
            flat, state = carry
            value, gradient = jax.value_and_grad(loss)(flat, jax.tree.map(lambda array: array[rows], samples))
            updates, state = adam.update(gradient, state, flat)
            return (optax.apply_updates(flat, updates), state), value

        def lbfgs_step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Any, Any], tuple[Array, Array]]:
            flat, state = carry
            # The line search has seen the loss where it ended.
            value, gradient = state[-1].value, state[-1].grad
            updates, after = lbfgs.update(gradient, state, flat, value=value, grad=gradient, value_fn=of_all)
            search = cast(Any, after)[-1]
            return (optax.apply_updates(flat, updates), after), (search.value, search.info.decrease_error > 0)

        rows = jax.random.randint(key_batches, (adam_steps * batch_size,), 0, count).reshape(adam_steps, batch_size)
        (after_adam, _), adam_loss = jax.lax.scan(adam_step, (flat, adam.init(flat)), rows)
        state = cast(Any, lbfgs.init(after_adam))
        if lbfgs_steps == 0:
            nothing = jnp.zeros(0, flat.dtype)
            return OperatorFit(after_adam, after_adam, adam_loss, nothing, nothing > 0)
        value, gradient = with_gradient(after_adam)
        state = (*state[:-1], state[-1]._replace(value=value, grad=gradient))
        (final, _), (lbfgs_loss, is_failed) = jax.lax.scan(lbfgs_step, (after_adam, state), length=lbfgs_steps)
        return OperatorFit(final, after_adam, adam_loss, lbfgs_loss, is_failed)

    return jax.lax.map(one, keys)
