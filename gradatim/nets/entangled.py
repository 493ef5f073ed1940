"""Layers whose options are nested slices of one tensor, mixed by one elementwise mask (TangleNAS, Sukthanker et al., arXiv:2312.10440).

A layer owns the weights W of its largest option; option i is a slice of them. With probabilities p the layer uses

    W_mix = Σᵢ pᵢ Pad(Wᵢ) = M(p) ∘ W,   M(p)[q] = Σ { pᵢ : slice i holds q }

where Pad puts a slice back into its place among zeros. The second form follows because slices of one tensor differ only in where they
end: it costs one product an entry, whatever the number of options, and one forward pass. Channels are taken from the low end, kernels
from the centre (the authors' code for sampled networks takes kernels from a corner, which is another space).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

M = TypeVar("M", bound=eqx.Module)


def nested_mask(probabilities: Float[Array, " options"] | None, sizes: Sequence[int]) -> Float[Array, " largest"]:
    """For each index the probability that a slice `:size` holds it.

    >>> print(nested_mask(jnp.array([0.5, 0.25, 0.25]), (2, 4, 6)))
    [1.   1.   0.5  0.5  0.25 0.25]
    """
    if probabilities is None and len(sizes) == 1:
        return jnp.ones(sizes[0])
    return checked_probabilities(probabilities, len(sizes)) @ jnp.asarray(_members(sizes), jnp.result_type(probabilities))


def kernel_mask(probabilities: Float[Array, " options"] | None, sizes: Sequence[int]) -> Float[Array, "side side"]:
    """For each entry of the largest kernel the probability that a centred smaller one holds it.

    >>> print(kernel_mask(jnp.array([0.25, 0.75]), (1, 3))[1])
    [0.75 1.   0.75]
    """
    side = sizes[-1]
    if probabilities is None and len(sizes) == 1:
        return jnp.ones((side, side))
    distance = np.maximum(*np.abs(np.indices((side, side)) - side // 2))
    members = np.stack([distance <= size // 2 for size in sizes])
    return jnp.tensordot(checked_probabilities(probabilities, len(sizes)), jnp.asarray(members, jnp.result_type(probabilities)), 1)


def _members(sizes: Sequence[int]) -> Bool[np.ndarray, "options largest"]:
    return np.arange(max(sizes))[None] < np.asarray(sizes)[:, None]


def checked_probabilities(probabilities: Any, n: int) -> Any:
    """The distribution, once it is known to have `n` entries."""
    if probabilities is None or probabilities.shape != (n,):
        raise ValueError(f"probabilities must have shape ({n},), one for each option, got {getattr(probabilities, 'shape', None)}")
    return probabilities


def ascending(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes, once they are known to be nested."""
    if not sizes or sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"{name} must be positive and strictly ascending, so that each option is a slice of the next, got {tuple(sizes)}")
    return tuple(sizes)


def scaled_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """Weights of variance 1 over the number of inputs of an output."""
    # Flat, then reshaped: XLA compiles a draw of many axes many times longer.
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape) / math.sqrt(math.prod(shape[1:]))


def drawn_at_once(make: Callable[[PRNGKeyArray], Any], key: PRNGKeyArray) -> Any:
    """The modules of `make(key)`, their leaves called `weight` cut from one normal draw: with a draw for each, XLA compiles each apart."""
    shapes = eqx.filter_eval_shape(make, key)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    names = [str(getattr(path[-1], "name", "")) for path, _ in leaves]
    total = sum(math.prod(leaf.shape) for name, (_, leaf) in zip(names, leaves, strict=True) if name == "weight")

    @jax.jit
    def arrays(key: PRNGKeyArray) -> list[Any]:
        flat, end, filled = jax.random.normal(key, (total,)), 0, []
        for name, (_, leaf) in zip(names, leaves, strict=True):
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                filled.append(None)
            elif name == "weight":
                start, end = end, end + math.prod(leaf.shape)
                filled.append(flat[start:end].reshape(leaf.shape) / math.sqrt(math.prod(leaf.shape[1:])))
            else:
                filled.append(jnp.full(leaf.shape, 1.0 if name == "scale" else 0.0, leaf.dtype))
        return filled

    return structure.unflatten([leaf if array is None else array for array, (_, leaf) in zip(arrays(key), leaves, strict=True)])


class EntangledLinear(eqx.Module):
    """A linear layer each of whose options is a corner `[:out, :in]` of one matrix.

    Coupled choices, as the width e and the ratio r of a perceptron with e r hidden units, have one option for each of their
    combinations ([`outer_probabilities`][gradatim.nets.outer_probabilities]): with sizes that are products the mask is no outer product.

    **Arguments:** `slices`: `(out, in)` of each option, the largest of which holds all others; `has_bias`; `key`.

    **Raises:** `ValueError` if no option holds all others, and at the call for a distribution of the wrong length.

    >>> layer = EntangledLinear([(4, 2), (8, 4)], key=jax.random.key(0))
    >>> layer.mask(jnp.array([0.25, 0.75]))[[0, 0, 7], [0, 3, 0]].tolist()
    [1.0, 0.75, 0.75]
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"] | None
    slices: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __init__(self, slices: Sequence[tuple[int, int]], *, has_bias: bool = True, key: PRNGKeyArray) -> None:
        largest = (max(out for out, _ in slices), max(n_in for _, n_in in slices)) if slices else (0, 0)
        if largest not in slices or min(min(one) for one in slices) < 1:
            raise ValueError(f"slices must be positive and one of them must hold all others, got {list(slices)}")
        self.weight, self.bias, self.slices = scaled_normal(key, largest), jnp.zeros(largest[0]) if has_bias else None, tuple(slices)

    def mask(self, probabilities: Float[Array, " options"] | None = None) -> Float[Array, "out in"]:
        """M(p) of the matrix."""
        if probabilities is None and len(self.slices) == 1:
            return jnp.ones_like(self.weight)
        outs, ins = (jnp.asarray(_members(sizes), self.weight.dtype) for sizes in zip(*self.slices, strict=True))
        return (outs.T * checked_probabilities(probabilities, len(self.slices))[None]) @ ins

    def __call__(self, x: Float[Array, "... in"], probabilities: Float[Array, " options"] | None = None) -> Float[Array, "... out"]:
        """Vectors through the mixed matrix."""
        y = x @ (self.mask(probabilities) * self.weight).T
        if self.bias is None:
            return y
        return y + (nested_mask(probabilities, [out for out, _ in self.slices]) * self.bias).reshape((1,) * (y.ndim - 1) + (-1,))

    def mixed_outputs(self, x: Float[Array, "... in"], probabilities: Float[Array, " options"]) -> Float[Array, "... out"]:
        """Σᵢ pᵢ op(x; Pad Wᵢ): the same, at as many products as options."""
        certain = jnp.eye(len(self.slices), dtype=probabilities.dtype)
        return sum((p * self(x, one) for p, one in zip(probabilities, certain, strict=True)), start=jnp.zeros(()))

    def narrow(self, option: int) -> EntangledLinear:
        """The layer with one option left, its weights sliced."""
        out, n_in = self.slices[option]
        bias = None if self.bias is None else self.bias[:out]
        return _replaced(self, weight=self.weight[:out, :n_in], bias=bias, slices=((out, n_in),))

    def subnet(self, option: int) -> eqx.nn.Linear:
        """The plain layer of one option, its weights sliced."""
        narrow = self.narrow(option)
        out, n_in = narrow.slices[0]
        layer = eqx.filter_eval_shape(lambda key: eqx.nn.Linear(n_in, out, self.bias is not None, key=key), jax.random.key(0))
        layer = eqx.tree_at(lambda layer: layer.weight, layer, narrow.weight)
        return layer if narrow.bias is None else eqx.tree_at(lambda layer: layer.bias, layer, narrow.bias)


class EntangledLayerNorm(eqx.Module):
    """A layer norm of vectors that may be shorter: scale and shift are mixed as weights.

    **Arguments:** `widths`: ascending; `is_masked`: mean and variance weigh each feature by the probability that it exists, so
    that a certain small width gives what the small network would; else they are those of the whole vector, zeros of dead features
    included, as in the authors' code; `eps`.

    >>> norm = EntangledLayerNorm((2, 4))
    >>> print(norm(jnp.array([1.0, 3.0, 7.0, 7.0]), jnp.array([1.0, 0.0])).round(2) + 0)
    [-1.  1.  0.  0.]
    """

    scale: Float[Array, " width"]
    shift: Float[Array, " width"]
    widths: tuple[int, ...] = eqx.field(static=True)
    is_masked: bool = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(self, widths: Sequence[int], *, is_masked: bool = True, eps: float = 1e-5) -> None:
        self.widths, self.is_masked, self.eps = ascending("widths", widths), is_masked, eps
        self.scale, self.shift = jnp.ones(self.widths[-1]), jnp.zeros(self.widths[-1])

    def __call__(self, x: Float[Array, " width"], probabilities: Float[Array, " options"] | None = None) -> Float[Array, " width"]:
        """The normalised vector."""
        mask = nested_mask(probabilities, self.widths)
        weights = mask / mask.sum() if self.is_masked else jnp.full_like(x, 1 / len(x))
        mean = weights @ x
        variance = weights @ (x - mean) ** 2
        return mask * ((x - mean) * jax.lax.rsqrt(variance + self.eps) * self.scale + self.shift)

    def narrow(self, option: int) -> EntangledLayerNorm:
        """The layer with one width left."""
        width = self.widths[option]
        return _replaced(self, scale=self.scale[:width], shift=self.shift[:width], widths=(width,))

    def subnet(self, option: int) -> eqx.nn.LayerNorm:
        """The plain layer of one width."""
        narrow = self.narrow(option)
        layer = eqx.nn.LayerNorm(narrow.widths[0], self.eps)
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (narrow.scale, narrow.shift))


class EntangledEmbedding(eqx.Module):
    """Vectors of tokens that may be shorter.

    **Arguments:** `n_tokens`; `widths`: ascending; `key`.

    >>> embedding = EntangledEmbedding(5, (2, 4), key=jax.random.key(0))
    >>> vectors = embedding(jnp.array([3, 0]), jnp.array([1.0, 0.0]))
    >>> vectors.shape, bool((vectors[:, 2:] == 0).all())
    ((2, 4), True)
    """

    weight: Float[Array, "tokens width"]
    widths: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, n_tokens: int, widths: Sequence[int], *, key: PRNGKeyArray) -> None:
        self.widths = ascending("widths", widths)
        self.weight = scaled_normal(key, (n_tokens, self.widths[-1]))

    def __call__(self, tokens: Integer[Array, " n"], probabilities: Float[Array, " options"] | None = None) -> Float[Array, "n width"]:
        """The mixed vectors of some tokens."""
        return self.weight[tokens] * nested_mask(probabilities, self.widths)[None]

    def narrow(self, option: int) -> EntangledEmbedding:
        """The layer with one width left."""
        width = self.widths[option]
        return _replaced(self, weight=self.weight[:, :width], widths=(width,))

    def subnet(self, option: int) -> eqx.nn.Embedding:
        """The plain layer of one width."""
        return eqx.nn.Embedding(weight=self.narrow(option).weight)


class MixedDepth(eqx.Module):
    """Blocks of which the last may be left out: all run, and the outputs after each possible number of them are mixed.

        y = Σ_d p_d h_d,   h_d the output after d blocks

    **Arguments:** `blocks`: `x = block(x, *args)`; `depths`: ascending, the last the number of blocks.

    >>> mixed = MixedDepth([lambda x: 2 * x, lambda x: x + 3], (1, 2))
    >>> float(mixed(jnp.array(1.0), jnp.array([0.25, 0.75])))
    4.25
    """

    blocks: tuple[Any, ...]
    depths: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, blocks: Sequence[Any], depths: Sequence[int]) -> None:
        self.blocks, self.depths = tuple(blocks), ascending("depths", depths)
        if self.depths[-1] != len(self.blocks):
            raise ValueError(f"depths must end with the number of blocks, {len(self.blocks)}, got {self.depths}")

    def __call__(self, x: Float[Array, "*shape"], probabilities: Float[Array, " options"] | None, *args: Any) -> Float[Array, "*shape"]:
        """The mixed output."""
        p = jnp.ones(1) if probabilities is None else checked_probabilities(probabilities, len(self.depths))
        mixed, options = jnp.zeros_like(x), {depth: i for i, depth in enumerate(self.depths)}
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x, *args)
            if depth in options:
                mixed = mixed + p[options[depth]] * x
        return mixed

    def narrow(self, option: int) -> MixedDepth:
        """With one depth left."""
        depth = self.depths[option]
        return MixedDepth(self.blocks[:depth], (depth,))


def _replaced(module: M, **fields: Any) -> M:
    """A copy of a module with other values in some fields, static ones too."""
    copy = object.__new__(type(module))
    for name in module.__dataclass_fields__:  # pyright: ignore[reportAttributeAccessIssue]
        object.__setattr__(copy, name, fields.get(name, getattr(module, name)))
    return copy
