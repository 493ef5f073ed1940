"""Conditions F(x, *θ) = 0 made ready for a rule of derivatives: arrays of one kind, closures as leaves, ∂₁F as a linear operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import PyTree

Conditions = Callable[..., PyTree]
"F(x, *theta), of the structure of x: zero at a solution."


class LinearRule(eqx.Module):
    """How the linear system is made and solved."""

    linear_solver: lx.AbstractLinearSolver | None
    options: dict[str, Any]
    ridge: Any
    tags: frozenset[object] = eqx.field(static=True)
    throw: bool = eqx.field(static=True)


def linear_rule(linear_solver: Any, options: Any, tags: Any, ridge: Any, *, throw: bool = True) -> LinearRule:
    """The rule, its ridge checked; None stands for a ridge of zero, whose term would still be computed."""
    if isinstance(ridge, int | float) and not ridge >= 0:
        raise ValueError(f"ridge must be at least 0, got {ridge}")
    tags = frozenset(tags) if isinstance(tags, frozenset | set | tuple | list) else frozenset([tags])
    ridge = None if isinstance(ridge, int | float) and ridge == 0 else ridge
    return LinearRule(linear_solver, dict(options or {}), ridge, tags, throw)


def condition_operator(conditions: Any, x: PyTree, theta: tuple[tuple, dict], rule: LinearRule) -> lx.AbstractLinearOperator:
    """∂₁F, with the ridge."""
    return lx.JacobianLinearOperator(_damped, x, (conditions, theta, rule.ridge, held(x)), tags=rule.tags)


def _damped(x: PyTree, args: Any) -> PyTree:
    conditions, (positional, named), ridge, held = args
    value = conditions(x, *positional, **named)
    if ridge is None:
        return value
    # Zero in value, ρ in its derivative.
    return jax.tree.map(lambda f, x, x0: f + ridge * (x - x0), value, x, held)


def held(tree: PyTree) -> PyTree:
    """The tree without derivatives."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def strong_arrays(tree: PyTree) -> PyTree:
    """NumPy's arrays as JAX's, which alone have derivatives; and weakly typed ones, behind which a Python number may stand, as others."""

    def array(leaf: Any) -> Any:
        weak = isinstance(leaf, jax.Array) and leaf.weak_type
        return jnp.asarray(leaf, leaf.dtype) if weak or isinstance(leaf, np.ndarray | np.generic) else leaf

    return jax.tree.map(array, tree)


def unknowns(x: PyTree) -> PyTree:
    """The unknowns as arrays, Python's floats included."""
    return strong_arrays(jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, x))


def converted_conditions(conditions: Conditions, x: PyTree, theta: tuple, named: dict) -> Any:
    """The conditions, checked, with what they close over as leaves: closed-over tracers would get no derivative."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not eqx.is_inexact_array(leaf):
            what = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"x must hold floating-point arrays only, got {what} at {jax.tree_util.keystr(path) or 'itself'}")
    converted: Any = eqx.filter_closure_convert(conditions, x, *theta, **named)
    check_structure("conditions", converted.out_struct, jax.eval_shape(lambda: x))
    return strong_arrays(converted)


def check_structure(name: str, value: PyTree, wanted: PyTree) -> None:
    """Raises `ValueError` for a value that has not the structure and shapes of x."""
    if jax.tree.structure(value) != jax.tree.structure(wanted):
        raise ValueError(f"{name} must return the structure of x, {jax.tree.structure(wanted)}, got {jax.tree.structure(value)}")
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(value), jax.tree.leaves(wanted), strict=True):
        if a.shape != b.shape:
            where = jax.tree_util.keystr(path) or "itself"
            raise ValueError(f"{name} must return the shapes of x, {b.shape} at {where}, got {a.shape}; batch with jax.vmap")
