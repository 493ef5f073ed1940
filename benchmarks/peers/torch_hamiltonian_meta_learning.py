"""Second-order meta-learning of a Hamiltonian network in PyTorch: seconds of an outer gradient as JSON.

By `torch.func`, tasks in one batch; by `torch.autograd.grad(create_graph=True)` task by task, as learn2learn does; by higher 0.2.1.
`--values` instead prints the outer gradient of each, in double precision.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import higher
import meta
import timing
import torch

Parameters = tuple[torch.Tensor, ...]


def energy(parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
    """Of every row of `x`."""
    w1, b1, w2, b2, w3, b3 = parameters
    h = torch.nn.functional.mish(x @ w1.T + b1)
    h = torch.nn.functional.mish(h @ w2.T + b2)
    return (h @ w3.T + b3).squeeze(-1)


def log_cosh(slope: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """Mean log cosh of the field's errors."""
    dq, dp = slope.chunk(2, dim=-1)
    errors = torch.cat([dp, -dq], dim=-1) - rates
    return (torch.logaddexp(errors, -errors) - torch.log(torch.tensor(2.0, dtype=errors.dtype))).mean()


def loss(parameters: Parameters, states: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """By `torch.func`."""
    return log_cosh(torch.func.grad(lambda x: energy(parameters, x).sum())(states), rates)


def taped_loss(parameters: Parameters, states: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """By the tape."""
    x = states.detach().requires_grad_()
    return log_cosh(torch.autograd.grad(energy(parameters, x).sum(), x, create_graph=True)[0], rates)


def by_func(parameters: Parameters, data: list[torch.Tensor]) -> Parameters:
    """All tasks at once."""

    def outer(parameters: Parameters) -> torch.Tensor:
        def one(states: torch.Tensor, rates: torch.Tensor, query: torch.Tensor, query_rates: torch.Tensor) -> torch.Tensor:
            moved = parameters
            for _ in range(meta.INNER_STEPS):
                gradient = torch.func.grad(loss)(moved, states, rates)
                moved = tuple(p - meta.INNER_RATE * g for p, g in zip(moved, gradient, strict=True))
            return loss(moved, query, query_rates)

        return torch.func.vmap(one)(*data).mean()

    return torch.func.grad(outer)(parameters)


def by_tape(parameters: Parameters, data: list[torch.Tensor]) -> Parameters:
    """Task by task."""
    total = torch.zeros((), dtype=data[0].dtype)
    for i in range(meta.TASKS):
        states, rates, query, query_rates = (part[i] for part in data)
        moved = parameters
        for _ in range(meta.INNER_STEPS):
            # The read-out's bias has no part in the field.
            gradient = torch.autograd.grad(taped_loss(moved, states, rates), moved, create_graph=True, allow_unused=True)
            moved = tuple(p if g is None else p - meta.INNER_RATE * g for p, g in zip(moved, gradient, strict=True))
        total = total + taped_loss(moved, query, query_rates) / meta.TASKS
    return filled(torch.autograd.grad(total, parameters, allow_unused=True), parameters)


class Network(torch.nn.Module):
    """The same parameters as a module, which higher asks for."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.all = torch.nn.ParameterList([torch.nn.Parameter(p.detach().clone()) for p in parameters])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The energy."""
        return energy(tuple(self.all), x)


def by_higher(parameters: Parameters, data: list[torch.Tensor]) -> Parameters:
    """Task by task."""
    network = Network(parameters)
    optimizer = torch.optim.SGD(network.parameters(), lr=meta.INNER_RATE)
    total = [torch.zeros_like(p) for p in parameters]
    for i in range(meta.TASKS):
        states, rates, query, query_rates = (part[i] for part in data)
        with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (moved, steps):

            def of(states: torch.Tensor, rates: torch.Tensor, moved: Any = moved) -> torch.Tensor:
                x = states.detach().requires_grad_()
                return log_cosh(torch.autograd.grad(moved(x).sum(), x, create_graph=True)[0], rates)

            for _ in range(meta.INNER_STEPS):
                steps.step(of(states, rates))
            gradient = torch.autograd.grad(of(query, query_rates) / meta.TASKS, list(network.parameters()), allow_unused=True)
        total = [t if g is None else t + g for t, g in zip(total, gradient, strict=True)]
    return tuple(total)


def filled(gradient: tuple[torch.Tensor | None, ...], parameters: Parameters) -> Parameters:
    """Zero where there is none."""
    return tuple(torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient, strict=True))


ROWS: dict[str, Callable[[Parameters, list[torch.Tensor]], Parameters]] = {
    "torch.func, all tasks in one batch": by_func,
    "torch.autograd, create_graph": by_tape,
    "higher 0.2.1": by_higher,
}


def main() -> None:
    """Prints the timings, or the gradients, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    dtype = torch.float64 if arguments.values else torch.float32
    data = [torch.tensor(part, dtype=dtype) for part in meta.tasks()]
    parameters = tuple(torch.tensor(p, dtype=dtype).requires_grad_() for layer in meta.layers() for p in layer)
    if arguments.values:
        print(json.dumps({name: [p.tolist() for p in row(parameters, data)] for name, row in ROWS.items()}))
        return
    found = []
    for name, row in ROWS.items():
        row(parameters, data)
        seconds = timing.median(lambda row=row: row(parameters, data))
        found.append({"group": meta.GROUP, "name": name, "seconds": seconds, "info": {"torch": torch.__version__}})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
