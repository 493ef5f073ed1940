"""A mixed convolution in PyTorch, every slice padded and summed as the authors' code does it, and by outputs: seconds as JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import entangled as shared
import numpy as np
import timing
import torch


def main() -> None:
    """Prints the timings as JSON."""
    torch.set_num_threads(2)
    weight, distributions, x = shared.problem()
    images = torch.tensor(x)
    parameter = torch.tensor(weight, requires_grad=True)
    given = [torch.tensor(p, requires_grad=True) for p in distributions]

    def mixed() -> torch.Tensor:
        """Σᵢ pᵢ Pad(Wᵢ)"""
        total = torch.zeros_like(parameter)
        for (a, b, c), (out, n_in, side) in zip(itertools.product(*given), shared.combinations(), strict=True):
            rim = (7 - side) // 2
            part = parameter[:out, :n_in, rim : rim + side, rim : rim + side]
            pad = (rim, rim, rim, rim, 0, shared.INS[-1] - n_in, 0, shared.OUTS[-1] - out)
            total = total + a * b * c * torch.nn.functional.pad(part, pad)
        return torch.nn.functional.conv2d(images, total, padding=3)

    def outputs() -> torch.Tensor:
        """Σᵢ pᵢ op(x; Wᵢ)"""
        total = torch.zeros(())
        for (a, b, c), (out, n_in, side) in zip(itertools.product(*given), shared.combinations(), strict=True):
            rim = (7 - side) // 2
            y = torch.nn.functional.conv2d(images[:, :n_in], parameter[:out, :n_in, rim : rim + side, rim : rim + side], padding=side // 2)
            total = total + a * b * c * torch.nn.functional.pad(y, (0, 0, 0, 0, 0, shared.OUTS[-1] - out))
        return total

    rows = []
    for name, layer in (("torch, slices padded", mixed), ("torch, outputs mixed", outputs)):

        def step(layer: Callable[[], torch.Tensor] = layer) -> float:
            for leaf in (parameter, *given):
                leaf.grad = None
            loss = (layer() ** 2).mean()
            loss.backward()
            return float(loss.detach())

        value = step()
        np.testing.assert_allclose(value, shared.value(weight, distributions, x), rtol=1e-4)
        rows.append({"group": shared.GROUP, "name": name, "seconds": timing.median(step), "info": {"value": value}})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
