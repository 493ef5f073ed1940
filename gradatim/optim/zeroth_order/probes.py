"""Random directions that can be drawn again from their key, whole or block by block: the one source of noise of the family."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, UInt32

from gradatim.numerics.checks import is_known

Distribution = Literal["gaussian", "rademacher", "sphere"]
BLOCK = 4096
"Numbers drawn at a time where memory counts: short enough for the first-level cache, long enough to hide the loop."


def probe_seed(key: Any) -> UInt32[Array, 2]:
    """The two words that all draws of a key hash their counters with.

    **Raises:** `TypeError` for what is no key, `ValueError` for an array of keys.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if key.shape:
            raise ValueError(f"key must be a single key, got shape {key.shape}; batch with jax.vmap")
        data = jax.random.key_data(key)
        return data if data.shape == (2,) else jax.random.bits(key, (2,), jnp.uint32)
    if dtype == jnp.uint32 and key.shape == (2,):
        return jnp.asarray(key)
    raise TypeError(f"key must be a JAX random key (jax.random.key), got {key!r}")


def draw_probe(seed: UInt32[Array, 2], like: Any, probe: Any = 0, *, distribution: Distribution = "gaussian") -> Any:
    """Direction number `probe` of a seed: a tree like `like` of mean 0 and E[z zᵀ] = I, in single precision or the leaf's, if wider.

    Each number has 32 random bits, both words of a Threefry hash being used, so a direction costs half of `jax.random.normal`'s.
    The same direction, in blocks and without ever being whole, moves parameters in [`shifted`][gradatim.optim.zeroth_order.probes.shifted].

    **Arguments:** `like`: arrays or `jax.ShapeDtypeStruct`s; `distribution`: `"gaussian"`; `"rademacher"`, ±1; `"sphere"`, uniform on
    the sphere of radius √d over all leaves together.
    """
    leaves, treedef = jax.tree.flatten(like)
    flat = [_leaf(seed, _stream(probe, len(leaves), i), math.prod(leaf.shape), distribution) for i, leaf in enumerate(leaves)]
    if distribution == "sphere":
        size = sum(z.size for z in flat)
        scale = np.float32(math.sqrt(size)) * jax.lax.rsqrt(sum((jnp.vdot(z, z) for z in flat), jnp.zeros((), jnp.float32)))
        flat = [scale * z for z in flat]
    wide = [jnp.promote_types(leaf.dtype, jnp.float32) for leaf in leaves]
    return treedef.unflatten([z.reshape(leaf.shape).astype(d) for z, leaf, d in zip(flat, leaves, wide, strict=True)])


def draw_orthogonal(seed: UInt32[Array, 2], like: Any, n_probes: int) -> Any:
    """`n_probes` directions at right angles, each of length √d, stacked along the first axis: uniform, so E[z zᵀ] = I.

    **Raises:** `ValueError` if there are more of them than dimensions.
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)), like))
    if n_probes > flat.size:
        raise ValueError(f"n_probes must be at most {flat.size}, the number of parameters, for orthogonal directions, got {n_probes}")
    rows = jax.vmap(lambda k: draw_probe(seed, flat, k))(jnp.arange(n_probes))
    basis = jnp.linalg.qr(rows.T)[0].T * math.sqrt(flat.size)
    return jax.vmap(unravel)(basis)


def shifted(params: Any, seed: UInt32[Array, 2], scale: Any, *, keep: Any = 1.0, distribution: Distribution = "gaussian") -> Any:
    """`keep` θ + `scale` z, block by block: with its buffers donated, in place, and z is never whole.

    **Arguments:** `scale`, `keep`: a number, or a tree like `params` of one for each leaf; `distribution`: not `"sphere"`, whose
    scale needs all of z.
    """
    leaves, treedef = jax.tree.flatten(params)
    scales, factors = (treedef.flatten_up_to(number) if _is_tree(number, treedef) else [number] * len(leaves) for number in (scale, keep))
    moved = [
        _shifted_leaf(leaf, seed, _stream(0, len(leaves), i), s, factor, distribution)
        for i, (leaf, s, factor) in enumerate(zip(leaves, scales, factors, strict=True))
    ]
    return treedef.unflatten(moved)


def _is_tree(number: Any, treedef: Any) -> bool:
    return jax.tree.structure(number) == treedef


def _shifted_leaf(leaf: Any, seed: Any, stream: Any, scale: Any, factor: Any, distribution: Distribution) -> Any:
    n_blocks, rest = divmod(leaf.size, BLOCK)

    def move(x: Any, z: Any) -> Any:
        return (factor * x + scale * z).astype(leaf.dtype)

    def body(block: Any, flat: Any) -> Any:
        x = jax.lax.dynamic_slice(flat, (block * BLOCK,), (BLOCK,))
        return jax.lax.dynamic_update_slice(flat, move(x, _block(seed, stream, block, BLOCK, distribution)), (block * BLOCK,))

    flat = leaf.reshape(-1)
    if n_blocks:
        flat = jax.lax.fori_loop(0, n_blocks, body, flat)
    if rest:
        tail = move(flat[n_blocks * BLOCK :], _block(seed, stream, n_blocks, rest, distribution))
        flat = jax.lax.dynamic_update_slice(flat, tail, (n_blocks * BLOCK,)) if n_blocks else tail
    return flat.reshape(leaf.shape)


def _stream(probe: Any, n_leaves: int, leaf: int) -> UInt32[Array, ""]:
    return jnp.asarray(probe, jnp.uint32) * jnp.uint32(n_leaves) + jnp.uint32(leaf)


def _leaf(seed: Any, stream: Any, size: int, distribution: Distribution) -> Float[Array, " size"]:
    n_blocks, rest = divmod(size, BLOCK)
    parts = []
    if n_blocks:
        half = BLOCK // 2
        words = _hash(seed, stream, jnp.arange(n_blocks * half, dtype=jnp.uint32))
        # Word by word as the blocks have them: of each block, first the hashes' first words, then their second.
        parts.append(_numbers(jnp.swapaxes(words.reshape(2, n_blocks, half), 0, 1).reshape(-1), distribution))
    if rest or not n_blocks:
        parts.append(_block(seed, stream, n_blocks, rest, distribution))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _block(seed: Any, stream: Any, block: Any, size: int, distribution: Distribution) -> Float[Array, " size"]:
    first = jnp.asarray(block, jnp.uint32) * jnp.uint32(BLOCK // 2)
    counters = first + jnp.arange(-(-size // 2), dtype=jnp.uint32)
    return _numbers(_hash(seed, stream, counters)[:size], distribution)


def _hash(seed: Any, stream: Any, counters: Any) -> UInt32[Array, " words"]:
    return threefry_2x32(seed, jnp.concatenate([counters, jnp.full(counters.shape, stream, jnp.uint32)]))


def _numbers(words: Any, distribution: Distribution) -> Float[Array, " words"]:
    if distribution == "rademacher":
        return jnp.where(words >> 31 == 1, np.float32(1), np.float32(-1))
    # 23 bits as the mantissa of a number in [1, 2), then (-1, 1): the inverse error function stays finite.
    unit = jax.lax.bitcast_convert_type((words >> 9) | jnp.uint32(0x3F800000), jnp.float32) - np.float32(1)
    low = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(math.sqrt(2)) * jax.lax.erf_inv(jnp.maximum(low, unit * (1 - low) + low))


def scalar_loss(fun: Callable[..., Any]) -> Callable[..., Float[Array, ""]]:
    """`fun` with a check that its value is one real number; a whole number becomes a floating-point one."""

    def loss(*args: Any) -> Float[Array, ""]:
        value = jnp.asarray(fun(*args))
        if value.shape:
            raise ValueError(f"fun must return a scalar, got shape {value.shape}: take a mean")
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise TypeError(f"fun must return a real number, got {value.dtype}")
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.float32)

    return loss


def check_parameters(params: Any) -> None:
    """**Raises:** `TypeError`, naming it, for a leaf that is not real floating point; `ValueError` where there is no leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params must hold at least one array, got an empty tree")
    for path, leaf in leaves:
        where = f"parameter {jax.tree_util.keystr(path)}" if path else "the parameter"
        dtype = getattr(leaf, "dtype", None) if not isinstance(leaf, float) else jnp.result_type(leaf)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = type(leaf).__name__ if dtype is None else dtype
            raise TypeError(f"{where} must be real floating point, got {kind}; take it out with eqx.partition")


def check_positive(name: str, value: Any) -> None:
    """**Raises:** `ValueError` unless the number, where it can be looked at, is positive and finite."""
    if value is not None and is_known(value) and not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """**Raises:** `ValueError` unless the whole number is at least `least`."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_word(name: str, value: str, words: Any) -> None:
    """**Raises:** `ValueError` unless the word is one of those allowed, given as a tuple or as a `Literal`."""
    allowed = words if isinstance(words, tuple) else get_args(words)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def difference_radius(dtype: Any) -> float:
    """ε^⅓, where the rounding of a central difference, of order ε/h, is as large as its bias, of order h²: 4.9e-3 in single precision."""
    return float(jnp.finfo(dtype).eps) ** (1 / 3)


def chosen_radius(radius: Any, params: Any) -> Any:
    """`radius`, or where it is None that of the coarsest dtype; warns of one at which differences are mostly rounding."""
    dtype = max((leaf.dtype for leaf in jax.tree.leaves(params)), key=lambda d: float(jnp.finfo(d).eps))
    if radius is None:
        return difference_radius(dtype)
    least = float(jnp.finfo(dtype).eps) ** 0.5
    if is_known(radius) and float(radius) < least:
        warnings.warn(
            f"radius {float(radius):g} is so small for {dtype} that differences of losses are mostly rounding: "
            f"take at least {least:.1g}, best about {difference_radius(dtype):.1g}",
            stacklevel=3,
        )
    return radius
