"""A small U-Net that is told a number, channels last: a predictor of noise or of clean images (Ronneberger et al., arXiv:1505.04597;
Ho et al., arXiv:2006.11239).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.nets.cnn import Convolution, GroupNorm

FREQUENCIES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"Of the features of the number."


class ConditionedBlock(eqx.Module):
    """Two normalised 3 × 3 convolutions around a shortcut, between them a scale and a shift of each channel from the number's features."""

    convolutions: tuple[Convolution, Convolution]
    norms: tuple[GroupNorm, GroupNorm]
    condition: eqx.nn.Linear
    shortcut: Convolution | None

    def __init__(self, n_in: int, n_out: int, n_features: int, *, n_groups: int = 4, key: PRNGKeyArray) -> None:
        first, second, third, fourth = jax.random.split(key, 4)
        last = Convolution(n_out, n_out, key=second)
        # A block begins as its shortcut.
        last = eqx.tree_at(lambda one: one.weight, last, jnp.zeros_like(last.weight))
        self.convolutions = (Convolution(n_in, n_out, key=first), last)
        self.norms = (GroupNorm(n_in, n_groups=n_groups), GroupNorm(n_out, n_groups=n_groups))
        self.condition = eqx.nn.Linear(n_features, 2 * n_out, key=third)
        self.shortcut = None if n_in == n_out else Convolution(n_in, n_out, size=1, key=fourth)

    def __call__(
        self, image: Float[Array, "height width n_in"], features: Float[Array, " n_features"]
    ) -> Float[Array, "height width n_out"]:
        """The block's output."""
        scale, shift = jnp.split(self.condition(features), 2)
        inner = self.norms[1](self.convolutions[0](jax.nn.silu(self.norms[0](image))))
        inner = self.convolutions[1](jax.nn.silu(inner * (1 + scale)[None, None] + shift[None, None]))
        return inner + (image if self.shortcut is None else self.shortcut(image))


class UNet(eqx.Module):
    """From an image and a number to an image: down through stages of half the size each, and up again beside them.

    The image is first folded, each square of `patch` × `patch` pixels into channels, so that the first stage need not run at full
    size. It starts as the zero function. One image; batch with `jax.vmap`. Convolutions inside `jax.lax.scan` run ten times slower on
    a CPU: dispatch steps one by one.

    **Arguments:** `n_channels`: of the image, in and out; `widths`: channels of each stage, multiples of `n_groups`; `n_blocks` ≥ 1: of
    each stage on either way; `patch` ≥ 1; `n_features`: of the number; `n_groups`: of each normalisation; `key`.

    **Raises:** `ValueError` for no stage or a count below 1; when called, for sides that the stages do not divide.

    >>> net = UNet(1, widths=(8, 8), key=jax.random.key(0))
    >>> eqx.filter_jit(net)(jnp.ones((8, 8, 1)), jnp.array(0.5)).shape
    (8, 8, 1)
    """

    stem: Convolution
    embedding: tuple[eqx.nn.Linear, eqx.nn.Linear]
    down: tuple[tuple[ConditionedBlock, ...], ...]
    shrinking: tuple[Convolution, ...]
    up: tuple[tuple[ConditionedBlock, ...], ...]
    growing: tuple[Convolution, ...]
    norm: GroupNorm
    readout: Convolution
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        n_channels: int,
        *,
        widths: Sequence[int] = (32, 64),
        n_blocks: int = 1,
        patch: int = 2,
        n_features: int = 64,
        n_groups: int = 4,
        key: PRNGKeyArray,
    ) -> None:
        if not widths or min(n_channels, n_blocks, patch, n_features) < 1:
            raise ValueError(
                "widths must not be empty, and n_channels, n_blocks, patch and n_features be at least 1, got "
                f"{tuple(widths)}, {n_channels}, {n_blocks}, {patch} and {n_features}"
            )
        keys = iter(jax.random.split(key, 4 + len(widths) * (2 * n_blocks + 2)))

        def block(n_in: int, n_out: int) -> ConditionedBlock:
            return ConditionedBlock(n_in, n_out, n_features, n_groups=n_groups, key=next(keys))

        folded = n_channels * patch**2
        self.stem = Convolution(folded, widths[0], key=next(keys))
        self.embedding = (
            eqx.nn.Linear(2 * len(FREQUENCIES), n_features, key=next(keys)),
            eqx.nn.Linear(n_features, n_features, key=next(keys)),
        )
        self.down = tuple(tuple(block(width, width) for _ in range(n_blocks)) for width in widths)
        pairs = list(pairwise(widths))
        self.shrinking = tuple(Convolution(before, after, stride=2, key=next(keys)) for before, after in pairs)
        self.growing = tuple(Convolution(after, before, key=next(keys)) for before, after in pairs)
        self.up = tuple(tuple(block(2 * width if i == 0 else width, width) for i in range(n_blocks)) for width in widths)
        self.norm = GroupNorm(widths[0], n_groups=n_groups)
        readout = Convolution(widths[0], folded, key=next(keys))
        self.readout = eqx.tree_at(lambda one: one.weight, readout, jnp.zeros_like(readout.weight))
        self.patch = patch

    def __call__(self, image: Float[Array, "height width channels"], number: Float[Array, ""]) -> Float[Array, "height width channels"]:
        """The image that the network makes of this one."""
        height, width, channels = image.shape
        unit = self.patch * 2 ** len(self.shrinking)
        if height % unit or width % unit:
            raise ValueError(f"sides must be multiples of {unit}, got {height} and {width}")
        rows, columns = height // self.patch, width // self.patch
        x = image.reshape(rows, self.patch, columns, self.patch, channels).transpose(0, 2, 1, 3, 4).reshape(rows, columns, -1)
        angles = number * jnp.asarray(FREQUENCIES, image.dtype)
        features = jax.nn.silu(self.embedding[0](jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])))
        features = jax.nn.silu(self.embedding[1](features))
        x = self.stem(x)
        beside = []
        for i, stage in enumerate(self.down):
            x = x if i == 0 else self.shrinking[i - 1](x)
            for block in stage:
                x = block(x, features)
            beside.append(x)
        for i in reversed(range(len(self.up))):
            x = jnp.concatenate([x, beside[i]], axis=-1)
            for block in self.up[i]:
                x = block(x, features)
            if i > 0:
                x = self.growing[i - 1](jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1))
        x = self.readout(jax.nn.silu(self.norm(x)))
        return x.reshape(rows, columns, self.patch, self.patch, channels).transpose(0, 2, 1, 3, 4).reshape(image.shape)
