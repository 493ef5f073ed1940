"""A causal Transformer whose width, heads, feed-forward ratio and depth are slices of the largest (TangleNAS's language space)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from .entangled import EntangledEmbedding, EntangledLayerNorm, EntangledLinear, MixedDepth, drawn_at_once, nested_mask
from .search_space import Choice, Probabilities, SearchSpace, outer_probabilities


class EntangledAttention(eqx.Module):
    """Causal attention with a choice of width and of heads: the outputs of each number of heads are mixed.

    Head j of h takes the channels c with c mod h = j, so that the heads of a narrow network are slices of a wide one's; the authors' heads
    are consecutive channels, which they are not.
    """

    inputs: EntangledLinear
    queries: EntangledLinear
    keys: EntangledLinear
    output: EntangledLinear
    widths: tuple[int, ...] = eqx.field(static=True)
    heads: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, widths: Sequence[int], heads: Sequence[int], *, key: PRNGKeyArray) -> None:
        square = [(width, width) for width in widths]
        self.queries, self.keys, self.inputs, self.output = (EntangledLinear(square, key=k) for k in jax.random.split(key, 4))
        self.widths, self.heads = tuple(widths), tuple(heads)

    def __call__(
        self, x: Float[Array, "tokens width"], p_width: Float[Array, " _"] | None, p_heads: Float[Array, " _"] | None
    ) -> Float[Array, "tokens width"]:
        """What each token reads from those up to it."""
        queries, keys, values = (layer(x, p_width) for layer in (self.queries, self.keys, self.inputs))
        n, width = x.shape
        # The width that is there: of a certain choice its own.
        live = nested_mask(p_width, self.widths).sum()
        is_past = jnp.tril(jnp.ones((n, n), bool))[None]
        mixed = jnp.zeros_like(x)
        for share, n_heads in zip(jnp.ones(1) if p_heads is None else p_heads, self.heads, strict=True):
            q, k, v = (part.reshape(n, width // n_heads, n_heads).transpose(2, 0, 1) for part in (queries, keys, values))
            scores = jnp.where(is_past, q @ k.transpose(0, 2, 1) * jnp.sqrt(n_heads / live), -jnp.inf)
            read = jax.nn.softmax(scores, axis=-1) @ v
            mixed = mixed + share * read.transpose(1, 2, 0).reshape(n, width)
        return self.output(mixed, p_width)

    def narrow(self, width: int, heads: int) -> EntangledAttention:
        """With one width and one number of heads left."""
        layers = [layer.narrow(width) for layer in (self.inputs, self.queries, self.keys, self.output)]
        return _attention(layers, self.widths[width], self.heads[heads])


def _attention(layers: Sequence[EntangledLinear], width: int, heads: int) -> EntangledAttention:
    attention = eqx.filter_eval_shape(lambda key: EntangledAttention((width,), (heads,), key=key), jax.random.key(0))
    return eqx.tree_at(lambda one: (one.inputs, one.queries, one.keys, one.output), attention, tuple(layers))


class EntangledBlock(eqx.Module):
    """Attention and a perceptron of e r hidden units, each behind a norm and added to what came in."""

    attention_norm: EntangledLayerNorm
    attention: EntangledAttention
    feed_norm: EntangledLayerNorm
    rise: EntangledLinear
    fall: EntangledLinear

    def __init__(self, widths: Sequence[int], heads: Sequence[int], ratios: Sequence[int], *, key: PRNGKeyArray) -> None:
        first, second, third = jax.random.split(key, 3)
        pairs = list(itertools.product(widths, ratios))
        self.attention_norm, self.feed_norm = EntangledLayerNorm(widths), EntangledLayerNorm(widths)
        self.attention = EntangledAttention(widths, heads, key=first)
        self.rise = EntangledLinear([(e * r, e) for e, r in pairs], key=second)
        self.fall = EntangledLinear([(e, e * r) for e, r in pairs], key=third)

    def __call__(self, x: Float[Array, "tokens width"], given: Any) -> Float[Array, "tokens width"]:
        """The tokens after this block; `given` holds the distributions of width, heads, and width and ratio together."""
        p_width, p_heads, p_both = given
        x = x + self.attention(jax.vmap(lambda row: self.attention_norm(row, p_width))(x), p_width, p_heads)
        normed = jax.vmap(lambda row: self.feed_norm(row, p_width))(x)
        return x + self.fall(jax.nn.gelu(self.rise(normed, p_both)), p_both)

    def narrow(self, width: int, heads: int, both: int) -> EntangledBlock:
        """With one option of each left."""
        parts = (
            self.attention_norm.narrow(width),
            self.attention.narrow(width, heads),
            self.feed_norm.narrow(width),
            self.rise.narrow(both),
            self.fall.narrow(both),
        )
        e, h, r = parts[0].widths[0], self.attention.heads[heads], parts[3].slices[0][0] // parts[0].widths[0]
        block = eqx.filter_eval_shape(lambda key: EntangledBlock((e,), (h,), (r,), key=key), jax.random.key(0))
        where = lambda one: (one.attention_norm, one.attention, one.feed_norm, one.rise, one.fall)  # noqa: E731
        return eqx.tree_at(where, block, parts)


class EntangledTransformer(eqx.Module):
    """A causal language model of searchable width, heads, feed-forward ratio and depth: tokens in, the logits of each next token out.

    One distribution of each choice serves all layers. Batch with `jax.vmap`.

    **Arguments:** `n_tokens` of the vocabulary; `context`: the longest text; `widths`, `heads`, `ratios`, `depths`: options, ascending;
    every number of heads must divide every width; `key`.

    **Raises:** `ValueError` for options that do not, and at the call for a text longer than the context.

    >>> net = EntangledTransformer(84, 16, widths=(8, 16), heads=(1, 2), ratios=(1, 2), depths=(1, 2), key=jax.random.key(0))
    >>> net.space.n_architectures, net.n_parameters((1, 1, 1, 1)), net.n_parameters((0, 1, 0, 0))
    (16, 7508, 2036)
    """

    embedding: EntangledEmbedding
    places: EntangledEmbedding
    blocks: MixedDepth
    norm: EntangledLayerNorm
    readout: EntangledLinear
    space: SearchSpace = eqx.field(static=True)

    def __init__(
        self,
        n_tokens: int,
        context: int,
        *,
        widths: Sequence[int],
        heads: Sequence[int],
        ratios: Sequence[int],
        depths: Sequence[int],
        key: PRNGKeyArray,
    ) -> None:
        if any(width % n for width in widths for n in heads):
            raise ValueError(f"heads must divide every width, {tuple(widths)}, got {tuple(heads)}")

        def make(key: PRNGKeyArray) -> tuple[Any, ...]:
            keys = jax.random.split(key, 3 + max(depths))
            blocks = [EntangledBlock(widths, heads, ratios, key=k) for k in keys[3:]]
            return (
                EntangledEmbedding(n_tokens, widths, key=keys[0]),
                EntangledEmbedding(context, widths, key=keys[1]),
                MixedDepth(blocks, depths),
                EntangledLayerNorm(widths),
                EntangledLinear([(n_tokens, width) for width in widths], key=keys[2]),
            )

        self.embedding, self.places, self.blocks, self.norm, self.readout = drawn_at_once(make, key)
        named = {"width": widths, "heads": heads, "ratio": ratios, "depth": depths}
        self.space = SearchSpace(tuple(Choice(name, tuple(options)) for name, options in named.items()))

    def __call__(self, tokens: Integer[Array, " tokens"], probabilities: Probabilities) -> Float[Array, "tokens vocabulary"]:
        """The logits of the token after each."""
        if len(tokens) > len(self.places.weight):
            raise ValueError(f"a text may have at most the context's {len(self.places.weight)} tokens, got {len(tokens)}")
        p_width, p_heads, p_depth = (probabilities[name] for name in ("width", "heads", "depth"))
        given = (p_width, p_heads, outer_probabilities(p_width, probabilities["ratio"]))
        x = self.embedding(tokens, p_width) + self.places(jnp.arange(len(tokens)), p_width)
        x = self.blocks(x, p_depth, given)
        return self.readout(jax.vmap(lambda row: self.norm(row, p_width))(x), p_width)

    def n_parameters(self, positions: Sequence[int]) -> int:
        """Of the network of an architecture alone."""
        shapes = eqx.filter_eval_shape(lambda net: net.subnet(positions), self)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes) if isinstance(leaf, jax.ShapeDtypeStruct))

    def subnet(self, positions: Sequence[int]) -> EntangledTransformer:
        """The network of an architecture, with sliced weights and one option of each choice left: distributions are `[1.]`."""
        self.space.decode(positions)
        width, heads, ratio, depth = positions
        both = width * len(self.space.choices[2]) + ratio
        options = [choice.options[i : i + 1] for choice, i in zip(self.space.choices, positions, strict=True)]
        one: dict[str, Any] = dict(zip(("widths", "heads", "ratios", "depths"), options, strict=True))
        shape = (*self.embedding.weight.shape[:1], *self.places.weight.shape[:1])
        net = eqx.filter_eval_shape(lambda key: EntangledTransformer(*shape, **one, key=key), jax.random.key(0))
        kept = self.blocks.narrow(depth)
        blocks = MixedDepth([block.narrow(width, heads, both) for block in kept.blocks], kept.depths)
        parts = (self.embedding.narrow(width), self.places.narrow(width), blocks, self.norm.narrow(width), self.readout.narrow(width))
        where = lambda net: (net.embedding, net.places, net.blocks, net.norm, net.readout)  # noqa: E731
        return eqx.tree_at(where, net, parts)
