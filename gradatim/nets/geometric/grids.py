"""Convolutions over shifts, and over shifts joined with a finite group of turns (arXiv:2104.13478, Sections 4.2 and 4.3).

Arrays hold space first, then the elements of the group, then channels. What is called convolution here is a cross-correlation, as
everywhere in networks: filters are not turned round.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .groups import Group, Representation, act_on_grid
from .weights import uniform

Padding = Literal["zeros", "circular"]


def circulant(t: Any) -> Any:
    """The matrix of a circular convolution: C_uv = t_(u-v mod n). Its eigenvectors are Fourier modes, its eigenvalues `fft(t)`.

    A matrix commutes with the shift if and only if it has this form.

    >>> circulant(np.array([1, 2, 3])).tolist()
    [[1, 3, 2], [2, 1, 3], [3, 2, 1]]
    """
    n = len(t)
    return t[(np.arange(n)[:, None] - np.arange(n)[None]) % n]


class CyclicConv(eqx.Module):
    """A convolution on a ring: y_u = b + Σ_k W_k x_(u+k), k around zero.

    **Arguments:** `n_in`, `n_out`: channels; `size`: of the filter, odd; `key`.

    **Raises:** `ValueError` for an even filter; when it is called, for a ring shorter than the filter.

    >>> eqx.filter_jit(CyclicConv(2, 3, size=3, key=jax.random.key(0)))(jnp.ones((8, 2))).shape
    (8, 3)
    """

    weight: Float[Array, "size n_in n_out"]
    bias: Float[Array, " n_out"]

    def __init__(self, n_in: int, n_out: int, *, size: int, key: PRNGKeyArray) -> None:
        _check_size(size)
        self.weight = uniform(key, (size, n_in, n_out), fan_in=size * n_in)
        self.bias = jnp.zeros(n_out)

    def __call__(self, x: Float[Array, "n n_in"]) -> Float[Array, "n n_out"]:
        """The filtered signal."""
        size = len(self.weight)
        if len(x) < size:
            raise ValueError(f"a ring must be as long as the filter, {size}, or longer, got {len(x)}")
        places = (np.arange(len(x))[:, None] + np.arange(size)[None] - size // 2) % len(x)
        return jnp.einsum("uki,kio->uo", x[places], self.weight) + self.bias[None]


class GroupLift(eqx.Module):
    """The first layer: each filter in all positions of the group, y(u, h) = Σ_v x_v (ρ(h)t)_(v-u).

    Turning the input by h turns each map and permutes the maps: their axis carries the regular representation.

    **Arguments:** `n_in`, `n_out`: channels, the latter for each element; `size`: side of the filters, odd; `group`: of symmetries of the
    grid, [`cyclic`][gradatim.nets.geometric.cyclic]`(4)` or [`dihedral`][gradatim.nets.geometric.dihedral]`(4)` of the plane,
    [`octahedral`][gradatim.nets.geometric.octahedral] of space, [`mirror`][gradatim.nets.geometric.mirror] of a line; `stride`: pixels
    between outputs; `padding`: `"zeros"`, or `"circular"`, which shifts need; `channels`: how the group acts on the channels of the input,
    by default not at all: for DNA a mirror image has its bases complemented; `key`.

    **Raises:** `ValueError` for even filters or a group that does not map the grid to itself; when it is called, for a side from which the
    stride leaves a remainder: it would look at other pixels after a turn.

    >>> from gradatim.nets.geometric import dihedral
    >>> lift = GroupLift(1, 5, size=3, group=dihedral(4), key=jax.random.key(0))
    >>> eqx.filter_jit(lift)(jnp.ones((9, 9, 1))).shape
    (9, 9, 8, 5)
    """

    weight: Float[Array, "*size n_in n_out"]
    bias: Float[Array, " n_out"]
    group: Group = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    channels: Representation | None = eqx.field(static=True)

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        size: int = 3,
        group: Group,
        stride: int = 1,
        padding: Padding = "zeros",
        channels: Representation | None = None,
        key: PRNGKeyArray,
    ) -> None:
        _check_size(size)
        act_on_grid(group)
        if channels is not None and (channels.group is not group or channels.dim != n_in):
            raise ValueError(
                f"channels must be a representation of {group.name} on {n_in} channels, got one of {channels.group.name} on {channels.dim}"
            )
        self.weight = uniform(key, (*(size,) * group.dim, n_in, n_out), fan_in=size**group.dim * n_in)
        self.bias = jnp.zeros(n_out)
        self.group, self.stride, self.padding, self.channels = group, stride, padding, channels

    def filters(self) -> Float[Array, "*size n_in order n_out"]:
        """All filters in all positions."""
        *size, n_in, n_out = self.weight.shape
        flat = self.weight.reshape(-1, n_in, n_out)[_turned(self.group, size[0])]
        if self.channels is not None:
            flat = jnp.einsum("hcd,hkdo->hkco", jnp.asarray(self.channels.matrices, flat.dtype), flat)
        return flat.transpose(1, 2, 0, 3).reshape(*size, n_in, self.group.order, n_out)

    def __call__(self, x: Float[Array, "*space n_in"]) -> Float[Array, "*smaller order n_out"]:
        """The maps of every element."""
        return _filtered(x, self.filters(), self.bias, self.group.dim, self.stride, self.padding)


class GroupConv(eqx.Module):
    """A later layer, over shifts and group: y(u, h) = Σ_h' Σ_v x(v, h') t(h⁻¹h', h⁻¹(v-u)).

    **Arguments:** as for [`GroupLift`][gradatim.nets.geometric.GroupLift]; `n_in` channels for each element come in.

    **Raises:** as there, and, when it is called, `ValueError` for an input of another group.

    >>> from gradatim.nets.geometric import dihedral
    >>> conv = GroupConv(5, 2, group=dihedral(4), key=jax.random.key(0))
    >>> eqx.filter_jit(conv)(jnp.ones((9, 9, 8, 5))).shape
    (9, 9, 8, 2)
    """

    weight: Float[Array, "order *size n_in n_out"]
    bias: Float[Array, " n_out"]
    group: Group = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __init__(
        self, n_in: int, n_out: int, *, size: int = 3, group: Group, stride: int = 1, padding: Padding = "zeros", key: PRNGKeyArray
    ) -> None:
        _check_size(size)
        act_on_grid(group)
        shape = (group.order, *(size,) * group.dim, n_in, n_out)
        self.weight = uniform(key, shape, fan_in=group.order * size**group.dim * n_in)
        self.bias = jnp.zeros(n_out)
        self.group, self.stride, self.padding = group, stride, padding

    def filters(self) -> Float[Array, "*size order_in_n_in order n_out"]:
        """All filters in all positions, those of all incoming maps side by side."""
        order, *size, n_in, n_out = self.weight.shape
        k = size[0] ** self.group.dim
        # For output h and input h': the filter of h⁻¹h', turned by h.
        sources = self.group.table[self.group.inverse]
        index = sources[:, :, None] * k + _turned(self.group, size[0])[:, None]
        flat = self.weight.reshape(order * k, n_in, n_out)[index]
        return flat.transpose(2, 1, 3, 0, 4).reshape(*size, order * n_in, order, n_out)

    def __call__(self, x: Float[Array, "*space order n_in"]) -> Float[Array, "*smaller order n_out"]:
        """The maps of every element."""
        order, *_, n_in, _ = self.weight.shape
        if x.shape[-2:] != (order, n_in):
            raise ValueError(f"the input must have {order} elements of {self.group.name} and {n_in} channels last, got shape {x.shape}")
        merged = x.reshape(*x.shape[:-2], order * n_in)
        return _filtered(merged, self.filters(), self.bias, self.group.dim, self.stride, self.padding)


class GroupPool(eqx.Module):
    """The end of the group's axis: its mean or its maximum over elements, or over those of cosets of a subgroup.

    Over all elements the maps turn with the input, and nothing else.

    **Arguments:** `group`; `reduce`; `subgroup`: numbers of its elements, by default all: the cosets gH then remain, in the order of their
    smallest element.

    **Raises:** `ValueError` for a subset that is no subgroup.

    >>> from gradatim.nets.geometric import dihedral
    >>> GroupPool(dihedral(4), subgroup=(0, 4))(jnp.ones((9, 9, 8, 2))).shape
    (9, 9, 4, 2)
    """

    cosets: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    reduce: Literal["mean", "max"] = eqx.field(static=True)
    is_whole: bool = eqx.field(static=True)

    def __init__(self, group: Group, *, reduce: Literal["mean", "max"] = "max", subgroup: tuple[int, ...] | None = None) -> None:
        if reduce not in ("mean", "max"):
            raise ValueError(f"reduce must be 'mean' or 'max', got {reduce!r}")
        chosen = sorted(set(range(group.order) if subgroup is None else subgroup))
        if not chosen or set(group.table[np.ix_(chosen, chosen)].ravel().tolist()) != set(chosen):
            raise ValueError(f"subgroup must be closed under products in {group.name}, got elements {chosen}")
        self.cosets = tuple(sorted({tuple(sorted(group.table[g, chosen].tolist())) for g in range(group.order)}))
        self.reduce, self.is_whole = reduce, len(self.cosets) == 1

    def __call__(self, x: Float[Array, "*space order channels"]) -> Float[Array, "*pooled channels"]:
        """Space and channels, and cosets between them unless there is only one."""
        grouped = x[..., np.array(self.cosets), :]
        pooled = grouped.mean(axis=-2) if self.reduce == "mean" else grouped.max(axis=-2)
        return pooled[..., 0, :] if self.is_whole else pooled


def blur_pool(x: Float[Array, "*space_and_channels"], *, dim: int = 2, stride: int = 2) -> Float[Array, "*smaller"]:
    """Every `stride`-th pixel of the image blurred by (1, 2, 1)/4 along each axis (Zhang, arXiv:1904.11486): the scale of the blueprint's
    pooling, without the aliases of pixels that are merely left out.

    It commutes with turns and reflections of the grid, maps of a group included. At the border the weights that lie within count, so that
    constants stay.

    **Arguments:** `x`: space first; `dim`: how many axes space has; `stride`: a divisor of the side less one.

    **Raises:** `ValueError` for a stride that leaves a remainder.

    >>> blur_pool(jnp.array([0.0, 0.0, 4.0, 0.0, 0.0]), dim=1).tolist()
    [0.0, 2.0, 0.0]
    """
    for axis in range(dim):
        _check_stride(x.shape[axis], stride)
        n = x.shape[axis]
        wide = jnp.pad(x, [(int(k == axis), int(k == axis)) for k in range(x.ndim)])
        before, after = (jax.lax.slice_in_dim(wide, start, start + n, axis=axis) for start in (0, 2))
        weight = 4.0 - (np.arange(n) == 0) - (np.arange(n) == n - 1)
        blurred = (before + 2 * x + after) / jnp.asarray(weight, x.dtype).reshape([n if k == axis else 1 for k in range(x.ndim)])
        x = jax.lax.slice_in_dim(blurred, 0, n, stride, axis=axis)
    return x


def act_on_maps(group: Group) -> Any:
    """The action on what [`GroupLift`][gradatim.nets.geometric.GroupLift] gives: each map is turned, and h' goes to gh'.

    >>> from gradatim.nets.geometric import cyclic
    >>> act_on_maps(cyclic(4))(1, np.arange(4.0).reshape(1, 1, 4, 1))[0, 0, :, 0].tolist()
    [3.0, 0.0, 1.0, 2.0]
    """
    on_space = act_on_grid(group)

    def act(g: int | np.integer, x: Any) -> Any:
        # What comes to h was at g⁻¹h.
        return on_space(g, x)[..., group.table[group.inverse[g]], :]

    return act


@functools.cache
def _turned(group: Group, size: int) -> Int[np.ndarray, "order points"]:
    """Which point of a filter comes to which, for each element."""
    points = np.arange(size**group.dim).reshape((size,) * group.dim)
    act = act_on_grid(group)
    # int32 in either precision: int64, kept and once an index in single precision, is refused by JAX as one in double.
    return np.stack([act(g, points).ravel() for g in range(group.order)]).astype(np.int32)


def _filtered(x: Array, filters: Array, bias: Array, dim: int, stride: int, padding: Padding) -> Array:
    side, size = x.shape[0], filters.shape[0]
    if padding == "zeros":
        _check_stride(side, stride)
    if side % stride and padding == "circular":
        raise ValueError(f"stride must divide the side, {side}, of a ring, got {stride}")
    *_, n_in, order, n_out = filters.shape
    kernel = filters.reshape(*filters.shape[:dim], n_in, order * n_out)
    half = size // 2
    if padding == "circular":
        x = jnp.pad(x, [(half, half)] * dim + [(0, 0)], mode="wrap")
    letters = "DHW"[-dim:]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    pads = [(0, 0) if padding == "circular" else (half, half)] * dim
    y = jax.lax.conv_general_dilated(x[None], kernel, (stride,) * dim, pads, dimension_numbers=layout)[0]
    return y.reshape(*y.shape[:dim], order, n_out) + bias.reshape((1,) * (dim + 1) + (n_out,))


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd, for a filter without a centre moves what it filters, got {size}")


def _check_stride(side: int, stride: int) -> None:
    if stride < 1 or (side - 1) % stride:
        raise ValueError(f"stride must divide the side less one, {side - 1}, to look at the same pixels after a turn, got {stride}")
