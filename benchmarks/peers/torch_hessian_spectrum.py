"""Top-20 eigenvalues and a 100-step density with hessian-eigenthings 1.0.0a5, top-20 with curvlinops 3.0.1 and SciPy: seconds as JSON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import mlp
import numpy as np
import scipy.sparse.linalg
import torch
from curvlinops import HessianLinearOperator
from hessian_eigenthings.algorithms import lanczos, spectral_density
from hessian_eigenthings.loss_fns import supervised_loss
from hessian_eigenthings.operators import HessianOperator


def network(width: int) -> torch.nn.Sequential:
    """The shared weights as a torch module."""
    layers: list[torch.nn.Module] = []
    for weight, bias in mlp.trained(width):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def peers(width: int) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that give the largest eigenvalues, largest first."""
    model = network(width)
    inputs, labels = (torch.tensor(x) for x in mlp.data())
    batches = [(inputs, labels.long())]
    operator = HessianOperator(model=model, dataloader=batches, loss_fn=supervised_loss(torch.nn.functional.cross_entropy))
    cross_entropy = torch.nn.CrossEntropyLoss()
    params = [p for p in model.parameters() if p.requires_grad]
    linear = HessianLinearOperator(model, cross_entropy, params, batches, check_deterministic=False).to_scipy(dtype=np.float32)

    def eigenthings() -> np.ndarray:
        # Its density keeps the nodes of the run, among them the top ones.
        found = spectral_density(operator, num_runs=1, lanczos_steps=mlp.STEPS, num_grid_points=1000, seed=0)
        return np.sort(found.raw_eigenvalues[0].numpy())[::-1][: mlp.TOP]

    def eigenthings_pairs() -> np.ndarray:
        found = lanczos(operator, k=mlp.TOP, max_iter=mlp.STEPS, reorthogonalize=True, which="LA", seed=0)
        return found.eigenvalues.numpy()

    def curvlinops() -> np.ndarray:
        return np.asarray(scipy.sparse.linalg.eigsh(linear, k=mlp.TOP, which="LA", return_eigenvectors=False))[::-1]

    return {
        "hessian-eigenthings (density, its nodes)": eigenthings,
        "hessian-eigenthings (top 20 with vectors)": eigenthings_pairs,
        "curvlinops + SciPy eigsh (top 20)": curvlinops,
    }


def main() -> None:
    """Prints one JSON list."""
    rows: list[dict[str, Any]] = []
    for size, width in mlp.WIDTHS.items():
        for name, function in peers(width).items():
            values = function()
            np.testing.assert_allclose(values[: len(mlp.TOP_VALUES[size])], mlp.TOP_VALUES[size], rtol=mlp.AGREEMENT, err_msg=name)
            times = []
            for _ in range(3):
                start = time.perf_counter()
                function()
                times.append(time.perf_counter() - start)
            info = {"top": [float(value) for value in values[:5]]}
            rows.append({"group": f"hessian top 20 and density, {size}", "name": name, "seconds": statistics.median(times), "info": info})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
