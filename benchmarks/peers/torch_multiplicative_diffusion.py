"""Multiplicative diffusion in PyTorch, after the equations of its authors' code: seconds of a loss with its gradient and of a sampler.

Their code is no package. Its loss is written here with one time in noising and judging, where theirs are a level apart. `--values` instead
prints the loss, its gradient and one step of either sampler, in double precision.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import multiplicative
import timing
import torch

SIGMA = multiplicative.SIGMA
MU = SIGMA**2 / 2


def network(layers: list[tuple[torch.Tensor, torch.Tensor]], t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The score times the point."""
    h = torch.cat([torch.log(x), t[:, None]], dim=1)
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight + bias
        h = torch.nn.functional.silu(h) if i + 1 < len(layers) else h
    return h


def loss_of(layers: list[tuple[torch.Tensor, torch.Tensor]], x0: torch.Tensor, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Mean of (σ²t h + log x - log x₀ - μt + 3σ²t/2)²."""
    times = t[:, None]
    y = torch.log(x0) + (MU - SIGMA**2 / 2) * times + SIGMA * torch.sqrt(times) * z
    residual = SIGMA**2 * times * network(layers, t, torch.exp(y)) + y - torch.log(x0) - MU * times + 1.5 * SIGMA**2 * times
    return (residual**2).mean()


def steps_of(x: torch.Tensor, h: torch.Tensor, z: torch.Tensor, delta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the sampler in the logarithm, and of that in the space itself."""
    noise = delta**0.5 * SIGMA * z
    log = x * torch.exp(delta * SIGMA**2 * h - delta * (MU - 1.5 * SIGMA**2) + noise)
    return log, x * (1 + 2 * delta * SIGMA**2 - delta * MU + delta * SIGMA**2 * h + noise)


@torch.no_grad()
def sample(layers: list[tuple[torch.Tensor, torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
    """All steps of the sampler in the logarithm."""
    n = multiplicative.STEPS
    for k in range(n, 0, -1):
        t = torch.full((len(x),), k / n, dtype=x.dtype)
        x, _ = steps_of(x, network(layers, t, x), torch.randn_like(x), 1 / n)
    return x


def main() -> None:
    """Prints the timings, or the values, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    dtype = torch.float64 if arguments.values else torch.float32
    data = [torch.tensor(x, dtype=dtype) for x in multiplicative.batch()]
    layers: Any = [tuple(torch.tensor(p, dtype=dtype).requires_grad_() for p in layer) for layer in multiplicative.layers()]
    flat = [p for layer in layers for p in layer]
    if arguments.values:
        loss = loss_of(layers, *data)
        log, space = steps_of(data[0], network(layers, data[2], data[0]), data[1], 0.01)
        gradient = [p.tolist() for p in torch.autograd.grad(loss, flat)]
        print(json.dumps({"loss": loss.item(), "gradient": gradient, "log": log.tolist(), "space": space.tolist()}))
        return
    starts = torch.tensor(multiplicative.starts(), dtype=dtype)
    rows = {
        multiplicative.LOSS_GROUP: lambda: torch.autograd.grad(loss_of(layers, *data), flat),
        multiplicative.SAMPLER_GROUP: lambda: sample(layers, starts),
    }
    found = []
    for group, call in rows.items():
        call()
        found.append({"group": group, "name": "PyTorch", "seconds": timing.median(call), "info": {"torch": torch.__version__}})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
