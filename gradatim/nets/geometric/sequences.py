"""Recurrent networks and the symmetries of time: shifts need a first state at rest, warping needs gates
(arXiv:2104.13478, Sections 5.7 and 5.8; Tallec and Ollivier, arXiv:1804.11188).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .weights import uniform

Update = Callable[[Any, Any], Array]
"From an input and a state to the next state."


class SimpleRNN(eqx.Module):
    """The plain update R(z, h) = tanh(W z + U h + b). What it remembers fades, or explodes, exponentially.

    **Arguments:** `n_in`, `n_hidden`: channels of input and state; `gain`: the state's weights start as uniform numbers between
    ±gain/√n_hidden; `key`.

    >>> SimpleRNN(2, 3, key=jax.random.key(0))(jnp.zeros(2), jnp.zeros(3)).tolist()  # at rest, for it has no biases yet
    [0.0, 0.0, 0.0]
    """

    input_weight: Float[Array, "n_hidden n_in"]
    state_weight: Float[Array, "n_hidden n_hidden"]
    bias: Float[Array, " n_hidden"]

    def __init__(self, n_in: int, n_hidden: int, *, gain: float = 1.0, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key)
        self.input_weight = uniform(keys[0], (n_hidden, n_in), fan_in=n_hidden)
        self.state_weight = gain * uniform(keys[1], (n_hidden, n_hidden), fan_in=n_hidden)
        self.bias = jnp.zeros(n_hidden)

    def __call__(self, z: Float[Array, " n_in"], h: Float[Array, " n_hidden"]) -> Float[Array, " n_hidden"]:
        """The next state."""
        return jnp.tanh(self.input_weight @ z + self.state_weight @ h + self.bias)


class GatedUpdate(eqx.Module):
    """The form that indifference to the speed of time forces on a recurrent network:

        h' = Γ ⊙ R(z, h) + (1 - Γ) ⊙ h,     Γ = logistic(W z + U h + b)

    A step of h with respect to warped time, whose rate Γ must be able to learn. Where time runs a times as fast, nothing but Γ changes, to
    aΓ (`slowed`). A gate forgets within about 1/Γ steps.

    **Arguments:** `n_in`, `n_hidden`: channels; `update`: R, by default a [`SimpleRNN`][gradatim.nets.geometric.SimpleRNN]; `gate_bias`: b,
    by default zero: [`chrono_bias`][gradatim.nets.geometric.chrono_bias] is for memories of known length; `key`.

    >>> cell = GatedUpdate(1, 1, update=lambda z, h: jnp.ones(1), key=jax.random.key(0))
    >>> cell(jnp.zeros(1), jnp.zeros(1)).tolist(), cell.slowed(0.5)(jnp.zeros(1), jnp.zeros(1)).tolist()  # half, and a quarter of the way
    ([0.5], [0.25])
    """

    update: Update
    input_weight: Float[Array, "n_hidden n_in"]
    state_weight: Float[Array, "n_hidden n_hidden"]
    bias: Float[Array, " n_hidden"]
    rate: float | Float[Array, ""]

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        *,
        update: Update | None = None,
        gate_bias: Float[Array, " n_hidden"] | None = None,
        key: PRNGKeyArray,
    ) -> None:
        keys = jax.random.split(key, 3)
        self.update = SimpleRNN(n_in, n_hidden, key=keys[0]) if update is None else update
        self.input_weight = uniform(keys[1], (n_hidden, n_in), fan_in=n_hidden)
        self.state_weight = uniform(keys[2], (n_hidden, n_hidden), fan_in=n_hidden)
        self.bias = jnp.zeros(n_hidden) if gate_bias is None else gate_bias
        self.rate = 1.0

    def gate(self, z: Float[Array, " n_in"], h: Float[Array, " n_hidden"]) -> Float[Array, " n_hidden"]:
        """aΓ."""
        return self.rate * jax.nn.sigmoid(self.input_weight @ z + self.state_weight @ h + self.bias)

    def slowed(self, rate: float | Float[Array, ""]) -> GatedUpdate:
        """The same network where time runs `rate` times as fast, between 0 and 1, without any training.

        **Raises:** `ValueError` for a rate that is known to lie outside.
        """
        if isinstance(rate, float | int) and not 0 < rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], for a gate beyond 1 would overshoot, got {rate}")
        return eqx.tree_at(lambda cell: cell.rate, self, self.rate * rate)

    def __call__(self, z: Float[Array, " n_in"], h: Float[Array, " n_hidden"]) -> Float[Array, " n_hidden"]:
        """The next state."""
        gate = self.gate(z, h)
        return gate * self.update(z, h) + (1 - gate) * h


def run_rnn(cell: Callable[[Any, Any], Any], inputs: Float[Array, "time n_in"], start: Any) -> Any:
    """The states after each input, stacked over time.

    >>> run_rnn(lambda z, h: h + z, jnp.array([[1.0], [2.0], [4.0]]), jnp.zeros(1))[:, 0].tolist()
    [1.0, 3.0, 7.0]
    """

    def step(state: Any, z: Array) -> tuple[Any, Any]:
        state = cell(z, state)
        return state, state

    return jax.lax.scan(step, start, inputs)[1]


class RestingState(eqx.Module):
    """A state that the update leaves alone while no input comes."""

    state: Float[Array, " n_hidden"]
    is_converged: Bool[Array, ""]
    "If not, the network has no rest within reach, or reaches it too slowly."


def rnn_fixed_point_init(
    cell: Update, n_in: int, guess: Float[Array, " n_hidden"], *, tolerance: float = 1e-7, max_steps: int = 1000
) -> RestingState:
    """The first state with which a recurrent network commutes with shifts: h₀ = R(0, h₀), by iteration.

    A sequence that begins with zeros then begins later, and nothing else: with any other first state, zero included where there is a bias,
    the outputs depend on when the signal comes. The iteration converges if R is a contraction in h, ‖U‖ < 1 for a tanh; the derivative in
    the network's weights is that of the fixed point itself.

    **Arguments:** `cell`: `cell(z, h)`; `n_in`: channels of its input; `guess`: where to begin; `tolerance`: relative and absolute;
    `max_steps`.

    **Raises:** `ValueError` for a tolerance or a count out of range.

    >>> halve = lambda z, h: (h + 1) / 2
    >>> print(f"{rnn_fixed_point_init(halve, 1, jnp.zeros(1)).state[0]:.4f}")
    1.0000
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    silence = jnp.zeros(n_in, guess.dtype)
    solver = optx.FixedPointIteration(rtol=tolerance, atol=tolerance)
    found = optx.fixed_point(lambda h, cell: cell(silence, h), solver, guess, args=cell, max_steps=max_steps, throw=False)
    return RestingState(found.value, found.result == optx.RESULTS.successful)


def chrono_bias(key: PRNGKeyArray, n: int, *, shortest: float = 2.0, longest: float) -> Float[Array, " n"]:
    """Biases of gates that forget within `shortest` to `longest` steps: b = -log(T - 1), T uniform, so that logistic(b) = 1/T.

    For an LSTM see [`with_chrono_bias`][gradatim.nets.geometric.with_chrono_bias].

    **Raises:** `ValueError` unless 1 < `shortest` < `longest`.

    >>> gates = jax.nn.sigmoid(chrono_bias(jax.random.key(0), 1000, longest=100.0))
    >>> bool((gates >= 0.01).all() and (gates <= 0.5).all())
    True
    """
    if not 1 < shortest < longest:
        raise ValueError(f"memories must be 1 < shortest < longest steps, got {shortest} and {longest}")
    return -jnp.log(jax.random.uniform(key, (n,), minval=shortest, maxval=longest) - 1)


def with_chrono_bias(cell: eqx.nn.LSTMCell, *, longest: float, key: PRNGKeyArray) -> eqx.nn.LSTMCell:
    """An LSTM that begins with memories of up to `longest` steps: b_f = log(T - 1), b_i = -b_f, T uniform between 2 and `longest`.

    **Raises:** `ValueError` for a cell without biases, or `longest` of 2 or less.

    >>> cell = with_chrono_bias(eqx.nn.LSTMCell(1, 5, key=jax.random.key(0)), longest=100.0, key=jax.random.key(1))
    >>> b_input, b_forget, *_ = jnp.split(cell.bias, 4)
    >>> bool((b_forget == -b_input).all() and (b_forget > 0).all())
    True
    """
    if cell.bias is None:
        raise ValueError("cell must have biases, got one with use_bias=False")
    n = cell.hidden_size
    b_i = chrono_bias(key, n, longest=longest).astype(cell.bias.dtype)
    # Equinox keeps gates in the order input, forget, cell, output.
    return eqx.tree_at(lambda cell: cell.bias, cell, jnp.concatenate([b_i, -b_i, jnp.zeros(2 * n, cell.bias.dtype)]))


def time_warp(x: Float[Array, "time channels"], tau: Float[Array, " new_time"]) -> Float[Array, "new_time channels"]:
    """x(τ(t)), interpolated linearly between its steps, and constant beyond its ends.

    >>> time_warp(jnp.array([[0.0], [2.0]]), jnp.array([0.0, 0.5, 1.0]))[:, 0].tolist()
    [0.0, 1.0, 2.0]
    """
    steps = jnp.arange(len(x), dtype=x.dtype)
    return jax.vmap(lambda channel: jnp.interp(tau, steps, channel), in_axes=1, out_axes=1)(x)
