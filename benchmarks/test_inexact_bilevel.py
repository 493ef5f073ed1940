"""Bilevel descent to one true loss: adaptive, certified accuracy and schedules fixed in advance; jaxopt's fixed tolerances in `peers/`.

Whether a contestant has arrived is seen by the closed form at each outer step, by all alike. Ours does not know the best step length.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.implicit import LinearBilevel, hoag, maid

sys.path.append(str(Path(__file__).parent / "peers"))
import bilevel  # pyright: ignore[reportMissingImports]


class Arrived(Exception):
    """The loss has reached its target."""


def adaptive(problem: Any, theta: Any, x: Any, look: Any) -> None:
    settings: dict[str, Any] = {"share": 0.5, "decrease": 0.25, "step_growth": 10 / 9, "loosen": 1.25, "step_size": 0.01}
    maid(problem, theta, x, max_steps=3000, callback=look, **settings)


def geometric(problem: Any, theta: Any, x: Any, look: Any) -> None:
    hoag(problem, theta, x, schedule=lambda k: 0.9**k, max_steps=3000, callback=look)


def cubic(problem: Any, theta: Any, x: Any, look: Any) -> None:
    hoag(problem, theta, x, schedule=lambda k: (k + 1.0) ** -3, max_steps=3000, callback=look)


CONTESTANTS = {"gradatim": adaptive, "gradatim, HOAG, geometric": geometric, "gradatim, HOAG, cubic": cubic}


@pytest.mark.parametrize("peer", CONTESTANTS)
def test_descent(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = bilevel.GROUP, peer
    given = bilevel.problem()
    with jax.enable_x64(True):
        problem = LinearBilevel.of(*(jnp.asarray(given[name]) for name in ("A1", "b1", "A2", "A3", "b2")))
        theta, x = jnp.asarray(given["theta"]), jnp.asarray(given["x"])
        last: list[Any] = []

        def look(step: Any) -> None:
            last[:] = [step, last[1] + 1 if last else 1]
            if bilevel.gap(given, np.asarray(step.next_theta)) <= bilevel.TARGET:
                raise Arrived

        def descend() -> None:
            last.clear()
            try:
                CONTESTANTS[peer](problem, theta, x, look)
            except Arrived:
                return

        descend()
        step, count = last
        reached = bilevel.gap(given, np.asarray(step.next_theta))
        if peer == "gradatim":
            assert reached <= bilevel.TARGET
        counts = {"outer steps": count, "lower gradients": step.lower_gradients, "products with H": step.hessian_products}
        benchmark.extra_info.update({"gap": reached, **counts})
        benchmark.pedantic(descend, rounds=3, warmup_rounds=0)
