import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.transport import (
    SHEPP_LOGAN,
    Blur,
    CartesianMRI,
    Forward,
    Inpainting,
    ParallelBeamCT,
    SuperResolution,
    cartesian_mask,
    coil_sensitivities,
    draw_ellipses,
    normalised,
    project_ellipses,
)

SIDE, BATCH = 8, 3
SINGLE = 1e-5  # of sums over a hundred numbers in single precision
MASK = jnp.asarray(cartesian_mask(SIDE, 2, seed=0))
COILS = jnp.asarray(coil_sensitivities(SIDE, 3))
KERNEL = jax.device_put(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
OPERATORS = {
    "one coil": CartesianMRI(MASK),
    "coils": CartesianMRI(MASK, COILS),
    "one coil, complex": CartesianMRI(MASK, has_complex_images=True),
    "coils, complex": CartesianMRI(MASK, COILS, has_complex_images=True),
    "tomography": ParallelBeamCT(SIDE, np.linspace(0, np.pi, 5, endpoint=False)),
    "mask": Inpainting(MASK),
    "blur": Blur(KERNEL, (SIDE, SIDE)),
    "coarse pixels": SuperResolution((SIDE, SIDE), 2),
    "own function": Forward(lambda image: jnp.cumsum(image, axis=0)[::2], (SIDE, SIDE)),
}


def noise(shape, *, is_complex, seed=0):
    random = np.random.default_rng(seed)
    real = random.normal(size=shape)
    parts = (real + 1j * random.normal(size=shape)).astype(np.complex64) if is_complex else real.astype(np.float32)
    return jax.device_put(parts)


@pytest.fixture(scope="module")
def products():
    """Images, measurements, A of the former and its adjoint of the latter, of every operator: one program."""
    x = {name: noise((BATCH, SIDE, SIDE), is_complex=one.has_complex_images) for name, one in OPERATORS.items()}
    shapes = {name: jax.eval_shape(one, x[name]) for name, one in OPERATORS.items()}
    y = {name: noise(shape.shape, is_complex=shape.dtype == jnp.complex64, seed=1) for name, shape in shapes.items()}

    @jax.jit
    def apply(x, y):
        return {name: (one(x[name]), one.adjoint(y[name]), one.normal(x[name])) for name, one in OPERATORS.items()}

    return x, y, apply(x, y)


@pytest.mark.parametrize("name", OPERATORS)
def test_oracle_7_the_adjoint_is_exact(products, name):
    x, y, found = products
    image, back, normal = found[name]
    assert back.shape == x[name].shape and back.dtype == x[name].dtype
    left, right = (float(np.vdot(u, v).real) for u, v in ((image, y[name]), (x[name], back)))
    np.testing.assert_allclose(left, right, atol=SINGLE * np.linalg.norm(image) * np.linalg.norm(y[name]))
    if OPERATORS[name].has_complex_images:
        # Of complex images the imaginary part too.
        np.testing.assert_allclose(
            np.vdot(image, y[name]), np.vdot(x[name], back), atol=SINGLE * np.linalg.norm(image) * np.linalg.norm(y[name])
        )
    np.testing.assert_allclose(np.vdot(x[name], normal).real, np.linalg.norm(image) ** 2, rtol=10 * SINGLE)


def test_oracle_2_one_coil_of_complex_images_projects(products):
    x, _, found = products
    operator = OPERATORS["one coil, complex"]
    normal = found["one coil, complex"][2]
    again = eqx.filter_jit(lambda operator, images: operator.normal(images))
    np.testing.assert_allclose(again(operator, normal), normal, atol=SINGLE)
    # Coils whose squares sum to one keep the norm of what a full mask sees.
    whole = CartesianMRI(jnp.ones((SIDE, SIDE), bool), COILS, has_complex_images=True)
    np.testing.assert_allclose(again(whole, x["coils, complex"]), x["coils, complex"], atol=SINGLE)


def test_frequencies_are_numpys(products):
    x, _, found = products
    np.testing.assert_allclose(found["one coil"][0][:, 0], np.where(MASK, np.fft.fft2(x["one coil"], norm="ortho"), 0), atol=SINGLE * SIDE)


def test_blur_is_a_periodic_convolution(products):
    x, _, found = products
    kernel = np.asarray(KERNEL)
    expected = sum(kernel[i, j] * np.roll(x["blur"], (i - 1, j - 2), (1, 2)) for i in range(3) for j in range(5))
    np.testing.assert_allclose(found["blur"][0], expected, atol=SINGLE)


@settings(max_examples=20)
@given(st.floats(0, 2 * np.pi), st.floats(0.3, 2), st.floats(0.3, 2))
def test_every_view_sees_the_whole_mass(angle, pixel, spacing):
    count = 2 * math.ceil(4 * pixel / spacing) + 3
    matrix = np.asarray(ParallelBeamCT(4, np.array([angle]), n_detectors=count, pixel=pixel, spacing=spacing).matrix)
    np.testing.assert_allclose(matrix.sum(axis=1) * spacing, pixel**2, rtol=SINGLE)
    assert np.min(matrix) >= -SINGLE


def test_axes_of_the_projections():
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    views = eqx.filter_jit(ParallelBeamCT(4, np.array([0.0, np.pi / 2, np.pi]), n_detectors=4))(image)
    # To the right; upwards, so that the last row comes first; and to the left.
    np.testing.assert_allclose(views, [image.sum(axis=0), image.sum(axis=1)[::-1], image.sum(axis=0)[::-1]], rtol=SINGLE)


def test_projections_are_those_of_ellipses():
    side, angles = 64, np.array([0.0, 0.4, 1.3, 2.5])
    scanner = eqx.filter_jit(ParallelBeamCT(side, angles, n_detectors=side, pixel=2 / side, spacing=2 / side))
    # Each strip by many lines. The head's thin skull is the worst for square pixels.
    lines = (np.arange(16 * side) + 0.5) / (16 * side) * 2 - 1
    for table, error in ((np.array([[1.0, 0.5, 0.8, 0.1, 0.0, 0.5]]), 0.01), (SHEPP_LOGAN, 0.04)):
        ours = np.asarray(scanner(draw_ellipses(table, side, samples=4)))
        exact = project_ellipses(table, angles, lines).reshape(4, side, 16).mean(axis=-1)
        assert np.linalg.norm(ours - exact) < error * np.linalg.norm(exact)


def test_trap_the_norm_is_one_after_normalising():
    scanner = normalised(OPERATORS["tomography"])
    matrix = np.asarray(eqx.filter_jit(scanner)(np.eye(SIDE**2, dtype=np.float32).reshape(-1, SIDE, SIDE))).reshape(SIDE**2, -1)
    np.testing.assert_allclose(np.linalg.norm(matrix, 2), 1, rtol=1e-3)


def test_trap_the_norm_of_complex_images_is_one_too():
    # Coils that are not normalised, on complex images: their norm over real ones is lower.
    scanner = normalised(CartesianMRI(MASK, 3 * COILS * jnp.arange(1.0, 4.0)[:, None, None], has_complex_images=True))
    basis = np.eye(SIDE**2, dtype=np.complex64).reshape(-1, SIDE, SIDE)
    matrix = np.asarray(eqx.filter_jit(scanner)(basis)).reshape(SIDE**2, -1)
    np.testing.assert_allclose(np.linalg.norm(matrix, 2), 1, rtol=1e-3)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_masks_keep_the_lowest_columns_and_their_share(kind):
    masks = np.stack([cartesian_mask(64, 4, seed=seed, kind=kind) for seed in range(20)])
    assert (masks == masks[:, :1]).all() and (masks[:, 0].sum(axis=-1) == 16).all()
    assert masks[:, 0, [0, 1, 2, 62, 63]].all() and len(np.unique(masks[:, 0], axis=0)) == 20
    # A normal law takes low frequencies rather than high ones.
    low, high = masks[:, 0, 3:16].mean(), masks[:, 0, 16:32].mean()
    assert (low > 2 * high) == (kind == "gaussian")


def test_sensitivities_are_normal_bumps_with_a_slope_of_phase():
    coils = np.asarray(coil_sensitivities(8, 3, width=0.4), np.complex128)
    down, across = np.meshgrid((np.arange(8) - 3.5) / 8, (np.arange(8) - 3.5) / 8, indexing="ij")
    for k, turn in enumerate(2 * np.pi * np.arange(3) / 3):
        squares = [(across - 0.6 * np.cos(a)) ** 2 + (down - 0.6 * np.sin(a)) ** 2 for a in (0, turn)]
        np.testing.assert_allclose(np.log(np.abs(coils[k] / coils[0])), (squares[0] - squares[1]) / (2 * 0.4**2), atol=1e-5)
        slope = np.exp(1j * (np.pi * (np.sin(turn) * across + np.cos(turn) * down) + turn))
        np.testing.assert_allclose(coils[k] / np.abs(coils[k]), slope, atol=1e-5)


def test_enough_detectors_see_the_diagonal_whatever_the_lengths():
    for pixel, spacing in ((2.0, 0.5), (0.5, 2.0)):
        matrix = np.asarray(ParallelBeamCT(4, np.array([np.pi / 4]), pixel=pixel, spacing=spacing).matrix)
        np.testing.assert_allclose(matrix.sum(axis=1) * spacing, pixel**2, rtol=SINGLE)


def test_normal_columns_have_a_third_of_the_half_side_as_deviation():
    # Zero frequency and one column more.
    masks = np.stack([cartesian_mask(32, 16, seed=seed, kind="gaussian", centre_share=0.0)[0] for seed in range(1000)])
    assert masks[:, 0].all() and (masks.sum(axis=1) == 2).all()
    frequency = np.fft.fftfreq(32, 1 / 32)[1:]
    law = np.exp(-(frequency**2) / (2 * (16 / 3) ** 2))
    expected = (law * frequency**2).sum() / law.sum()
    assert abs((masks[:, 1:] @ frequency**2).mean() - expected) < 0.15 * expected


def test_sensitivities_differ_and_sum_to_one():
    coils = coil_sensitivities(16, 4)
    np.testing.assert_allclose((np.abs(coils) ** 2).sum(axis=0), 1, rtol=1e-5)
    assert len({int(np.abs(one).argmax()) for one in coils}) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OPERATORS["mask"](jnp.zeros((8, 7))), r"images must end in the axes \(8, 8\), got shape \(8, 7\)"),
        (lambda: OPERATORS["coils"](jnp.zeros((8, 8), jnp.complex64)), "images must be real for this operator"),
        (
            lambda: OPERATORS["tomography"].adjoint(jnp.zeros((2, 5, 4))),
            r"measurements must end in the axes \(5, 13\), got shape \(2, 5, 4\)",
        ),
        (lambda: OPERATORS["mask"].adjoint(jnp.zeros((8, 8), jnp.complex64)), "measurements must be real"),
        (lambda: CartesianMRI(MASK, COILS[:, :4]), "sensitivities must have the mask's shape"),
        (lambda: ParallelBeamCT(4, np.zeros(0)), "the number of angles, pixel and spacing must be positive, got 4, 0"),
        (lambda: ParallelBeamCT(4, np.zeros(1), pixel=-1.0), "must be positive"),
        (lambda: ParallelBeamCT(4, np.zeros(1), n_detectors=0), "n_detectors must be at least 1"),
        (lambda: ParallelBeamCT(2000, np.zeros(180)), "at most 268435456 entries"),
        (lambda: Blur(jnp.ones((2, 3)), (8, 8)), r"kernel must have odd sides of at most \(8, 8\), got \(2, 3\)"),
        (lambda: Blur(jnp.ones((3, 9)), (8, 8)), "kernel must have odd sides"),
        (lambda: SuperResolution((8, 8), 3), r"factor must divide both sides of \(8, 8\), got 3"),
        (lambda: cartesian_mask(8, 9, seed=0), "acceleration must lie between 1 and the side, 8, got 9"),
        (lambda: cartesian_mask(8, 2, seed=0, centre_share=1.5), r"centre_share must lie in \[0, 1\], got 1\.5"),
        (lambda: coil_sensitivities(8, 0), "must be positive, got 8, 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
