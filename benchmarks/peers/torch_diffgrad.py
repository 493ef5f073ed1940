"""DiffGrad of torch-optimizer 0.3.0 and pytorch_optimizer 4.1.0 on ten million parameters, two threads: seconds as JSON.

Run with the Python of an environment that has both (and torch). `--gradients FILE` instead reads an array `(steps, n)` of float64 gradients
(`.npy`), feeds them to torch-optimizer's DiffGrad from zero and prints the parameters after each step, for the comparison of numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_optimizer
import torch
import torch_optimizer

GROUP = "diffGrad, update of 10 million parameters"
SHAPES = ((4000, 1000), (2000, 2000), (1000, 2000))
RATE = 1e-3
PEERS: dict[str, Callable[[Any], Any]] = {
    "torch-optimizer DiffGrad": lambda params: torch_optimizer.DiffGrad(params, lr=RATE),
    "pytorch_optimizer DiffGrad": lambda params: pytorch_optimizer.DiffGrad(params, lr=RATE),
    "torch Adam": lambda params: torch.optim.Adam(params, lr=RATE),
    "torch Adam, fused": lambda params: torch.optim.Adam(params, lr=RATE, fused=True),
}


def seconds(make: Callable[[Any], Any], *, repeats: int = 15) -> list[float]:
    """Seconds of `repeats` steps, after three that are not counted."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = make(params)
    for p in params:
        p.grad = torch.randn_like(p)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return times[3:]


def trajectory(gradients: np.ndarray) -> list[list[float]]:
    """Parameters after each step of torch-optimizer's DiffGrad, from zero, in double precision."""
    p = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    # It divides eps by √(1 - b₂ᵗ), where ours does not: so small that neither is seen.
    optimizer = torch_optimizer.DiffGrad([p], lr=RATE, eps=1e-16)
    rows = []
    for gradient in gradients:
        p.grad = torch.tensor(gradient)
        optimizer.step()
        rows.append(p.detach().tolist())
    return rows


def main() -> None:
    """Prints the timings, or the trajectory, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gradients", help="a .npy file (steps, n) of float64 gradients")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.gradients:
        print(json.dumps({"parameters": trajectory(np.load(arguments.gradients))}))
        return
    print(
        json.dumps(
            [{"group": GROUP, "name": name, "seconds": statistics.median(seconds(make)), "info": {}} for name, make in PEERS.items()]
        )
    )


if __name__ == "__main__":
    main()
