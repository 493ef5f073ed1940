"""Loss and gradient of a Lagrangian PINN in PyTorch, derivatives by `torch.autograd.grad` over all points as usual: seconds as JSON.

`--values` instead prints loss and gradient, in double precision.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import characteristics as shared
import timing
import torch

GROUP = f"loss and gradient of a Lagrangian PINN, {shared.PLACES * shared.TIMES} points"


def apply(layers: Any, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A tanh network of (cos x, sin x, t)."""
    rows = torch.stack([torch.cos(x), torch.sin(x), t], dim=1)
    for weight, bias in layers[:-1]:
        rows = torch.tanh(rows @ weight.T + bias)
    weight, bias = layers[-1]
    return (rows @ weight.T + bias)[:, 0]


def derivative(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of each value by its own argument."""
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]


def loss_of(path: Any, state: Any, x: torch.Tensor, t: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Viscous Burgers along its characteristics."""
    X, W = x + apply(path, x, t), apply(state, x, t)
    J = torch.clamp(derivative(X, x), min=0.02)
    curvature = derivative(derivative(W, x) / J, x) / J
    equations = shared.PATH_WEIGHT * ((derivative(X, t) - W) ** 2).mean()
    equations = equations + shared.STATE_WEIGHT * ((derivative(W, t) - shared.DIFFUSIVITY * curvature) ** 2).mean()
    zero = torch.zeros_like(start)
    initial = (apply(path, start, zero) ** 2).mean() + ((apply(state, start, zero) - torch.sin(start)) ** 2).mean()
    return equations + shared.INITIAL_WEIGHT * initial


def main() -> None:
    """Prints the timing, or the values, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    dtype = torch.float64 if arguments.values else torch.float32
    path, state = (
        [tuple(torch.tensor(part, dtype=dtype, requires_grad=True) for part in layer) for layer in network] for network in shared.networks()
    )
    x, t, start = (torch.tensor(values, dtype=dtype) for values in shared.points())
    x.requires_grad_()
    t.requires_grad_()
    # Weights before biases, network by network.
    parameters = [layer[i] for network in (path, state) for i in range(2) for layer in network]

    def both() -> list[torch.Tensor]:
        loss = loss_of(path, state, x, t, start)
        return [loss, *torch.autograd.grad(loss, parameters)]

    if arguments.values:
        print(json.dumps([value for part in both() for value in part.detach().ravel().tolist()]))
        return
    seconds = timing.median(both)
    print(json.dumps([{"group": GROUP, "name": "torch", "seconds": seconds, "info": {"torch": torch.__version__}}]))


if __name__ == "__main__":
    main()
