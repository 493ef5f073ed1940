import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.transport import (
    AbstractConsistency,
    AcrossSlices,
    Denoised,
    Denoiser,
    Forward,
    Inpainting,
    Krylov,
    MixturePrior,
    NoiseLevel,
    NoiseLevels,
    Proximal,
    dds_sample,
    dps_sample,
    misfit_gradient,
    next_noisy,
    predictor_corrector_sample,
    variance_exploding_levels,
    variance_preserving_levels,
)

SIDE = 4
N = SIDE * SIDE
STANDARD_NORMAL = Denoiser(lambda level, x: level.m * x, "noise")
ONE_PIXEL = Inpainting(jnp.ones((1, 1), bool))
KEY = jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def _in_double():
    with jax.enable_x64(True):
        yield


@eqx.filter_jit
def sample(denoiser, levels, operator, y, x, key, consistency, eta, is_last_noise_free=False, noise_rule="split"):
    return dds_sample(
        denoiser, levels, operator, y, x, key=key, consistency=consistency, eta=eta, is_last_noise_free=is_last_noise_free,
        noise_rule=noise_rule, dispatch="scan",
    )  # fmt: skip


def scalar(n_steps, gamma=None, **how):
    """One number with a standard normal prior, from 1, seen at 2 with weight γ if there is one, without fresh noise."""
    levels = variance_preserving_levels(n_steps)
    x = jnp.ones((1, 1))
    if gamma is None:
        return dds_sample(STANDARD_NORMAL, levels, None, None, x, key=KEY, consistency=None, eta=0.0, **how).x[0, 0]
    seen = {"operator": ONE_PIXEL, "y": jnp.full((1, 1), 2.0), "consistency": Proximal(gamma, n_steps=1)}
    return dds_sample(STANDARD_NORMAL, levels, x=x, key=KEY, eta=0.0, **seen, **how).x[0, 0]


def test_oracle_5_the_recursion_of_a_standard_normal_number():
    np.testing.assert_allclose([scalar(n) for n in (50, 100, 1000)], [0.9640793, 0.9818508, 0.9981243], atol=1e-7)
    np.testing.assert_allclose(scalar(50, is_last_noise_free=True), 0.9633625, atol=1e-7)


def test_oracle_5_with_data_it_goes_to_them_and_not_to_the_posterior():
    # The posterior's mean is 1 for unit noise: what comes out is no sample of it.
    found = [scalar(50, gamma) for gamma in (1.0, 0.1, 10.0)]
    np.testing.assert_allclose(found, [2.0115300, 2.0694282, 2.0002295], atol=1e-7)
    np.testing.assert_allclose(scalar(50, 1.0, is_last_noise_free=True), 2.0107695, atol=1e-7)


@pytest.fixture(scope="module")
def normal():
    """A normal prior over small images, a matrix that sees six numbers of them, and what they are."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(N, N)))[0]
    variances, mean, matrix = random.uniform(0.1, 2, N), random.normal(size=N), random.normal(size=(6, N))
    parts = (np.ones(1), mean.reshape(1, SIDE, SIDE), axes.T.reshape(1, N, SIDE, SIDE), variances[None], 0.0)
    prior = MixturePrior(*(jax.device_put(part) for part in parts))
    known = jnp.asarray(matrix)
    operator = Forward(lambda image: known @ image.ravel(), (SIDE, SIDE))
    x, y = jax.device_put(random.normal(size=(2, SIDE, SIDE))), jax.device_put(random.normal(size=(2, 6)))
    return Denoiser(prior, "image"), (axes * variances) @ axes.T, mean, matrix, operator, x, y


def by_matrices(normal, levels, gamma, eta, key):
    """The sampler with dense matrices."""
    _, covariance, mean, matrix, _, x, y = normal
    x, y, after = np.asarray(x).reshape(2, N), np.asarray(y), levels.after()
    fit = np.linalg.inv(np.eye(N) + gamma * matrix.T @ matrix)
    for i in range(len(levels)):
        a, m, a_next, m_next = (float(part[i]) for part in (levels.levels.a, levels.levels.m, after.a, after.m))
        image = mean + (x - a * mean) @ (a * covariance @ np.linalg.inv(a**2 * covariance + m**2 * np.eye(N))).T
        noise = (x - a * image) / m
        image = (image + gamma * y @ matrix) @ fit
        fresh = np.asarray(jax.random.normal(jax.random.fold_in(key, i), (2 * N,))).reshape(2, N)
        x = a_next * image + m_next * (eta * fresh + np.sqrt(1 - eta**2) * noise)
    return x


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_oracle_6_with_a_normal_prior_all_is_affine(normal, eta):
    denoiser, *_, operator, x, y = normal
    levels = variance_preserving_levels(20)
    found = sample(denoiser, levels, operator, y, x, KEY, Proximal(0.3, n_steps=N + 4), eta)
    np.testing.assert_allclose(found.x.reshape(2, N), by_matrices(normal, levels, 0.3, eta, KEY), atol=1e-4)
    assert found.misfits.shape == (20, 2)


def test_oracle_4_gamma_to_zero_samples_without_data_and_to_infinity_fits_them(normal):
    denoiser, *_, operator, x, y = normal
    levels = variance_preserving_levels(20)
    without = dds_sample(denoiser, levels, None, None, x, key=KEY, consistency=None, eta=0.5, dispatch="scan").x
    np.testing.assert_allclose(sample(denoiser, levels, operator, y, x, KEY, Proximal(1e-12, n_steps=N + 4), 0.5).x, without, atol=1e-6)
    exact = sample(denoiser, levels, operator, y, x, KEY, Krylov(N), 0.5)
    nearly = sample(denoiser, levels, operator, y, x, KEY, Proximal(1e6, n_steps=N + 4), 0.5)
    np.testing.assert_allclose(nearly.x, exact.x, atol=1e-3)
    assert exact.misfits[-1].max() < 1e-4 < without.std()


def test_oracle_8_without_fresh_noise_the_start_decides_and_with_it_alone_the_key(normal):
    denoiser, *_, operator, x, y = normal
    levels = variance_preserving_levels(20)

    def end(eta, key, x=x):
        return np.asarray(sample(denoiser, levels, operator, y, x, key, Proximal(0.3, n_steps=N + 4), eta).x)

    other = jax.random.key(1)
    np.testing.assert_array_equal(end(0.0, KEY), end(0.0, other))
    assert np.abs(end(1.0, KEY) - end(1.0, other)).max() > 1e-2
    # The network's noise is not used, for which its sign is taken as a witness.
    level, following = (NoiseLevel(*(part[i] for part in levels.levels)) for i in (5, 6))
    moved = [next_noisy(Denoised(x, noise), level, following, KEY, jnp.ones(())) for noise in (x, -x)]
    np.testing.assert_array_equal(*moved)


@given(st.floats(0, 1), st.integers(0, 18))
def test_oracle_8_noise_has_the_variance_of_the_next_level(eta, i):
    levels = variance_preserving_levels(20).levels
    level, following = (NoiseLevel(*(part[j] for part in levels)) for j in (i, i + 1))
    fresh = jax.random.normal(KEY, (N,)).reshape(SIDE, SIDE)
    for rule in ("split", "ddim"):
        moved = _moved(jnp.asarray(eta), level, following, rule)
        # Of unit vectors in place of both noises, the sum of squares.
        shares = np.asarray([moved[0].ravel() @ fresh.ravel() / (fresh.ravel() @ fresh.ravel()), moved[1][0, 0]])
        np.testing.assert_allclose((shares**2).sum(), following.m**2, rtol=1e-10)


@functools.partial(jax.jit, static_argnames="rule")
def _moved(eta, level, following, rule):
    """The fresh part alone, and that of a noise of ones, without its fresh part."""
    zero, one = jnp.zeros((SIDE, SIDE)), jnp.ones((SIDE, SIDE))
    fresh = next_noisy(Denoised(zero, zero), level, following, KEY, eta, rule)
    return fresh, next_noisy(Denoised(zero, one), level, following, KEY, eta, rule) - fresh


def test_the_exact_step_is_that_of_denoising_diffusion_models(normal):
    # ẑ is then the noise of N(0, 1) data: its posterior step has variance (1 - ā′) (1 - ā/ā′) / (1 - ā).
    levels = variance_preserving_levels(20).levels
    level, following = (NoiseLevel(*(part[j] for part in levels)) for j in (3, 4))
    fresh, _ = _moved(jnp.ones(()), level, following, "ddim")
    drawn = jax.random.normal(KEY, (N,)).reshape(SIDE, SIDE)
    ratio = level.a**2 / following.a**2
    np.testing.assert_allclose((fresh / drawn) ** 2, jnp.full_like(fresh, following.m**2 * (1 - ratio) / level.m**2), rtol=1e-10)


def test_steps_one_by_one_are_a_scan(normal):
    denoiser, *_, operator, x, y = normal
    how = {"key": KEY, "consistency": Krylov(3), "eta": 0.85, "noise_rule": "ddim"}
    levels = variance_preserving_levels(4)
    one_by_one = dds_sample(denoiser, levels, operator, y, x, **how)
    whole = sample(denoiser, levels, operator, y, x, KEY, Krylov(3), 0.85, noise_rule="ddim")
    np.testing.assert_allclose(one_by_one.x, whole.x, rtol=1e-9)
    np.testing.assert_allclose(one_by_one.misfits, whole.misfits, rtol=1e-7, atol=1e-9)


def test_an_exploding_diffusion_is_the_preserving_one_seen_larger(normal):
    # The same ratios of noise to image: x of the one is a times that of the other.
    denoiser, *_, operator, x, y = normal
    preserving = variance_preserving_levels(20)
    sigma = preserving.levels.m / preserving.levels.a
    exploding = variance_exploding_levels(20)
    exploding = jax.tree.unflatten(jax.tree.structure(exploding), [jnp.ones_like(sigma), sigma, sigma])
    found = [
        sample(denoiser, levels, operator, y, start, KEY, Proximal(0.3, n_steps=N + 4), 0.85).x
        for levels, start in ((preserving, x), (exploding, x / preserving.levels.a[0]))
    ]
    np.testing.assert_allclose(*found, atol=1e-4)


def test_volumes_remember_their_slices():
    levels = variance_preserving_levels(10)
    x = jax.device_put(np.random.default_rng(1).normal(size=(5, SIDE, SIDE)))
    operator = Inpainting(jax.device_put(np.eye(SIDE, dtype=bool)))
    y = operator(jnp.ones((5, SIDE, SIDE)))
    found = sample(STANDARD_NORMAL, levels, operator, y, x, KEY, AcrossSlices(1.0, 0.5), 0.5)
    alone = sample(STANDARD_NORMAL, levels, operator, y, x, KEY, Krylov(5), 0.5)
    assert np.abs(jnp.diff(found.x, axis=0)).mean() < 0.5 * np.abs(jnp.diff(alone.x, axis=0)).mean()


class Counting(AbstractConsistency):
    """Images that say how often they were asked for before."""

    def init(self, x):
        return jnp.zeros(())

    def __call__(self, operator, y, x, state):
        return jnp.full_like(x, state), state + 1


@pytest.mark.parametrize("dispatch", ["step", "scan"])
def test_what_is_remembered_goes_from_level_to_level(dispatch):
    x = jnp.ones((1, 1))
    levels = variance_preserving_levels(4)
    found = dds_sample(STANDARD_NORMAL, levels, ONE_PIXEL, 2 * x, x, key=KEY, consistency=Counting(), eta=0.5, dispatch=dispatch)
    np.testing.assert_array_equal(found.x, [[3]])
    np.testing.assert_allclose(found.misfits, [1, 0.5, 0, 0.5])


def test_complex_images_are_reconstructed():
    x = jax.device_put(np.random.default_rng(2).normal(size=(2, SIDE, SIDE)) + 0j)
    operator = Inpainting(jnp.ones((SIDE, SIDE), bool), has_complex_images=True)
    y = x * (2 + 1j)
    found = sample(STANDARD_NORMAL, variance_preserving_levels(10), operator, y, x, KEY, Krylov(1), 0.85)
    np.testing.assert_allclose(found.x, y, atol=1e-8)


def test_back_propagation_without_a_step_is_ancestral_sampling(normal):
    denoiser, *_, operator, x, y = normal
    levels = variance_preserving_levels(10)
    found = jax.jit(lambda step: dps_sample(denoiser, levels, operator, y, x, key=KEY, step_size=step, dispatch="scan").x)
    free = dds_sample(denoiser, levels, None, None, x, key=KEY, consistency=None, eta=1.0, noise_rule="ddim", dispatch="scan").x
    np.testing.assert_allclose(found(jnp.zeros(2)), free, atol=1e-9)
    # With one it comes nearer to the data; each image has its own.
    one = found(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(one[0], free[0], atol=1e-9)
    gap = jax.jit(lambda u: jnp.linalg.norm(operator(u[1]) - y[1]))
    gaps = [float(gap(u)) for u in (free, one)]
    assert gaps[1] < 0.5 * gaps[0]


def in_two_numbers(image):
    """A complex image as a real one, twice as high."""
    return jnp.concatenate([image.real, image.imag], axis=-2)


WHOLE_COMPLEX = Inpainting(jnp.ones((SIDE, SIDE), bool), has_complex_images=True)


def test_the_misfit_of_complex_images_grows_along_its_gradient():
    level = NoiseLevel(jnp.array(1.0), jnp.array(0.5), jnp.array(0.0))
    one = Inpainting(jnp.ones((1, 1), bool), has_complex_images=True)
    y = jnp.array([[3 + 4j]])
    gradient, found = misfit_gradient(Denoiser(lambda level, x: x, "image"), one, y, level, 0 * y)
    np.testing.assert_allclose(gradient, [[-0.6 - 0.8j]], atol=1e-12)
    np.testing.assert_array_equal(found.image, 0 * y)


def test_back_propagation_takes_a_complex_image_as_two_real_ones():
    random = np.random.default_rng(4)
    x, y = (jax.device_put(random.normal(size=(2, SIDE, SIDE)) + 1j * random.normal(size=(2, SIDE, SIDE))) for _ in range(2))
    level = NoiseLevel(jnp.array(0.8), jnp.array(0.6), jnp.array(0.0))
    both = Inpainting(jnp.ones((2 * SIDE, SIDE), bool))
    gradient = jax.jit(lambda x: misfit_gradient(STANDARD_NORMAL, WHOLE_COMPLEX, y, level, x)[0])(x)
    as_real = jax.jit(lambda x: misfit_gradient(STANDARD_NORMAL, both, in_two_numbers(y), level, x)[0])(in_two_numbers(x))
    np.testing.assert_allclose(in_two_numbers(gradient), as_real, rtol=1e-9)
    levels = variance_preserving_levels(10)
    ends = jax.jit(lambda step: dps_sample(STANDARD_NORMAL, levels, WHOLE_COMPLEX, y, x, key=KEY, step_size=step, dispatch="scan").x)
    free, fitted = (np.linalg.norm(np.asarray(ends(step)) - y) for step in (0.0, 1.0))
    assert fitted < 0.5 * free


def test_predictor_and_corrector_reconstruct_complex_images():
    seen = jax.device_put(np.arange(N).reshape(SIDE, SIDE) % 2 == 0)
    operator, levels = Inpainting(seen, has_complex_images=True), variance_exploding_levels(100, sigma_max=20.0)
    unit = Denoiser(lambda level, x: -x / (1 + level.m**2), "score")
    random = np.random.default_rng(3).normal(size=(2, 100, SIDE, SIDE))
    x = 20.0 * jax.device_put(random[0] + 1j * random[1])
    y = operator(jnp.full((100, SIDE, SIDE), 2 - 1j))
    found = np.asarray(jax.jit(lambda x: predictor_corrector_sample(unit, levels, operator, y, x, key=KEY, dispatch="scan").x)(x))
    is_seen = np.asarray(seen)
    np.testing.assert_allclose(found[:, is_seen], 2 - 1j, atol=1e-6)
    # Real and imaginary part each of variance one.
    for part in (found.real, found.imag):
        assert abs(part[:, ~is_seen].std() - 1) < 0.15 and abs(part[:, ~is_seen].mean()) < 0.1


def test_predictor_and_corrector_take_the_steps_that_are_written_down():
    seen = np.arange(N).reshape(SIDE, SIDE) % 2 == 0
    sigma, ratio, data_step = np.array([3.0, 0.5]), 0.3, 0.7
    levels = NoiseLevels(jnp.ones(2), jax.device_put(sigma), jnp.zeros(2))
    unit = Denoiser(lambda level, x: -x / (1 + level.m**2), "score")
    # Two images of different sizes: each has a Langevin step of its own.
    x = np.random.default_rng(5).normal(size=(2, SIDE, SIDE)) * np.array([1.0, 50.0])[:, None, None]
    y = np.where(seen, 2.0, 0.0)[None] * np.ones((2, 1, 1))
    found = predictor_corrector_sample(
        unit, levels, Inpainting(jax.device_put(seen)), jax.device_put(y), jax.device_put(x), key=KEY, data_step=data_step,
        signal_to_noise=ratio, dispatch="scan",
    )  # fmt: skip
    for i, (m, after) in enumerate(((3.0, 0.5), (0.5, 0.0))):
        first, second = np.asarray(jax.random.normal(jax.random.fold_in(KEY, i), (4 * N,))).reshape(2, 2, SIDE, SIDE)
        score = -x / (1 + m**2)
        epsilon = 2 * (ratio * np.linalg.norm(first, axis=(1, 2)) / np.linalg.norm(score, axis=(1, 2)))[:, None, None] ** 2
        x = x + epsilon * score + np.sqrt(2 * epsilon) * first
        x = x + data_step * seen * (y - x)
        x = x - (m**2 - after**2) * x / (1 + m**2) + np.sqrt(m**2 - after**2) * second
        x = x + data_step * seen * (y - x)
    np.testing.assert_allclose(found.x, x, rtol=1e-9)


def test_predictor_and_corrector_find_the_data_and_the_prior():
    # Half of the pixels seen; the others are standard normal, with a variance that the Langevin steps nearly keep.
    seen = jax.device_put(np.arange(N).reshape(SIDE, SIDE) % 2 == 0)
    operator, levels = Inpainting(seen), variance_exploding_levels(100, sigma_max=20.0)
    unit = Denoiser(lambda level, x: -x / (1 + level.m**2), "score")
    x = 20.0 * jax.device_put(np.random.default_rng(3).normal(size=(200, SIDE, SIDE)))
    y = operator(jnp.full((200, SIDE, SIDE), 2.0))
    found = jax.jit(lambda x: predictor_corrector_sample(unit, levels, operator, y, x, key=KEY, dispatch="scan").x)(x)
    found, is_seen = np.asarray(found), np.asarray(seen)
    np.testing.assert_allclose(found[:, is_seen], 2, atol=1e-6)
    assert abs(found[:, ~is_seen].std() - 1) < 0.15 and abs(found[:, ~is_seen].mean()) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 1.5}, r"eta must lie in \[0, 1\], got 1\.5"),
        ({"eta": -0.1}, r"eta must lie in \[0, 1\], got -0\.1"),
        ({"consistency": None}, "operator, y and consistency must be given together"),
        ({"y": jnp.zeros((2, 5))}, r"y must have shape \(2, 6\) for images of shape \(2, 4, 4\), got \(2, 5\)"),
        ({"levels": variance_preserving_levels(1), "is_last_noise_free": True}, "is_last_noise_free needs two levels at least, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(normal, change, message):
    denoiser, *_, operator, x, y = normal
    given_ = {"levels": variance_preserving_levels(4), "y": y, "key": KEY, "consistency": Krylov(), **change}
    with pytest.raises(ValueError, match=message):
        dds_sample(denoiser, given_.pop("levels"), operator, given_.pop("y"), x, **given_)


def test_older_samplers_refuse_too(normal):
    denoiser, *_, operator, x, y = normal
    levels = variance_preserving_levels(4)
    with pytest.raises(ValueError, match="levels must have a = 1"):
        predictor_corrector_sample(denoiser, levels, operator, y, x, key=KEY)
    with pytest.raises(ValueError, match=r"step_size must be at least 0, got -1\.0"):
        dps_sample(denoiser, levels, operator, y, x, key=KEY, step_size=-1.0)
    with pytest.raises(ValueError, match=r"y must have shape \(2, 6\)"):
        dps_sample(denoiser, levels, operator, y[:1], x, key=KEY, step_size=1.0)
    with pytest.raises(ValueError, match="data_step and signal_to_noise must be positive, got 0"):
        predictor_corrector_sample(denoiser, variance_exploding_levels(4), operator, y, x, key=KEY, data_step=0.0)
