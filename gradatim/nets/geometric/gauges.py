"""Convolution with parallel transport, whose outputs turn with the frames (Bronstein et al., arXiv:2104.13478, section 4.5;
de Haan, Weiler, Cohen and Welling, arXiv:2003.05425).

    h_u = T_self x_u + mean_{v in N_u} T(θ_uv) ρ(g_{v→u}) x_v

Entries of order m > 0 are vectors that turn by m times the angle of the frame, those of order 0 are numbers. Turning the frame at u by a
changes x_u to ρ(-a) x_u and θ_uv to θ_uv - a, and outputs must change likewise, which holds if

    T_self ρ_in(a) = ρ_out(a) T_self     and     T(θ - a) ρ_in(-a) = ρ_out(-a) T(θ)

(the book prints the second with +a on both sides: with its change of frames that is the mirror image, which turns the wrong way).
With a vector as a complex number z, from order m to order n:

    T(θ) z = α exp(i (n - m) θ) z + β exp(i (n + m) θ) z̄,     T_self z = γ z if n = m, else 0

with complex α, β, γ: four real numbers a pair for T, two where one order is 0 and one where both are.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from .geodesics import EdgeLogs

# Under the root of a norm, whose slope at zero is else infinite.
_TINY = 1e-12


def field_size(orders: tuple[int, ...]) -> int:
    """Real numbers a vertex of a field: one for an entry of order 0, two for any other.

    >>> field_size((0, 0, 1, 2))
    6
    """
    if not orders or min(orders) < 0:
        raise ValueError(f"orders must be at least one number, none below 0, got {orders}")
    return sum(1 if order == 0 else 2 for order in orders)


@eqx.filter_jit
def turn_field(
    x: Float[Array, "vertices size"], orders: tuple[int, ...], frames: Float[Array, " vertices"]
) -> Float[Array, "vertices size"]:
    """The same field seen from frames that are turned by these angles: entries of order m turn by minus m times them.

    >>> turn_field(jnp.array([[5.0, 1.0, 0.0]]), (0, 1), jnp.array([jnp.pi / 2])).round(3) + 0.0
    Array([[ 5.,  0., -1.]], dtype=float32)
    """
    return _to_real(_to_complex(x, orders) * _phases(-frames, orders), orders)


class GaugeConv(eqx.Module):
    """Linear, between fields whose entries have orders; what it does at a vertex depends on no choice of frames.

    The kernel depends on distance by the polynomial Σ_k (r / r̄)^k of `n_radial` terms, each with weights of its own.

    **Arguments:** `in_orders`, `out_orders`: an order for each entry; `n_radial`: at least 1; `bias`: whether entries of order 0 have one;
    `key`. Weights are normal, and outputs of unit variance for inputs of unit variance.

    **Raises:** `ValueError` for orders below 0, none, or an `n_radial` below 1.

    >>> from gradatim.nets.geometric import icosphere, log_map_edges
    >>> edges = log_map_edges(icosphere(1))
    >>> layer = GaugeConv((0,), (0, 1), key=jax.random.key(0))  # numbers to numbers and vectors
    >>> eqx.filter_jit(layer)(edges, jnp.ones((42, 1))).shape
    (42, 3)
    """

    direct: Float[Array, "n_radial 2 n_out n_in"]
    "α, real and imaginary parts."
    conjugate: Float[Array, "n_radial 2 n_out n_in"]
    "β"
    own: Float[Array, "2 n_out n_in"]
    "γ"
    bias: Float[Array, " n_out"]
    in_orders: tuple[int, ...] = eqx.field(static=True)
    out_orders: tuple[int, ...] = eqx.field(static=True)
    has_bias: bool = eqx.field(static=True)

    def __init__(
        self, in_orders: tuple[int, ...], out_orders: tuple[int, ...], *, n_radial: int = 1, bias: bool = True, key: PRNGKeyArray
    ) -> None:
        for orders in (in_orders, out_orders):
            field_size(orders)
        if n_radial < 1:
            raise ValueError(f"n_radial must be at least 1, got {n_radial}")
        n_in, n_out = len(in_orders), len(out_orders)
        size = 2 * n_out * n_in
        drawn = jax.random.normal(key, ((2 * n_radial + 1) * size,)) / np.sqrt(6 * n_in)
        kernels = drawn[:-size].reshape(2, n_radial, 2, n_out, n_in)
        self.direct, self.conjugate, self.own = kernels[0], kernels[1], drawn[-size:].reshape(2, n_out, n_in)
        self.bias = jnp.zeros(n_out)
        self.in_orders, self.out_orders, self.has_bias = in_orders, out_orders, bias

    @eqx.filter_jit
    def __call__(self, edges: EdgeLogs, x: Float[Array, "vertices in_size"]) -> Float[Array, "vertices out_size"]:
        """The field of outputs."""
        size = field_size(self.in_orders)
        if x.shape != (edges.n_vertices, size):
            raise ValueError(f"x must have shape {(edges.n_vertices, size)} for orders {self.in_orders}, got {x.shape}")
        z = _to_complex(x, self.in_orders)
        m, n = (np.asarray(orders)[None] for orders in (self.in_orders, self.out_orders))
        # Carried to u and seen from the direction of the edge: g - θ_uv = -(θ_vu + π), so that the frame at u drops out.
        aligned = z[edges.senders] * _phases(-edges.angles[edges.reverse] - jnp.pi, self.in_orders)
        near = (edges.lengths / edges.lengths.mean())[:, None]
        made = jnp.zeros((len(near), len(self.out_orders)), z.dtype)
        for k in range(len(self.direct)):
            alpha, beta = _complex_of(self.direct[k]), _complex_of(self.conjugate[k])
            made = made + near**k * (aligned @ alpha.T + jnp.conj(aligned) @ beta.T)
        made = made * _phases(edges.angles, self.out_orders)
        counts = jax.ops.segment_sum(jnp.ones_like(edges.lengths), edges.receivers, edges.n_vertices)
        gathered = jax.ops.segment_sum(made, edges.receivers, edges.n_vertices) / jnp.maximum(counts, 1)[:, None]
        same = m == n.T
        out = gathered + z @ jnp.where(same, _complex_of(self.own), 0).T
        if self.has_bias:
            out = out + jnp.where(n == 0, self.bias[None], 0)
        return _to_real(out, self.out_orders)


class NormGate(eqx.Module):
    """The nonlinearity of fields: swish for numbers, vectors multiplied by a sigmoid of their length.

        z → z σ(a |z| + b) for orders above 0, with a and b for each entry; x → x σ(a x + b) for order 0

    A rectifier on the entries of a vector would depend on the frame.

    **Arguments:** `orders`: an order for each entry.

    >>> gate, x = NormGate((1,)), jnp.array([[3.0, 4.0]])  # a vector of length 5 keeps its direction
    >>> bool(jnp.allclose(gate(x), x * jax.nn.sigmoid(5.0)))
    True
    """

    slope: Float[Array, " entries"]
    shift: Float[Array, " entries"]
    orders: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, orders: tuple[int, ...]) -> None:
        field_size(orders)
        self.slope, self.shift, self.orders = jnp.ones(len(orders)), jnp.zeros(len(orders)), orders

    @eqx.filter_jit
    def __call__(self, x: Float[Array, "vertices size"]) -> Float[Array, "vertices size"]:
        """The gated field."""
        z = _to_complex(x, self.orders)
        length = jnp.sqrt(z.real**2 + z.imag**2 + _TINY)
        strength = jnp.where(np.asarray(self.orders)[None] == 0, z.real, length)
        return _to_real(z * jax.nn.sigmoid(self.slope[None] * strength + self.shift[None]), self.orders)


def _places(orders: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the real parts, and those of the imaginary ones of the orders above 0."""
    widths = np.where(np.asarray(orders) == 0, 1, 2)
    first = np.cumsum(widths) - widths
    return first, first[widths == 2] + 1


def _phases(angles: Float[Array, " n"], orders: tuple[int, ...]) -> Complex[Array, "n entries"]:
    """exp(i m θ), found once for each order."""
    distinct, places = np.unique(orders, return_inverse=True)
    turned = angles[:, None] * jnp.asarray(distinct, angles.dtype)[None]
    return jax.lax.complex(jnp.cos(turned), jnp.sin(turned))[:, places]


def _to_complex(x: Float[Array, "vertices size"], orders: tuple[int, ...]) -> Complex[Array, "vertices entries"]:
    first, second = _places(orders)
    imaginary = jnp.zeros((len(x), len(orders)), x.dtype).at[:, np.flatnonzero(np.asarray(orders))].set(x[:, second])
    return jax.lax.complex(x[:, first], imaginary)


def _to_real(z: Complex[Array, "vertices entries"], orders: tuple[int, ...]) -> Float[Array, "vertices size"]:
    parts = jnp.concatenate([z.real, z.imag], axis=1)
    order = [place for i, m in enumerate(orders) for place in ((i,) if m == 0 else (i, len(orders) + i))]
    return parts[:, np.asarray(order)]


def _complex_of(parts: Float[Array, "2 n_out n_in"]) -> Complex[Array, "n_out n_in"]:
    return jax.lax.complex(parts[0], parts[1])
