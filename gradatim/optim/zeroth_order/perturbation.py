"""Perturbed weights, nodes and activities of a layered network: one global scalar and local quantities, no backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .directions import ValueAndGrad, random_directions
from .probes import check_count, check_parameters, check_positive, chosen_radius, draw_probe, probe_seed, scalar_loss


class Layered(Protocol):
    """What the estimators ask of a network: `equinox.nn.MLP` has it, and so has any module with these fields.

    Layers are linear (`weight`, `bias` or None), activations act element by element; a field `mixing` with one square matrix a layer
    says that inputs are mixed before it, as in [`DecorrelatedMLP`][gradatim.optim.DecorrelatedMLP].
    """

    layers: tuple[eqx.nn.Linear, ...]
    activation: Callable[..., Any]
    final_activation: Callable[..., Any]


class Pass(NamedTuple):
    """One pass of a batch: the output, and of every layer the (mixed) input and the pre-activation."""

    output: Float[Array, "batch out"]
    inputs: list[Float[Array, "batch _"]]
    pre_activations: list[Float[Array, "batch _"]]


class DecorrelatedMLP(eqx.Module):
    """A multi-layer perceptron whose every layer sees inputs R x, with R learnt so that they are uncorrelated.

    **Arguments:** `mlp`: the network; the matrices `mixing` begin as identities, and change by
    [`decorrelated`][gradatim.optim.decorrelated] alone: estimates are zero for them.
    """

    mlp: eqx.nn.MLP
    mixing: tuple[Float[Array, "_ _"], ...]

    def __init__(self, mlp: eqx.nn.MLP) -> None:
        self.mlp = mlp
        self.mixing = tuple(jnp.eye(layer.weight.shape[1], dtype=layer.weight.dtype) for layer in mlp.layers)

    @property
    def layers(self) -> tuple[eqx.nn.Linear, ...]:
        """The layers of the network."""
        return self.mlp.layers

    @property
    def activation(self) -> Callable[..., Any]:
        """Of the hidden layers."""
        return self.mlp.activation

    @property
    def final_activation(self) -> Callable[..., Any]:
        """Of the last layer."""
        return self.mlp.final_activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """One example."""
        return layer_pass(self, x[None]).output[0]


def layer_pass(model: Any, inputs: Float[Array, "batch in"], noise: list[Any] | None = None) -> Pass:
    """Sends a batch through a [`Layered`][gradatim.optim.Layered] network, with noise added to every pre-activation if there is some.

    >>> mlp = eqx.nn.MLP(4, 1, 8, 1, key=jax.random.key(0))
    >>> [a.shape for a in layer_pass(mlp, jnp.ones((16, 4))).pre_activations]
    [(16, 8), (16, 1)]
    """
    x, seen, pre = inputs, [], []
    mixing = getattr(model, "mixing", None)
    for i, layer in enumerate(model.layers):
        x = x if mixing is None else x @ mixing[i].T
        a = x @ layer.weight.T
        a = a if layer.bias is None else a + layer.bias[None]
        shift = None if noise is None else noise[i]
        a = a if shift is None else a + shift
        seen.append(x)
        pre.append(a)
        x = (model.final_activation if i == len(model.layers) - 1 else model.activation)(a)
    return Pass(x, seen, pre)


def node_perturbation(loss: Callable[..., Any], *, radius: Any = None, n_probes: int = 1, one_layer: bool = False) -> ValueAndGrad:
    """Noise on every unit's input, its own for every example: each unit learns from its noise, its inputs and one global scalar.

        aₗ = Wₗ xₗ₋₁ + h ξₗ;    ∂Wₗ ≈ (ℓ̃ - ℓ)/h · ξₗ xₗ₋₁ᵀ,  averaged over examples;  x of the clean pass

    It searches as many dimensions as there are units, not weights, and averages over the batch: the variance is smaller than that of
    perturbed weights by two orders of magnitude in small networks already.

    **Arguments:** `loss(output, target)`: of one example; `radius` h > 0, by default ε^⅓ of the coarsest dtype; `n_probes`: noises
    averaged, one pass each, beside the clean one; `one_layer`: perturb one layer at a time, in as many passes, so that no layer's
    noise disturbs another's.

    **Returns:** a function `(model, inputs, targets, key=key) -> (mean clean loss, estimate)` for a batch, the estimate like
    `equinox.filter(model, equinox.is_inexact_array)`. `model` is a [`Layered`][gradatim.optim.Layered] network.

    **Raises:** as [`random_directions`][gradatim.optim.random_directions]; `ValueError` for inputs and targets of different lengths.

    >>> mlp = eqx.nn.MLP(4, 1, 8, 1, key=jax.random.key(0))
    >>> value_and_grad = eqx.filter_jit(node_perturbation(lambda y, t: ((y - t) ** 2).sum()))
    >>> value, estimate = value_and_grad(mlp, jnp.ones((16, 4)), jnp.zeros((16, 1)), key=jax.random.key(1))
    >>> estimate.layers[0].weight.shape
    (8, 4)

    Source: Flower and Jabri, *Summed Weight Neuron Perturbation*, NeurIPS 5 (1992); Werfel, Xie and Seung, Neural Computation 17 (2005)
    2699-2718.
    """

    def signals(send: _Send, h: Any, noise: list[Any]) -> list[Any]:
        if not one_layer:
            _, change = send([h * z for z in noise])
            return [(change / h)[:, None] * z for z in noise]
        alone = [[h * z if i == j else None for j in range(len(noise))] for i, z in enumerate(noise)]
        return [(send(one)[1] / h)[:, None] * z for one, z in zip(alone, noise, strict=True)]

    return _perturbed(loss, radius, n_probes, signals)


def activity_perturbation(loss: Callable[..., Any], *, radius: Any = None, n_probes: int = 1) -> ValueAndGrad:
    """As node perturbation, but each unit learns from how far it *measurably* moved, whatever noise moved it.

        δaₗ = ãₗ - aₗ;    ∂Wₗ ≈ N (ℓ̃ - ℓ) δaₗ xₗ₋₁ᵀ / ‖δa‖²,    ‖δa‖² and the number N of units over all layers

    The noise need not be known, only its effect, which holds what earlier layers passed on: the case of noisy hardware. Here it is drawn;
    moves that were measured elsewhere go into [`activity_gradient`][gradatim.optim.activity_gradient].

    **Arguments, returns, raises:** as [`node_perturbation`][gradatim.optim.node_perturbation].

    >>> mlp = eqx.nn.MLP(4, 1, 8, 1, key=jax.random.key(0))
    >>> value_and_grad = eqx.filter_jit(activity_perturbation(lambda y, t: ((y - t) ** 2).sum()))
    >>> value, estimate = value_and_grad(mlp, jnp.ones((16, 4)), jnp.zeros((16, 1)), key=jax.random.key(1))
    >>> bool(jnp.isfinite(estimate.layers[0].weight).all())
    True

    Source: Dalm, Offergeld, Ahmad and van Gerven, *Effective Learning with Node Perturbation in Multi-Layer Neural Networks*
    (arXiv:2310.00965).
    """

    def signals(send: _Send, h: Any, noise: list[Any]) -> list[Any]:
        return _activity_signals(*send([h * z for z in noise]))

    return _perturbed(loss, radius, n_probes, signals)


def activity_gradient(model: Any, inputs: list[Any], moves: list[Any], changes: Float[Array, " batch"]) -> Any:
    """The estimate of [`activity_perturbation`][gradatim.optim.activity_perturbation] from moves that were measured, on a chip say.

    **Arguments:** `model`: the [`Layered`][gradatim.optim.Layered] network whose weights learn; `inputs`: what each layer saw without
    noise, `(batch, in)`; `moves`: how far noise moved each layer's pre-activations, `(batch, out)`; `changes`: by how much it raised
    each example's loss. An example that nothing moved teaches nothing.

    **Returns:** the estimate, like `equinox.filter(model, equinox.is_inexact_array)`.

    **Raises:** `ValueError` for inputs or moves that do not fit the layers or one another.

    >>> mlp = eqx.nn.MLP(2, 1, 3, 0, use_bias=False, use_final_bias=False, key=jax.random.key(0))
    >>> estimate = activity_gradient(mlp, [jnp.array([[1.0, 2.0]])], [jnp.array([[0.5]])], jnp.array([0.25]))
    >>> print(estimate.layers[0].weight)
    [[0.5 1. ]]
    """
    for name, arrays, axis in (("inputs", inputs, 1), ("moves", moves, 0)):
        expected = [(len(changes), layer.weight.shape[axis]) for layer in model.layers]
        if [a.shape for a in arrays] != expected:
            raise ValueError(f"{name} must have shapes {expected}, got {[a.shape for a in arrays]}")
    return _estimate(model, inputs, _activity_signals(moves, changes))


def weight_perturbation(loss: Callable[..., Any], *, radius: Any = None, n_probes: int = 1) -> ValueAndGrad:
    """Noise on all weights and biases at once, one for the whole batch: random directions with a forward difference.

        ∂W ≈ (ℓ(W + h ξ) - ℓ(W))/h · ξ

    **Arguments, returns, raises:** as [`node_perturbation`][gradatim.optim.node_perturbation].

    >>> mlp = eqx.nn.MLP(4, 1, 8, 1, key=jax.random.key(0))
    >>> value_and_grad = eqx.filter_jit(weight_perturbation(lambda y, t: ((y - t) ** 2).sum()))
    >>> value, estimate = value_and_grad(mlp, jnp.ones((16, 4)), jnp.zeros((16, 1)), key=jax.random.key(1))
    >>> estimate.layers[0].weight.shape
    (8, 4)
    """
    one = scalar_loss(loss)

    def mean_loss(weights: Any, model: Any, inputs: Any, targets: Any) -> Any:
        network = eqx.tree_at(_weights, model, weights)
        return jax.vmap(one)(layer_pass(network, inputs).output, targets).mean()

    estimator = random_directions(mean_loss, radius=radius, n_probes=n_probes, difference="forward")

    def value_and_grad(model: Any, inputs: Any, targets: Any, *, key: Any) -> tuple[Any, Any]:
        _check_batch(inputs, targets)
        value, estimate = estimator(_weights(model), model, inputs, targets, key=key)
        return value, _like(model, estimate)

    return value_and_grad


def decorrelated(model: DecorrelatedMLP, inputs: Float[Array, "batch in"], *, rate: Any) -> DecorrelatedMLP:
    """One step of the mixing matrices towards uncorrelated inputs of every layer.

        R ← R - α ⟨x xᵀ - diag(x xᵀ)⟩ R,    x = R x̂ the mixed inputs, the mean over the batch

    **Arguments:** `inputs`: a batch, sent through without noise; `rate` α > 0: above about 1/‖⟨x xᵀ⟩‖ it diverges.

    >>> mlp = eqx.nn.MLP(2, 1, 2, 1, key=jax.random.key(0))
    >>> x = jax.random.normal(jax.random.key(1), (256, 2)) @ jnp.array([[1.0, 0.9], [0.0, 0.5]])
    >>> model = DecorrelatedMLP(mlp)
    >>> for _ in range(100):
    ...     model = decorrelated(model, x, rate=0.1)
    >>> print(abs(jnp.corrcoef(layer_pass(model, x).inputs[0].T)[0, 1]).round(2))
    0.0

    Source: Ahmad, Schrauwen, Dalm, Offergeld and van Gerven; Dalm et al. (arXiv:2310.00965), reconstructed from its description.
    """
    check_positive("rate", rate)
    mixed = layer_pass(model, inputs).inputs

    def step(matrix: Any, x: Any) -> Any:
        products = x.T @ x / len(x)
        return matrix - rate * (products - jnp.diag(jnp.diag(products))) @ matrix

    return eqx.tree_at(lambda m: m.mixing, model, tuple(map(step, model.mixing, mixed)))


_Send = Callable[[list[Any]], tuple[list[Any], Any]]
"Noise of every layer to how far each layer's pre-activations moved, and each example's loss."


def _perturbed(loss: Callable[..., Any], radius: Any, n_probes: int, signals: Callable[[_Send, Any, list[Any]], list[Any]]) -> ValueAndGrad:
    check_positive("radius", radius)
    check_count("n_probes", n_probes)
    one = scalar_loss(loss)

    def value_and_grad(model: Any, inputs: Any, targets: Any, *, key: Any) -> tuple[Any, Any]:
        weights = _weights(model)
        check_parameters(weights)
        _check_batch(inputs, targets)
        h, seed = chosen_radius(radius, weights), probe_seed(key)
        clean = layer_pass(model, inputs)
        before = jax.vmap(one)(clean.output, targets)

        def send(noise: list[Any]) -> tuple[list[Any], Any]:
            noisy = layer_pass(model, inputs, noise)
            moves = [after - a for after, a in zip(noisy.pre_activations, clean.pre_activations, strict=True)]
            return moves, jax.vmap(one)(noisy.output, targets) - before

        def probe(k: Any) -> list[Any]:
            noise = draw_probe(seed, clean.pre_activations, k)
            return signals(send, h, [z.astype(a.dtype) for z, a in zip(noise, clean.pre_activations, strict=True)])

        errors = probe(0) if n_probes == 1 else [e.mean(0) for e in jax.vmap(probe)(jnp.arange(n_probes))]
        return before.mean(), _estimate(model, clean.inputs, errors)

    return value_and_grad


def _activity_signals(moves: list[Any], change: Any) -> list[Any]:
    n_units = sum(move.shape[1] for move in moves)
    squared = sum(((move**2).sum(1) for move in moves), jnp.zeros(change.shape, change.dtype))
    # Noise so small that nothing moved tells nothing.
    weight = jnp.where(squared > 0, n_units * change / jnp.where(squared > 0, squared, 1), 0)
    return [weight[:, None] * move for move in moves]


def _estimate(model: Any, inputs: list[Any], errors: list[Any]) -> Any:
    outer = [error.T @ x / len(x) for error, x in zip(errors, inputs, strict=True)]
    biases = [error.mean(0) for error, layer in zip(errors, model.layers, strict=True) if layer.bias is not None]
    return _like(model, [g.astype(w.dtype) for g, w in zip(outer + biases, _weights(model), strict=True)])


def _weights(model: Any) -> list[Any]:
    return [layer.weight for layer in model.layers] + [layer.bias for layer in model.layers if layer.bias is not None]


def _like(model: Any, estimate: list[Any]) -> Any:
    zeros = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))
    return eqx.tree_at(_weights, zeros, estimate)


def _check_batch(inputs: Any, targets: Any) -> None:
    if inputs.ndim != 2:
        raise ValueError(f"inputs must have shape (batch, features), got {inputs.shape}")
    if len(inputs) != len(targets):
        raise ValueError(f"inputs and targets must be of one length, got {len(inputs)} and {len(targets)}")
