"""The loss on a line, the curvature along it and a training with forks in PyTorch, loss-landscapes 3.0.6 among it: seconds as JSON.

`--values` instead prints the losses at 21 points, the curvature at the nodes and the weights after the forks, in double precision.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import loss_landscapes
import mlp
import numpy as np
import torch
from loss_landscapes.metrics import Loss

SIZE, POINTS, NODES = "105k", 21, 32
WIDTH, FORKS, STEPS, BATCH, RATE, DECAY = 128, (0, 10, 20, 40, 80), 100, 50, 0.05, 0.9
"As in test_linear_mode_connectivity.py."
TREE = tuple[tuple[torch.Tensor, torch.Tensor], ...]


def network(width: int, steps: int, dtype: torch.dtype) -> TREE:
    """Weights after so many steps of the shared training."""
    return tuple((torch.tensor(w, dtype=dtype), torch.tensor(b, dtype=dtype)) for w, b in mlp.trained(width, steps=steps))


def module(layers: TREE) -> torch.nn.Sequential:
    """The weights as a torch module."""
    parts: list[torch.nn.Module] = []
    for weight, bias in layers:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
        parts += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*parts[:-1])


def loss_of(layers: Any, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean softmax cross-entropy of a tanh network."""
    for i, (weight, bias) in enumerate(layers):
        inputs = inputs @ weight.T + bias
        inputs = torch.tanh(inputs) if i + 1 < len(layers) else inputs
    return torch.nn.functional.cross_entropy(inputs, labels)


def between(a: TREE, b: TREE, t: Any) -> TREE:
    """The point t of the line."""
    return tuple(((1 - t) * v + t * w, (1 - t) * c + t * d) for (v, c), (w, d) in zip(a, b, strict=True))


def lines(a: TREE, b: TREE, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The losses at equally spaced points."""

    def loop() -> list[float]:
        with torch.no_grad():
            return [float(loss_of(between(a, b, t), inputs, labels)) for t in np.linspace(0, 1, POINTS)]

    def landscapes(steps: int = POINTS) -> np.ndarray:
        # It looks after each of its steps, so that the start itself is left out.
        metric = Loss(torch.nn.CrossEntropyLoss(), inputs, labels)
        return loss_landscapes.linear_interpolation(module(a), module(b), metric, steps=steps)

    return {"torch, a loop": loop, "loss-landscapes 3.0.6": landscapes}


def curvatures(a: TREE, b: TREE, inputs: torch.Tensor, labels: torch.Tensor, nodes: np.ndarray) -> dict[str, Callable[[], list[float]]]:
    """The second derivative along the line at the nodes."""

    def along(t: torch.Tensor) -> torch.Tensor:
        return loss_of(between(a, b, t), inputs, labels)

    one = torch.ones((), dtype=inputs.dtype)

    def forward_twice() -> list[float]:
        def slope(t: torch.Tensor) -> torch.Tensor:
            return torch.func.jvp(along, (t,), (one,))[1]

        return [float(torch.func.jvp(slope, (torch.tensor(t, dtype=inputs.dtype),), (one,))[1]) for t in nodes]

    def backward_twice() -> list[float]:
        found = []
        for t in nodes:
            layers = tuple(tuple(p.clone().requires_grad_() for p in layer) for layer in between(a, b, float(t)))
            flat = [p for layer in layers for p in layer]
            gradient = torch.autograd.grad(loss_of(layers, inputs, labels), flat, create_graph=True)
            d = [q - p for first, second in zip(a, b, strict=True) for p, q in zip(first, second, strict=True)]
            product = torch.autograd.grad(sum((g * v).sum() for g, v in zip(gradient, d, strict=True)), flat)
            found.append(float(sum((h * v).sum() for h, v in zip(product, d, strict=True))))
        return found

    return {"torch, forward twice": forward_twice, "torch, backward twice": backward_twice}


def orders() -> tuple[np.ndarray, np.ndarray]:
    """Rows of the batches of the trunk and of two branches."""
    random = np.random.default_rng(0)
    rows = random.integers(0, mlp.EXAMPLES, (3, STEPS, BATCH))
    return rows[0], rows[1:]


def forks(start: TREE, inputs: torch.Tensor, labels: torch.Tensor) -> list[list[torch.nn.Sequential]]:
    """The trunk once, and from each fork two children one after another, momentum copied."""
    trunk, branches = orders()
    rows = torch.tensor(np.concatenate([trunk[None], branches]))
    cross_entropy = torch.nn.CrossEntropyLoss()

    def stretch(model: torch.nn.Sequential, optimizer: torch.optim.Optimizer, order: torch.Tensor) -> None:
        for chosen in order:
            optimizer.zero_grad()
            cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()

    model = module(start)
    optimizer = torch.optim.SGD(model.parameters(), RATE, DECAY)
    done, ends = 0, []
    for fork in FORKS:
        stretch(model, optimizer, rows[0, done:fork])
        done = fork
        children = []
        for branch in rows[1:]:
            child = copy.deepcopy(model)
            its_own = torch.optim.SGD(child.parameters(), RATE, DECAY)
            its_own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            stretch(child, its_own, branch[fork:])
            children.append(child)
        ends.append(children)
    return ends


def seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Median, after one call that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Prints the timings, or the values, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    dtype = torch.float64 if arguments.values else torch.float32
    inputs, labels = (torch.tensor(x) for x in mlp.data())
    inputs, labels = inputs.to(dtype), labels.long()
    a, b = (network(mlp.WIDTHS[SIZE], steps, dtype) for steps in (10, 100))
    unit = (np.polynomial.legendre.leggauss(NODES // 2)[0] + 1) / 4
    nodes = np.concatenate([unit, 0.5 + unit])
    start = network(WIDTH, 0, dtype)
    if arguments.values:
        line = lines(a, b, inputs, labels)
        curved = {name: call() for name, call in curvatures(a, b, inputs, labels, nodes).items()}
        ends = [[[p.tolist() for p in child.parameters()] for child in children] for children in forks(start, inputs, labels)]
        landscapes: Any = line["loss-landscapes 3.0.6"]
        values = {"line": line["torch, a loop"](), "landscapes": landscapes(POINTS - 1).tolist(), "curvature": curved, "ends": ends}
        print(json.dumps(values))
        return
    rows = [(f"loss at {POINTS} points of a line, {SIZE} parameters", name, call) for name, call in lines(a, b, inputs, labels).items()]
    group = f"curvature at {NODES} points of a line, {SIZE} parameters"
    rows += [(group, name, call) for name, call in curvatures(a, b, inputs, labels, nodes).items()]
    rows += [
        (
            f"{2 * len(FORKS)} children of {len(FORKS)} forks, {STEPS} steps",
            "torch, one after another",
            lambda: forks(start, inputs, labels),
        )
    ]
    found = [{"group": group, "name": name, "seconds": seconds(call), "info": {"torch": torch.__version__}} for group, name, call in rows]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
