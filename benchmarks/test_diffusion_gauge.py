"""Likelihoods and derivatives along the flow of a score, and score matching of a potential, values compared first; flow_matching,
torchdiffeq and PyTorch in peers/torch_diffusion_gauge.py.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import python_of

from gradatim.transport import (
    FreeScore,
    GradientScore,
    ScoreFlow,
    VariancePreserving,
    denoising_score_matching,
    flow_jacobian,
    flow_log_likelihood,
)

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("gauge", PEERS_FOLDER / "gauge.py")
assert _spec is not None
assert _spec.loader is not None
gauge = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gauge)

PATH = VariancePreserving(*gauge.BETA)
SAME_FLOW = 5e-3  # the derivative of a solver's steps against steps of the derivative, at tolerance 1e-5, in single precision
AGREEMENT = 1e-4  # of solvers at tolerance 1e-5, in double precision
ROUND_OFF = 1e-3  # gradients in single precision against themselves, sums in another order


def denoiser(layers: Any) -> Callable[[Any, Any], Any]:
    """Of one time and one point."""

    def network(t: Any, x: Any) -> Any:
        h = jnp.concatenate([x, t.astype(x.dtype)[None]])
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight + bias
            h = jax.nn.silu(h) if i + 1 < len(layers) else h
        return h

    return network


def likelihoods(layers: Any, points: Any) -> Any:
    """By the library."""
    score = FreeScore(denoiser(layers), PATH)
    of = lambda x: flow_log_likelihood(score, PATH, x, end=gauge.END, rtol=gauge.TOLERANCE, atol=gauge.TOLERANCE).log_density  # noqa: E731
    return jax.vmap(of)(points)


def derivatives(layers: Any, points: Any) -> Any:
    """By the library."""
    velocity = ScoreFlow(FreeScore(denoiser(layers), PATH), PATH)
    times = jnp.asarray([0.0, gauge.END], points.dtype)
    of = lambda x: flow_jacobian(velocity, x, times, rtol=gauge.TOLERANCE, atol=gauge.TOLERANCE).jacobian[-1]  # noqa: E731
    return jax.vmap(of)(points)


def through_the_solver(layers: Any, points: Any) -> Any:
    """Diffrax's own forward derivative of the flow."""
    velocity = ScoreFlow(FreeScore(denoiser(layers), PATH), PATH)

    def end(x: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, args: velocity(jnp.asarray(t), x)),
            diffrax.Tsit5(),
            0.0,
            gauge.END,
            None,
            x,
            stepsize_controller=diffrax.PIDController(rtol=gauge.TOLERANCE, atol=gauge.TOLERANCE),
            adjoint=diffrax.ForwardMode(),
        )
        ys: Any = solution.ys
        return ys[-1]

    return jax.vmap(jax.jacfwd(end))(points)


def training(layers: Any, batch: Any) -> Any:
    """By the library."""
    return jax.value_and_grad(lambda layers: denoising_score_matching(GradientScore(denoiser(layers), PATH), PATH, *batch))(layers)


def written_out(layers: Any, batch: Any) -> Any:
    """The potential's gradient by one product with the network's transposed derivative, the whole batch at once."""
    noise, data, t = batch
    c = PATH.coefficients(t)
    a, m = (part.astype(noise.dtype)[:, None] for part in (c.a, c.m))
    x = a * data + m * noise

    def loss(layers: Any) -> Any:
        denoised, back = jax.vjp(lambda x: jax.vmap(denoiser(layers))(t, x), x)
        apart = x - a * denoised
        return jnp.mean(((back(a * apart)[0] - apart) / m + noise) ** 2)

    return jax.value_and_grad(loss)(layers)


def given(what: Any) -> Any:
    """In JAX's own precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), what)


ROWS: dict[tuple[str, str], tuple[Any, Any]] = {
    (gauge.LIKELIHOOD, "gradatim"): (likelihoods, gauge.points(gauge.POINTS)),
    (gauge.DERIVATIVE, "gradatim"): (derivatives, gauge.points(gauge.STARTS)),
    (gauge.DERIVATIVE, "diffrax, derivative of its steps"): (through_the_solver, gauge.points(gauge.STARTS)),
    (gauge.TRAINING, "gradatim"): (training, gauge.batch()),
    (gauge.TRAINING, "JAX, written out"): (written_out, gauge.batch()),
}
PEERS = {gauge.DERIVATIVE: (through_the_solver, SAME_FLOW), gauge.TRAINING: (written_out, ROUND_OFF)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_flows_and_training(benchmark: Any, row: tuple[str, str]) -> None:
    benchmark.group, benchmark.param = row
    function, what = ROWS[row]
    layers, what = given(gauge.layers()), given(what)
    compiled: Any = jax.jit(function).lower(layers, what).compile()
    if row[1] == "gradatim" and row[0] in PEERS:
        peer, tolerance = PEERS[row[0]]
        expected: Any = jax.jit(peer)(layers, what)
        for found, value in zip(jax.tree.leaves(compiled(layers, what)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance * float(abs(value).max()))
    benchmark.extra_info.update({"temporary MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(layers, what)), rounds=20, warmup_rounds=2)


def test_agrees_with_flow_matching_torchdiffeq_and_pytorch() -> None:
    command = [python_of("torch"), str(PEERS_FOLDER / "torch_diffusion_gauge.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    with jax.enable_x64(True):
        layers = given(gauge.layers())
        found = jax.jit(likelihoods)(layers, given(gauge.points(gauge.POINTS)))
        np.testing.assert_allclose(found, theirs["likelihood"], rtol=AGREEMENT, atol=AGREEMENT)
        found = jax.jit(derivatives)(layers, given(gauge.points(gauge.STARTS)))
        np.testing.assert_allclose(found, theirs["derivative"], rtol=10 * AGREEMENT, atol=AGREEMENT)
        loss, gradient = jax.jit(training)(layers, given(gauge.batch()))
        np.testing.assert_allclose(loss, theirs["loss"], rtol=1e-9)
        for found, value in zip(jax.tree.leaves(gradient), theirs["gradient"], strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-9)
