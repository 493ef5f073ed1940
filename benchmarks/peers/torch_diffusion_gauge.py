"""Flows of a score in PyTorch, by flow_matching 1.0.10 and torchdiffeq 0.2.5, and score matching of a potential: seconds as JSON.

`--values` instead prints log-likelihoods, derivatives, and the loss with its gradient, in double precision.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import gauge
import timing
import torch
from flow_matching.solver import ODESolver
from torch.func import jacrev, vmap
from torchdiffeq import odeint

Layers = list[tuple[torch.Tensor, torch.Tensor]]


def coefficients(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Data, squared noise and the rate of the variance-preserving path, from noise to data."""
    tau = 1 - t
    rate = gauge.BETA[0] + (gauge.BETA[1] - gauge.BETA[0]) * tau
    integral = tau * (gauge.BETA[0] + rate) / 2
    return torch.exp(-integral / 2), -torch.expm1(-integral), rate


def denoised(layers: Layers, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The network; times are one number or one for each point."""
    h = torch.cat([x, t.expand(x.shape[:-1])[..., None]], dim=-1)
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight + bias
        h = torch.nn.functional.silu(h) if i + 1 < len(layers) else h
    return h


def velocity(layers: Layers, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of the flow."""
    a, v, rate = coefficients(t)
    return rate / 2 * (x - (x - a * denoised(layers, t, x)) / v)


def log_likelihoods(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """By flow_matching, whose time must end at one: ours, stretched."""

    def stretched(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return gauge.END * velocity(layers, gauge.END * t, x)

    def log_normal(x: torch.Tensor) -> torch.Tensor:
        return -(x**2).sum(dim=1) / 2 - gauge.DIM / 2 * torch.log(torch.tensor(2 * torch.pi, dtype=x.dtype))

    _, found = ODESolver(velocity_model=stretched).compute_likelihood(
        x,
        log_normal,
        None,
        method="dopri5",
        atol=gauge.TOLERANCE,
        rtol=gauge.TOLERANCE,
        time_grid=torch.tensor([1.0, 0.0], dtype=x.dtype),
        exact_divergence=True,
    )
    return found


def derivatives(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """By torchdiffeq, points and tangents together."""

    def one(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return velocity(layers, t, x)

    jacobian = vmap(jacrev(one, argnums=1), in_dims=(None, 0))

    def rates(t: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return one(t, state[0]), jacobian(t, state[0]) @ state[1]

    start = (x, torch.eye(gauge.DIM, dtype=x.dtype).expand(len(x), -1, -1).clone())
    times = torch.tensor([0.0, gauge.END], dtype=x.dtype)
    with torch.no_grad():
        return odeint(rates, start, times, rtol=gauge.TOLERANCE, atol=gauge.TOLERANCE, method="dopri5")[1][-1]


def loss_of(layers: Layers, noise: torch.Tensor, data: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Score matching of ψ = -‖x - a f‖² / (2 m²)."""
    a, v, _ = (part[:, None] for part in coefficients(t))
    x = (a * data + v.sqrt() * noise).requires_grad_()
    potential = -((x - a * denoised(layers, t, x)) ** 2 / (2 * v)).sum()
    (score,) = torch.autograd.grad(potential, x, create_graph=True)
    return ((v.sqrt() * score + noise) ** 2).mean()


def main() -> None:
    """Prints the timings, or the values, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    dtype = torch.float64 if arguments.values else torch.float32
    layers = [tuple(torch.tensor(p, dtype=dtype) for p in layer) for layer in gauge.layers()]
    trained: Any = [tuple(p.clone().requires_grad_() for p in layer) for layer in layers]
    flat = [p for layer in trained for p in layer]
    points, starts = (torch.tensor(gauge.points(n), dtype=dtype) for n in (gauge.POINTS, gauge.STARTS))
    batch = [torch.tensor(part, dtype=dtype) for part in gauge.batch()]
    rows: dict[tuple[str, str], Callable[[], Any]] = {
        (gauge.LIKELIHOOD, "flow_matching 1.0.10"): lambda: log_likelihoods(layers, points.clone()),
        (gauge.DERIVATIVE, "torchdiffeq 0.2.5"): lambda: derivatives(layers, starts),
        (gauge.TRAINING, "PyTorch, written out"): lambda: torch.autograd.grad(loss_of(trained, *batch), flat),
    }
    if arguments.values:
        likelihood, derivative, gradient = (call() for call in rows.values())
        print(
            json.dumps(
                {
                    "likelihood": likelihood.tolist(),
                    "derivative": derivative.tolist(),
                    "loss": float(loss_of(trained, *batch)),
                    "gradient": [p.tolist() for p in gradient],
                }
            )
        )
        return
    found = [
        {"group": group, "name": name, "seconds": timing.median(call), "info": {"torch": torch.__version__}}
        for (group, name), call in rows.items()
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
