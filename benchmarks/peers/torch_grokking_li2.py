"""Ten epochs of networks of pairs in PyTorch, as JSON: one-hot inputs, as the authors train them, and two look-ups."""

from __future__ import annotations

import json
from typing import Any

import modular
import numpy as np
import timing
import torch


class OneHot(torch.nn.Module):
    """Both elements as one-hot vectors, put together."""

    def __init__(self, order: int, first: np.ndarray, readout: np.ndarray) -> None:
        super().__init__()
        self.order = order
        self.first = torch.nn.Linear(2 * order, first.shape[1], bias=False)
        self.readout = torch.nn.Linear(first.shape[1], order, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor(first.T))
            self.readout.weight.copy_(torch.tensor(readout.T))

    def prepared(self, pairs: torch.Tensor) -> torch.Tensor:
        """The inputs, made once."""
        return torch.nn.functional.one_hot(pairs, self.order).flatten(1).float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """An output for each element."""
        return self.readout(self.first(inputs) ** 2)


class LookUps(OneHot):
    """The same weights, looked up."""

    def prepared(self, pairs: torch.Tensor) -> torch.Tensor:
        """The numbers themselves."""
        return pairs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """An output for each element."""
        table = self.first.weight.T
        hidden = torch.nn.functional.embedding(inputs[:, 0], table) + torch.nn.functional.embedding(inputs[:, 1] + self.order, table)
        return self.readout(hidden**2)


def centred_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared error with outputs and answers centred over the classes."""
    o = outputs - outputs.mean(dim=1, keepdim=True)
    return (o**2).sum(dim=1).mean() - 2 * o.gather(1, labels[:, None]).mean() + 1 - 1 / o.shape[1]


def training(given: modular.Work, kind: type[OneHot]) -> Any:
    """A function that trains every network by one epoch and gives the losses before it."""
    parts = []
    for pairs, labels, first, readout in zip(given.pairs, given.labels, given.first, given.readout, strict=True):
        model = kind(given.order, first, readout)
        optimizer = torch.optim.Adam(model.parameters(), lr=modular.RATE, weight_decay=modular.DECAY, fused=True)
        parts.append((model, optimizer, model.prepared(torch.tensor(pairs)), torch.tensor(labels)))

    def epoch() -> list[float]:
        found = []
        for model, optimizer, inputs, labels in parts:
            optimizer.zero_grad()
            loss = centred_loss(model(inputs), labels)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    return epoch


def main() -> None:
    """Prints a row for each size and way."""
    rows = []
    for name, sizes in modular.SIZES.items():
        given = modular.work(*sizes)
        exact = modular.losses(given)
        for kind, words in ((OneHot, "torch, one-hot inputs"), (LookUps, "torch, look-ups")):
            epoch = training(given, kind)
            found = np.array([epoch() for _ in range(modular.EPOCHS + 1)]).T
            error = float(abs(found / exact - 1).max())
            if not error < modular.AGREEMENT:
                raise SystemExit(f"{words} must come to the losses of NumPy, got a relative error of {error:.2g}")

            def block(epoch: Any = epoch) -> None:
                for _ in range(modular.BLOCK):
                    epoch()

            info = {"torch": torch.__version__, "error of the losses": error}
            rows.append({"group": f"{modular.BLOCK} epochs, {name}", "name": words, "seconds": timing.median(block), "info": info})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
