"""Five steps of conjugate gradients on the normal equations of a scan with four coils, for 16 images; solutions compared first.

Projections and structural similarity beside scikit-image's, in peers/imaging_decomposed_diffusion_sampler.py.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from environments import python_of

from gradatim.numerics import conjugate_gradient, ssim
from gradatim.transport import CartesianMRI, ParallelBeamCT, cartesian_mask, coil_sensitivities

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("shapes", PEERS_FOLDER / "shapes.py")
assert _spec is not None
assert _spec.loader is not None
shapes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shapes)

SIDE, IMAGES, STEPS, WEIGHT = 128, 16, 5, 10.0
AGREEMENT = 1e-5  # relative, of single precision
INTERPOLATION = 1e-2  # relative: scikit-image turns the image, by linear interpolation, and adds up its columns


def problem() -> tuple[Any, jax.Array]:
    """I + γ AᴴA of a scan, and right-hand sides for all images."""
    scan = CartesianMRI(jnp.asarray(cartesian_mask(SIDE, 4, seed=0)), jnp.asarray(coil_sensitivities(SIDE, 4)), has_complex_images=True)
    parts = np.random.default_rng(0).normal(size=(2, IMAGES, SIDE, SIDE)).astype(np.float32)
    x = jnp.asarray(parts[0] + 1j * parts[1])
    return scan, jax.jit(lambda scan, x: x + WEIGHT * scan.normal(x))(scan, x)


def ours(scan: Any, b: jax.Array) -> jax.Array:
    """All images at once, each with its own step lengths."""
    solved = conjugate_gradient(lambda x: x + WEIGHT * scan.normal(x), b, jnp.zeros_like(b), n_steps=STEPS, batch_axes=1, tolerance=0.0)
    return solved.x


def by_scipy(scan: Any, b: jax.Array) -> jax.Array:
    """`jax.scipy.sparse.linalg.cg`, mapped over images; it stops by tolerance, or at so many steps."""

    def one(b: jax.Array) -> jax.Array:
        return jax.scipy.sparse.linalg.cg(lambda x: x + WEIGHT * scan.normal(x), b, maxiter=STEPS, tol=0.0)[0]

    return jax.vmap(one)(b)


def by_lineax(scan: Any, b: jax.Array) -> jax.Array:
    """`lineax.CG`, mapped over images, without its second look at the residual."""

    def one(b: jax.Array) -> jax.Array:
        operator = lx.FunctionLinearOperator(
            lambda x: x + WEIGHT * scan.normal(x), jax.ShapeDtypeStruct(b.shape, b.dtype), lx.positive_semidefinite_tag
        )
        solver = lx.CG(rtol=1e-30, atol=1e-30, max_steps=STEPS, stabilise_every=None)
        return lx.linear_solve(operator, b, solver, throw=False).value

    return jax.vmap(one)(b)


OURS = {"gradatim": ours}
PEERS = {**OURS, "jax.scipy": by_scipy, "lineax": by_lineax}


@pytest.mark.parametrize("peer", PEERS)
def test_five_steps_for_sixteen_images(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = f"{STEPS} steps of CG, {IMAGES} images of {SIDE} x {SIDE}, 4 coils", peer
    scan, b = problem()
    compiled = jax.jit(PEERS[peer]).lower(scan, b).compile()
    found, expected = compiled(scan, b), jax.jit(ours)(scan, b)
    gap = float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
    assert gap < AGREEMENT
    misfit = float(jnp.linalg.norm(b - found - WEIGHT * scan.normal(found)) / jnp.linalg.norm(b))
    benchmark.extra_info.update({"relative residual": misfit, "difference from ours": gap})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(scan, b)), rounds=20, warmup_rounds=2)


def test_products_alone(benchmark: Any) -> None:
    """The limit: as many products with the operator, and nothing else."""
    benchmark.group, benchmark.param = f"{STEPS} steps of CG, {IMAGES} images of {SIDE} x {SIDE}, 4 coils", "its 6 products alone"
    scan, b = problem()

    def products(scan: Any, b: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, STEPS + 1, lambda _, x: scan.normal(x), b)

    compiled = jax.jit(products).lower(scan, b).compile()
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(scan, b)), rounds=20, warmup_rounds=2)


def test_projections(benchmark: Any) -> None:
    benchmark.group, benchmark.param = shapes.GROUP, "gradatim"
    scanner = ParallelBeamCT(shapes.SIDE, np.radians(shapes.angles()), n_detectors=shapes.SIDE)
    image = jnp.asarray(shapes.image(), jnp.float32)
    compiled = jax.jit(lambda scanner, image: scanner(image)).lower(scanner, image).compile()
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(scanner, image)), rounds=50, warmup_rounds=3)


def test_agrees_with_scikit_image() -> None:
    command = [python_of("imaging"), str(PEERS_FOLDER / "imaging_decomposed_diffusion_sampler.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    clean, other = (jnp.asarray(image, jnp.float32) for image in shapes.pair())
    ours = np.asarray(ParallelBeamCT(shapes.SIDE, np.radians(shapes.angles()), n_detectors=shapes.SIDE)(clean))
    projections = np.asarray(theirs["projections"])
    assert np.linalg.norm(ours - projections) < INTERPOLATION * np.linalg.norm(projections)
    np.testing.assert_allclose(ssim(clean, other, data_range=shapes.RANGE), theirs["similarity"], rtol=AGREEMENT)
