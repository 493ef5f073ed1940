"""The entropic Monge gap with its gradient, values compared first; ott-jax in peers/ott_monge_gap.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import python_of

from gradatim.transport import monge_gap_from_samples

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("pairs", PEERS_FOLDER / "pairs.py")
assert _spec is not None
assert _spec.loader is not None
pairs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pairs)

AGREEMENT = 1e-5


def gap(epsilon: float, tolerance: float) -> Any:
    """The gap, how it was solved, and its gradient in the images."""

    def of(y: jax.Array, x: jax.Array) -> Any:
        found = monge_gap_from_samples(x, y, epsilon=epsilon, tolerance=tolerance, max_iterations=100_000)
        return found.value, found

    return jax.jit(jax.value_and_grad(of, has_aux=True))


@pytest.mark.parametrize("epsilon", pairs.EPSILONS)
def test_gap_and_gradient(benchmark: Any, epsilon: float) -> None:
    benchmark.group, benchmark.param = pairs.group(epsilon), "gradatim"
    x, y = (jnp.asarray(points, jnp.float32) for points in pairs.pairs())
    compiled = gap(epsilon, 1e-3).lower(y, x).compile()
    (value, found), _ = compiled(y, x)
    assert found.is_converged
    benchmark.extra_info.update({"gap": float(value), "marginal error": float(found.error)})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(y, x)), rounds=50, warmup_rounds=3)


def test_agrees_with_ott() -> None:
    command = [python_of("ott"), str(PEERS_FOLDER / "ott_monge_gap.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, pairs.pairs())
        for epsilon, (value, gradient) in zip(pairs.EPSILONS, theirs, strict=True):
            (ours, _), slope = gap(epsilon, 1e-9)(y, x)
            np.testing.assert_allclose(ours, value, rtol=AGREEMENT)
            np.testing.assert_allclose(slope, gradient, atol=AGREEMENT * np.abs(gradient).max())
