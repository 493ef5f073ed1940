"""Small residual networks for images, channels last (the layout that XLA's CPU backend runs fastest)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Activation = Callable[[Array], Array]


class Convolution(eqx.Module):
    """A convolution of one image, padded so that stride 1 keeps its size; `jax.vmap` makes it one batched convolution.

    **Arguments:** `n_in`, `n_out`: channels; `size`: side of the kernel, pixels; `stride`: pixels between outputs. Weights start
    normal with variance 2 / (size² n_in) (He et al. 2015).
    """

    weight: Float[Array, "size size n_in n_out"]
    stride: int = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, size: int = 3, stride: int = 1, key: PRNGKeyArray) -> None:
        scale = math.sqrt(2 / (size * size * n_in))
        # Drawn flat, which gives the same numbers: with four axes XLA compiles the draw for eight seconds instead of half a one.
        self.weight = scale * jax.random.normal(key, (size * size * n_in * n_out,)).reshape(size, size, n_in, n_out)
        self.stride = stride

    def __call__(self, image: Float[Array, "height width n_in"]) -> Float[Array, "rows columns n_out"]:
        """The filtered image."""
        strides = (self.stride, self.stride)
        return jax.lax.conv_general_dilated(image[None], self.weight, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


class GroupNorm(eqx.Module):
    """Normalises groups of channels of one image over space, then scales and shifts each channel (Wu & He, arXiv:1803.08494).

    It knows no batch and keeps no running state, so that seeds can be vmapped (`equinox.nn.GroupNorm` wants channels first).
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    n_groups: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(self, n_channels: int, *, n_groups: int = 4, eps: float = 1e-5) -> None:
        if n_channels % n_groups:
            raise ValueError(f"n_groups must divide the number of channels, {n_channels}, got {n_groups}")
        self.scale, self.shift = jnp.ones(n_channels), jnp.zeros(n_channels)
        self.n_groups, self.eps = n_groups, eps

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
        """The normalised image."""
        # Moments of each channel first: they leave one small array to regroup, where the image itself would have to be moved.
        mean, square = self._over_groups(image.mean((0, 1))), self._over_groups((image * image).mean((0, 1)))
        variance = jnp.maximum(square - mean * mean, 0.0)
        factor = self.scale * jax.lax.rsqrt(variance + self.eps)
        return image * factor[None, None] + (self.shift - mean * factor)[None, None]

    def _over_groups(self, channels: Float[Array, " channels"]) -> Float[Array, " channels"]:
        return jnp.repeat(channels.reshape(self.n_groups, -1).mean(1), len(channels) // self.n_groups)


class ResidualBlock(eqx.Module):
    """Two normalised 3 x 3 convolutions around a shortcut, which is a 1 x 1 convolution where the shape changes."""

    convolutions: tuple[Convolution, Convolution]
    norms: tuple[GroupNorm, GroupNorm]
    shortcut: Convolution | None
    activation: Activation = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1, n_groups: int = 4, activation: Activation, key: PRNGKeyArray) -> None:
        first, second, third = jax.random.split(key, 3)
        self.convolutions = (Convolution(n_in, n_out, stride=stride, key=first), Convolution(n_out, n_out, key=second))
        self.norms = (GroupNorm(n_out, n_groups=n_groups), GroupNorm(n_out, n_groups=n_groups))
        self.shortcut = None if n_in == n_out and stride == 1 else Convolution(n_in, n_out, size=1, stride=stride, key=third)
        self.activation = activation

    def __call__(self, image: Float[Array, "height width n_in"]) -> Float[Array, "rows columns n_out"]:
        """The block's output."""
        inner = self.activation(self.norms[0](self.convolutions[0](image)))
        inner = self.norms[1](self.convolutions[1](inner))
        return self.activation(inner + (image if self.shortcut is None else self.shortcut(image)))


class ResNet(eqx.Module):
    """A residual network in stages: each stage after the first halves the image and has channels of its own.

    One image in, logits out; batch with `jax.vmap`. Every normalisation is a [`GroupNorm`][gradatim.nets.GroupNorm].

    **Arguments:** `n_in`: channels of the image; `n_classes`; `widths`: channels of each stage; `n_blocks`: residual blocks a
    stage; `stem_stride`: of the first convolution; `n_groups`: of each normalisation, a divisor of every width; `activation`;
    `key`: of the first weights.

    >>> net = ResNet(1, 10, key=jax.random.key(0))
    >>> images = jnp.zeros((5, 14, 14, 1))
    >>> jax.jit(jax.vmap(net))(images).shape
    (5, 10)
    """

    stem: Convolution
    norm: GroupNorm
    stages: tuple[tuple[ResidualBlock, ...], ...]
    readout: eqx.nn.Linear
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        n_in: int,
        n_classes: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        n_blocks: int = 1,
        stem_stride: int = 1,
        n_groups: int = 4,
        activation: Activation = jax.nn.relu,
        key: PRNGKeyArray,
    ) -> None:
        stem_key, readout_key, *stage_keys = jax.random.split(key, 2 + len(widths))
        self.stem = Convolution(n_in, widths[0], stride=stem_stride, key=stem_key)
        self.norm = GroupNorm(widths[0], n_groups=n_groups)
        block = functools.partial(ResidualBlock, n_groups=n_groups, activation=activation)
        stages = []
        for before, width, stage_key in zip((widths[0], *widths), widths, stage_keys, strict=False):
            first, *rest = jax.random.split(stage_key, n_blocks)
            stride = 1 if not stages else 2
            stages.append((block(before, width, stride=stride, key=first), *(block(width, width, key=k) for k in rest)))
        self.stages = tuple(stages)
        self.readout = eqx.nn.Linear(widths[-1], n_classes, key=readout_key)
        self.activation = activation

    def __call__(self, image: Float[Array, "height width n_in"]) -> Float[Array, " n_classes"]:
        """The logits of one image."""
        image = self.activation(self.norm(self.stem(image)))
        for stage in self.stages:
            for block in stage:
                image = block(image)
        return self.readout(image.mean((0, 1)))
