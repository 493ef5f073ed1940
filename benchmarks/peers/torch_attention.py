"""Decoding with a full cache and with latents in PyTorch, absorbed as in DeepSeek's models: seconds as JSON."""

from __future__ import annotations

import functools
import json
import math
import statistics

import torch
from decoding import WORK
from timing import seconds


class Rotary:
    """Angles of the last token, the only one that is turned anew."""

    def __init__(self, dim: int, position: int) -> None:
        angles = position * 10_000.0 ** (-torch.arange(0, dim, 2) / dim)
        self.cosine, self.sine = torch.cos(angles), torch.sin(angles)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of heads in the last axis."""
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cosine - b * self.sine, a * self.sine + b * self.cosine], -1)


class Full(torch.nn.Module):
    """Keys and values of all tokens."""

    def __init__(self, tokens: int, width: int, heads: int, texts: int) -> None:
        super().__init__()
        self.heads = heads
        self.rows, self.output = torch.nn.Linear(width, 3 * width, bias=False), torch.nn.Linear(width, width, bias=False)
        self.cache = torch.randn(2, texts, heads, tokens, width // heads)
        self.turn = Rotary(width // heads, tokens - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last token of every text, `(texts, width)`."""
        q, k, v = self.rows(x).view(len(x), 3, self.heads, 1, -1).unbind(1)
        keys, values = self.cache
        keys[:, :, -1:], values[:, :, -1:] = self.turn(k), v
        return self.output(torch.nn.functional.scaled_dot_product_attention(self.turn(q), keys, values).reshape(len(x), -1))


class Latent(torch.nn.Module):
    """A latent and a rotary key of all tokens."""

    def __init__(self, tokens: int, width: int, heads: int, texts: int) -> None:
        super().__init__()
        self.heads, self.latent, self.rope, head = heads, width // 2, width // 8, width // heads
        self.down = torch.nn.Linear(width, self.latent + self.rope, bias=False)
        self.query = torch.nn.Linear(width, heads * (head + self.rope), bias=False)
        self.up_key, self.up_value = (torch.nn.Parameter(torch.randn(heads, head, self.latent) / math.sqrt(self.latent)) for _ in range(2))
        self.norm, self.output = torch.nn.RMSNorm(self.latent), torch.nn.Linear(width, width, bias=False)
        self.cache = torch.randn(texts, tokens, self.latent + self.rope)
        self.turn, self.scale = Rotary(self.rope, tokens - 1), 1 / math.sqrt(head + self.rope)

    def forward(self, x: torch.Tensor, is_absorbed: bool = True) -> torch.Tensor:
        """The last token of every text, `(texts, width)`."""
        new, (q, q_rope) = self.down(x), self.query(x).view(len(x), self.heads, -1).split([self.up_key.shape[1], self.rope], -1)
        latent, rope = new.split([self.latent, self.rope], -1)
        self.cache[:, -1] = torch.cat([self.norm(latent), self.turn(rope)], -1)
        if is_absorbed:
            question = torch.cat([torch.einsum("bhe,her->bhr", q, self.up_key), self.turn(q_rope)], -1)
            weights = torch.softmax(self.scale * question @ self.cache.mT, -1)
            read = torch.einsum("bhr,her->bhe", (weights @ self.cache)[..., : self.latent], self.up_value)
        else:
            c, k_rope = self.cache.split([self.latent, self.rope], -1)
            keys, values = (torch.einsum("bsr,her->bhse", c, up) for up in (self.up_key, self.up_value))
            scores = torch.einsum("bhe,bhse->bhs", q, keys) + torch.einsum("bhr,bsr->bhs", self.turn(q_rope), k_rope)
            read = torch.einsum("bhs,bhse->bhe", torch.softmax(self.scale * scores, -1), values)
        return self.output(read.reshape(len(x), -1))


PEERS = {
    "torch, full attention": (Full, {}),
    "torch, latent": (Latent, {}),
    "torch, keys and values formed": (Latent, {"is_absorbed": False}),
}
ROUNDS = 50


def check() -> None:
    """The absorbed form gives what keys and values formed anew give."""
    layer, x = Latent(16, 32, 8, 2), torch.randn(2, 32)
    apart = (layer(x) - layer(x, is_absorbed=False)).abs().max().item()
    if not apart < 1e-5:
        raise SystemExit(f"both forms must give the same, got {apart:.1e} apart")


def decode(x: torch.Tensor, layers: list[torch.nn.Module], how: dict[str, bool]) -> torch.Tensor:
    """The last token through all layers, each added to what came in."""
    for layer in layers:
        x = x + layer(x, **how)
    return x


@torch.inference_mode()
def main() -> None:
    """Prints a row for each work and peer."""
    torch.manual_seed(0)
    check()
    rows = []
    for work, (tokens, width, heads, texts, n_layers) in WORK.items():
        x = torch.randn(texts, width)
        rivals = {name: [layer(tokens, width, heads, texts) for _ in range(n_layers)] for name, (layer, _) in PEERS.items()}
        times: dict[str, list[float]] = {name: [] for name in PEERS}
        # In turns, as ours: whose turn comes finds the cache full of what the others read.
        for _ in range(1 + ROUNDS):
            for name, layers in rivals.items():
                times[name].append(seconds(functools.partial(decode, x, layers, PEERS[name][1])))
        for name, row in times.items():
            group = f"attention, the last of {work}"
            rows.append({"group": group, "name": name, "seconds": statistics.median(row[1:]), "info": {"torch": torch.__version__}})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
