"""A step of torch.optim.Muon, whose Newton–Schulz runs in bfloat16, and of the same with a float32 one: seconds as JSON.

`--matrices FILE` instead reads an array `(2, out, in)` of a weight and its gradient (`.npy`) and prints how far the first step of either
moves the weight, for the comparison of numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch

RATE, DECAY = 0.02, 0.1
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SIZES = (256, 512, 1024)
# bfloat16 products take CPUs without such instructions half a minute at 1024.
SLOW_ABOVE = 512


def newton_schulz(x: torch.Tensor) -> torch.Tensor:
    """Five steps in float32."""
    a, b, c = COEFFICIENTS
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.T if tall else x


class SingleMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled decay, all in float32."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 0.05)
                direction = newton_schulz(weight.grad.lerp(state["momentum"], 0.95))
                weight.mul_(1 - RATE * DECAY).add_(direction, alpha=-RATE * max(1, weight.shape[0] / weight.shape[1]) ** 0.5)


def transformer(width: int = 256, depth: int = 4) -> list[tuple[int, int]]:
    """The matrices of a small decoder."""
    return depth * ([(width, width)] * 4 + [(4 * width, width), (width, 4 * width)])


def seconds(make: Any, shapes: list[tuple[int, int]], rounds: int) -> float:
    """Median of one step."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator) / 10) for shape in shapes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator) / 10
    optimizer = make(params)
    optimizer.step()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


PEERS = {"torch, float32": SingleMuon, "torch.optim.Muon": lambda params: torch.optim.Muon(params, lr=RATE, weight_decay=DECAY)}


def first_steps(start: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far each moves a weight."""
    moved = {}
    for name, make in PEERS.items():
        param = torch.nn.Parameter(start.clone())
        param.grad = gradient.clone()
        make([param]).step()
        moved[name] = param.detach() - start
    return moved


def check() -> None:
    """The float32 one moves as torch's does, to the rounding of its bfloat16, where no singular value is close to zero."""
    start, gradient = torch.randn((2, 32, 64), generator=torch.Generator().manual_seed(0)) / 10
    one, other = (moved.flatten() for moved in first_steps(start, gradient).values())
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0)
    if not cosine > 0.99:
        raise SystemExit(f"the two Muons must step alike, got a cosine of {cosine:.4f}")


def main() -> None:
    """Prints a row for each tree and peer, or the first steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--matrices", help="a .npy file (2, out, in) of a weight and its gradient")
    arguments = parser.parse_args()
    if arguments.matrices:
        start, gradient = torch.tensor(np.load(arguments.matrices), dtype=torch.float32)
        print(json.dumps({name: moved.tolist() for name, moved in first_steps(start, gradient).items()}))
        return
    check()
    trees = {f"{n} × {n}": [(n, n)] for n in SIZES} | {"4 layers of width 256": transformer()}
    rows = []
    for name, shapes in trees.items():
        group = f"Muon step, {name}"
        rows.append({"group": group, "name": "torch, float32", "seconds": seconds(SingleMuon, shapes, 30), "info": {}})
        if max(map(max, shapes)) <= SLOW_ABOVE:
            theirs = seconds(PEERS["torch.optim.Muon"], shapes, 3)
            rows.append({"group": group, "name": "torch.optim.Muon, bfloat16", "seconds": theirs, "info": {"torch": torch.__version__}})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
