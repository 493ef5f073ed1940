"""Convolutions whose widths and kernels are nested slices of one tensor ([`nested_mask`][gradatim.nets.nested_mask])."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .entangled import ascending, checked_probabilities, kernel_mask, nested_mask, scaled_normal

Mixing = Literal["weights", "outputs"]


class EntangledConv(eqx.Module):
    """A convolution of one image (channels first) that may have fewer channels out, fewer in, and a smaller kernel.

    Its padding keeps the size of the image at stride 1, whatever the kernel: that of a small kernel is the large one's with a rim of zeros.

    **Arguments:** `out_options`, `in_options`: numbers of channels, ascending; `kernel_options`: odd sides, ascending; `stride`;
    `dilation`; `is_depthwise`: one kernel a channel, for which out and in are one choice, given as `out_options`; `has_bias`;
    `mixing`: `"outputs"` runs every combination of options, sliced, and mixes what they give: the same, and dearer, for comparison;
    `is_row_wise`: rows of the kernel as small matrix products in place of a native convolution, the faster form for images of up to some
    14 pixels a side inside a compiled loop on a CPU; `key`.

    **Raises:** `ValueError` for options that are no nested slices, and at the call for distributions of the wrong length.

    >>> conv = EntangledConv((2, 4), (1,), (1, 3), key=jax.random.key(0))
    >>> y = conv(jnp.ones((1, 5, 5)), jnp.array([1.0, 0.0]), None, jnp.array([0.5, 0.5]))
    >>> y.shape, bool((y[2:] == 0).all())
    ((4, 5, 5), True)
    """

    weight: Float[Array, "out in side side"]
    bias: Float[Array, " out"] | None
    out_options: tuple[int, ...] = eqx.field(static=True)
    in_options: tuple[int, ...] = eqx.field(static=True)
    kernel_options: tuple[int, ...] = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    dilation: int = eqx.field(static=True)
    is_depthwise: bool = eqx.field(static=True)
    is_row_wise: bool = eqx.field(static=True)
    mixing: Mixing = eqx.field(static=True)

    def __init__(
        self,
        out_options: Sequence[int],
        in_options: Sequence[int],
        kernel_options: Sequence[int],
        *,
        stride: int = 1,
        dilation: int = 1,
        is_depthwise: bool = False,
        has_bias: bool = True,
        is_row_wise: bool = False,
        mixing: Mixing = "weights",
        key: PRNGKeyArray,
    ) -> None:
        self.out_options, self.in_options = ascending("out_options", out_options), ascending("in_options", in_options)
        self.kernel_options = ascending("kernel_options", kernel_options)
        if any(size % 2 == 0 for size in kernel_options):
            raise ValueError(f"kernel_options must be odd, so that one is the centre of the next, got {tuple(kernel_options)}")
        if is_depthwise and self.in_options != (1,):
            raise ValueError(f"in_options of a depthwise convolution must be (1,), got {self.in_options}")
        side = self.kernel_options[-1]
        self.weight = scaled_normal(key, (self.out_options[-1], self.in_options[-1], side, side))
        self.bias = jnp.zeros(self.out_options[-1]) if has_bias else None
        self.stride, self.dilation, self.is_depthwise = stride, dilation, is_depthwise
        self.is_row_wise, self.mixing = is_row_wise, mixing

    def mask(
        self, p_out: Float[Array, " _"] | None = None, p_in: Float[Array, " _"] | None = None, p_kernel: Float[Array, " _"] | None = None
    ) -> Float[Array, "out in side side"]:
        """M(p) of the weights: an outer product, since the three choices are independent."""
        rows, columns = nested_mask(p_out, self.out_options), nested_mask(p_in, self.in_options)
        return rows[:, None, None, None] * columns[None, :, None, None] * kernel_mask(p_kernel, self.kernel_options)[None, None]

    def __call__(
        self,
        x: Float[Array, "in height width"],
        p_out: Float[Array, " _"] | None = None,
        p_in: Float[Array, " _"] | None = None,
        p_kernel: Float[Array, " _"] | None = None,
    ) -> Float[Array, "out rows columns"]:
        """The image through the mixed kernel; a distribution may be left out where there is one option."""
        if self.mixing == "outputs":
            return self.mixed_outputs(x, p_out, p_in, p_kernel)
        bias = None if self.bias is None else nested_mask(p_out, self.out_options) * self.bias
        return self._convolved(x, self.mask(p_out, p_in, p_kernel) * self.weight, bias)

    def mixed_outputs(
        self,
        x: Float[Array, "in height width"],
        p_out: Float[Array, " _"] | None = None,
        p_in: Float[Array, " _"] | None = None,
        p_kernel: Float[Array, " _"] | None = None,
    ) -> Float[Array, "out rows columns"]:
        """Σᵢ pᵢ Pad(op(x; Wᵢ)): every combination by itself, sliced, then mixed. The same, at as many passes as combinations."""
        given = ((p_out, self.out_options), (p_in, self.in_options), (p_kernel, self.kernel_options))
        distributions = [jnp.ones(1) if p is None else checked_probabilities(p, len(options)) for p, options in given]
        total = jnp.zeros(())
        for combination in itertools.product(*(range(len(p)) for p in distributions)):
            share = math.prod((p[i] for p, i in zip(distributions, combination, strict=True)), start=jnp.ones(()))
            weight, bias = self._sliced(*combination)
            y = self._convolved(x[: len(weight) if self.is_depthwise else weight.shape[1]], weight, bias)
            total = total + share * jnp.pad(y, ((0, self.out_options[-1] - len(y)), (0, 0), (0, 0)))
        return total

    def _sliced(self, out: int, in_: int, kernel: int) -> tuple[Array, Array | None]:
        """Weights and bias of the options at some positions."""
        n_out, n_in, side = self.out_options[out], self.in_options[in_], self.kernel_options[kernel]
        rim = (self.kernel_options[-1] - side) // 2
        weight = self.weight[:n_out, :n_in, rim : rim + side, rim : rim + side]
        return weight, None if self.bias is None else self.bias[:n_out]

    def subnet(self, out: int = -1, in_: int = -1, kernel: int = -1) -> eqx.nn.Conv2d:
        """The plain layer of the options at some positions, its weights sliced."""
        weight, bias = self._sliced(out, in_, kernel)
        n_out, n_in, side, _ = weight.shape
        groups = n_out if self.is_depthwise else 1
        layer = eqx.filter_eval_shape(
            lambda key: eqx.nn.Conv2d(
                n_in * groups,
                n_out,
                side,
                self.stride,
                self.dilation * (side // 2),
                self.dilation,
                groups,
                use_bias=self.bias is not None,
                key=key,
            ),
            jax.random.key(0),
        )
        layer = eqx.tree_at(lambda layer: layer.weight, layer, weight)
        return layer if bias is None else eqx.tree_at(lambda layer: layer.bias, layer, bias[:, None, None])

    def _convolved(self, x: Array, weight: Array, bias: Array | None) -> Array:
        if self.is_row_wise:
            kernel = weight[:, 0] if self.is_depthwise else weight
            y = _convolved_by_rows(x, kernel, stride=self.stride, dilation=self.dilation)
        elif weight.shape[-1] == 1 and self.stride == 1 and not self.is_depthwise:
            y = jnp.tensordot(weight[:, :, 0, 0], x, 1)
        else:
            pad = self.dilation * (weight.shape[-1] // 2)
            y = jax.lax.conv_general_dilated(
                x[None],
                weight,
                (self.stride, self.stride),
                [(pad, pad), (pad, pad)],
                rhs_dilation=(self.dilation, self.dilation),
                feature_group_count=len(weight) if self.is_depthwise else 1,
            )[0]
        return y if bias is None else y + bias[:, None, None]


def _convolved_by_rows(x: Array, kernel: Array, *, stride: int, dilation: int) -> Array:
    """A convolution, depthwise for a kernel of three axes: rows of the image times the banded matrices that rows of the kernel make."""
    side, (_, height, width) = kernel.shape[-1], x.shape
    pad = dilation * (side // 2)
    rows, columns = -(-height // stride), -(-width // stride)
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)))
    last = stride * (rows - 1) + 1
    slabs = [padded[:, i * dilation : i * dilation + last : stride] for i in range(side)]
    # 1 where tap j of a kernel's row carries column w of the image to column v of the result.
    w, v, j = np.arange(width)[None, :, None], np.arange(columns)[None, None], np.arange(side)[:, None, None]
    taps = (w == v * stride + j * dilation - pad).astype(np.float32)
    bands = jnp.tensordot(kernel, jnp.asarray(taps, kernel.dtype), 1)
    products = "chk,ckv->chv" if kernel.ndim == 3 else "ihk,oikv->ohv"
    return jnp.einsum(products, jnp.concatenate(slabs, axis=-1), bands.reshape(*kernel.shape[:-2], side * width, columns))
