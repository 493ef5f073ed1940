"""Graph layers of torch-geometric 2.8.1 and the group convolution of e2cnn 0.2.3, on the weights of ours: seconds as JSON; `--values`
prints what they give.

e2cnn has a successor, escnn, whose installation wants a Fortran compiler; their convolution over quarter turns is the same. On filters of 3
x 3 it has six parameters where ours has nine: those that its bases of smooth functions span.
"""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

import neighbours
import numpy as np
import timing
import torch
import torch_geometric
from torch_geometric.nn import GATConv, GCNConv, MessagePassing

warnings.filterwarnings("ignore")
import e2cnn  # noqa: E402
from e2cnn import gspaces  # noqa: E402
from e2cnn import nn as steerable  # noqa: E402

PYG, E2CNN = f"torch-geometric {torch_geometric.__version__}", f"e2cnn {e2cnn.__version__}"


def _set(parameter: torch.Tensor, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(value).reshape(parameter.shape))


def convolution() -> torch.nn.Module:
    """Kipf and Welling's."""
    weights = neighbours.weights(neighbours.CONVOLUTION)
    layer = GCNConv(neighbours.FEATURES, neighbours.FEATURES)
    _set(layer.lin.weight, np.ascontiguousarray(weights["weight"].T))
    _set(layer.bias, weights["bias"])
    return layer


def attention() -> torch.nn.Module:
    """Veličković's."""
    weights = neighbours.weights(neighbours.ATTENTION)
    layer = GATConv(neighbours.FEATURES, neighbours.FEATURES // neighbours.HEADS, heads=neighbours.HEADS)
    _set(layer.lin.weight, np.ascontiguousarray(weights["weight"].reshape(neighbours.FEATURES, -1).T))
    for parameter, name in ((layer.att_src, "sending"), (layer.att_dst, "receiving"), (layer.bias, "bias")):
        _set(parameter, weights[name])
    return layer


def perceptron(part: str) -> torch.nn.Module:
    """Of message passing."""
    weights, n = neighbours.weights(neighbours.MESSAGES), neighbours.FEATURES
    first, last = torch.nn.Linear(2 * n, n), torch.nn.Linear(n, n)
    for layer, place in ((first, "first"), (last, "last")):
        _set(layer.weight, weights[f"{part} {place}"])
        _set(layer.bias, weights[f"{part} {place} bias"])
    return torch.nn.Sequential(first, torch.nn.ReLU(), last)


class Messages(MessagePassing):
    """Perceptrons of both ends, summed."""

    def __init__(self) -> None:
        super().__init__(aggr="sum")
        self.of_edge, self.of_node = perceptron("message"), perceptron("update")

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """The new features."""
        return self.of_node(torch.cat([x, self.propagate(edges, x=x)], dim=-1))

    def message(self, x_i: torch.Tensor, x_j: torch.Tensor) -> torch.Tensor:
        """Of one edge."""
        return self.of_edge(torch.cat([x_i, x_j], dim=-1))


class GroupConvolution(torch.nn.Module):
    """Over shifts and quarter turns, with the first weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        space = gspaces.Rot2dOnR2(4)
        self.maps = steerable.FieldType(space, [space.regular_repr] * neighbours.CHANNELS)
        self.layer = steerable.R2Conv(self.maps, self.maps, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filtered maps."""
        return self.layer(steerable.GeometricTensor(x, self.maps)).tensor


def main() -> None:
    """Prints one JSON list, or the values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    torch.set_num_threads(2)
    x, edges = torch.tensor(neighbours.nodes()), torch.tensor(neighbours.both_ways())
    # Image, then turns within channels, then rows and columns.
    channels_first = neighbours.images().transpose(0, 4, 3, 1, 2)
    images = torch.tensor(np.ascontiguousarray(channels_first)).flatten(1, 2)
    graph_layers = {neighbours.CONVOLUTION: convolution(), neighbours.ATTENTION: attention(), neighbours.MESSAGES: Messages()}
    turning = GroupConvolution()
    if parser.parse_args().values:
        found: dict[str, Any] = {group: layer(x, edges).tolist() for group, layer in graph_layers.items()}
        filters, _ = turning.layer.expand_parameters()
        print(json.dumps(found | {"filters": filters.tolist(), neighbours.TURNS: turning(images).tolist()}))
        return

    def step(layer: torch.nn.Module, *inputs: torch.Tensor) -> Any:
        return torch.autograd.grad((layer(*inputs) ** 2).sum(), [p for p in layer.parameters() if p.requires_grad])

    contestants: dict[tuple[str, str], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]] = {
        (group, PYG): (layer, (x, edges)) for group, layer in graph_layers.items()
    }
    contestants[neighbours.TURNS, E2CNN] = turning, (images,)
    rows = []
    for (group, name), (layer, inputs) in contestants.items():
        step(layer, *inputs)
        seconds = timing.median(lambda layer=layer, inputs=inputs: step(layer, *inputs))
        rows.append({"group": group, "name": name, "seconds": seconds, "info": {"torch": torch.__version__}})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
