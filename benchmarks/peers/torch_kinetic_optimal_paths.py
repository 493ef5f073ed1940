"""Flow matching in PyTorch, by flow_matching 1.0.10 and torchcfm 1.0.7: seconds of a loss and its gradient as JSON.

`--values` instead prints points and conditional velocities of the paths, the loss and its gradient, in double precision.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import flow
import timing
import torch
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import CondOTScheduler, CosineScheduler, VPScheduler
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher, VariancePreservingConditionalFlowMatcher

SCHEDULERS = {"straight": CondOTScheduler, "trigonometric": CosineScheduler, "preserving": VPScheduler}
MATCHERS = {"straight": ConditionalFlowMatcher, "trigonometric": VariancePreservingConditionalFlowMatcher}
Pairs = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def by_flow_matching(name: str) -> Pairs:
    """Points and velocities."""
    path = AffineProbPath(SCHEDULERS[name]())

    def pairs(x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sample = path.sample(x_0=x0, x_1=x1, t=t)
        return sample.x_t, sample.dx_t

    return pairs


def by_torchcfm(name: str) -> Pairs:
    """The same, without its noise around the path."""
    matcher = MATCHERS[name](sigma=0.0)

    def pairs(x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, x, velocity = matcher.sample_location_and_conditional_flow(x0, x1, t)
        return x, velocity

    return pairs


def loss_of(layers: list[tuple[torch.Tensor, torch.Tensor]], pairs: Pairs, data: Any) -> torch.Tensor:
    """Mean squared error of the network."""
    x, velocity = pairs(*data)
    h = torch.cat([x, data[2][:, None]], dim=1)
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight + bias
        h = torch.nn.functional.silu(h) if i + 1 < len(layers) else h
    return ((h - velocity) ** 2).mean()


def main() -> None:
    """Prints the timings, or the values, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    dtype = torch.float64 if arguments.values else torch.float32
    data = tuple(torch.tensor(x, dtype=dtype) for x in flow.batch())
    layers = [tuple(torch.tensor(p, dtype=dtype).requires_grad_() for p in layer) for layer in flow.layers()]
    flat = [p for layer in layers for p in layer]

    def gradient(pairs: Pairs) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(loss_of(layers, pairs, data), flat)

    if arguments.values:
        rivals = {"flow_matching": {name: by_flow_matching(name) for name in SCHEDULERS}}
        rivals["torchcfm"] = {name: by_torchcfm(name) for name in MATCHERS}
        values: dict[str, Any] = {
            who: {name: [x.tolist() for x in pairs(*data)] for name, pairs in of.items()} for who, of in rivals.items()
        }
        straight = by_flow_matching("straight")
        values["loss"] = float(loss_of(layers, straight, data))
        values["gradient"] = [p.tolist() for p in gradient(straight)]
        print(json.dumps(values))
        return
    rows = {"flow_matching 1.0.10": by_flow_matching("straight"), "torchcfm 1.0.7": by_torchcfm("straight")}
    for pairs in rows.values():
        gradient(pairs)
    found = [
        {
            "group": flow.GROUP,
            "name": name,
            "seconds": timing.median(lambda pairs=pairs: gradient(pairs)),
            "info": {"torch": torch.__version__},
        }
        for name, pairs in rows.items()
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
