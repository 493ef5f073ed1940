"""What mup 1.0.0 (Yang and Hu) says of each parameter of one block, by comparing two widths, as JSON.

Run with the Python of an environment that has torch and mup.
"""

from __future__ import annotations

import json

import mup
import torch


class Block(torch.nn.Module):
    """The parameters of a block and its ends; nothing is computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.norm = torch.nn.Embedding(11, width), torch.nn.LayerNorm(width)
        self.q, self.up = torch.nn.Linear(width, width), torch.nn.Linear(width, 4 * width)
        self.down, self.readout = torch.nn.Linear(4 * width, width), mup.MuReadout(width, 11)


def main() -> None:
    """Prints `{name: {infinite_dimensions, is_output}}`."""
    model = Block(32)
    mup.set_base_shapes(model, Block(16), delta=Block(24), rescale_params=False)
    outputs = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, mup.MuReadout)}
    table = {
        name: {"infinite_dimensions": parameter.infshape.ninf(), "is_output": name in outputs}
        for name, parameter in model.named_parameters()
    }
    print(json.dumps(table))


if __name__ == "__main__":
    main()
