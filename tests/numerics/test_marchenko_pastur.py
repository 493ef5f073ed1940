import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from gradatim.numerics import MarchenkoPastur

ALPHAS = np.array([0.25, 0.7, 1.0, 1.3, 4.0])
SHARES = np.array([0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
SHIFTS = np.array([1e-4, 0.3, 10.0])
POINTS = np.linspace(-0.5, 10, 200)
QUADRATURE = 1e-12
"What the midpoint rule leaves of a smooth function."


@jax.jit
@jax.vmap
def facts(alpha):
    law = MarchenkoPastur(alpha)
    nodes, weights = law.quadrature()
    return {
        "mass": weights.sum() + law.zero_mass,
        "moments": law.expect(lambda x: jnp.stack([x, x**2]), jnp.zeros(2)),
        "root": law.expect(jnp.sqrt, 0.0),
        "slope": jax.grad(lambda a: MarchenkoPastur(a).expect(jnp.log1p, 0.0))(alpha),
        "entropy": jax.vmap(lambda a: MarchenkoPastur(a).expect(jnp.log1p, 0.0))(alpha + jnp.array([-1e-5, 1e-5])),
        "resolvent": law.expect(lambda x: 1 / (x[None] + SHIFTS[:, None]), 1 / jnp.asarray(SHIFTS)),
        "stieltjes": jax.vmap(law.stieltjes)(jnp.asarray(SHIFTS)),
        "inverse": weights @ (1 / nodes),
        "inverse_mean": law.inverse_mean(),
        "support": jnp.stack(law.support),
        "zero_mass": law.zero_mass,
        "pdf": law.pdf(jnp.asarray(POINTS)),
        "cdf": law.cdf(jnp.asarray(POINTS)),
        "quantiles": law.quantile(jnp.asarray(SHARES)),
        "dual_pdf": MarchenkoPastur(1 / alpha).pdf(jnp.asarray(POINTS) / alpha),
        "pdf_slope": jax.grad(lambda x: law.pdf(x))(jnp.asarray(POINTS[-1])),
    }


@pytest.fixture(scope="module")
def law():
    with jax.enable_x64(True):
        return jax.device_get(facts(jnp.asarray(ALPHAS)))


def test_t4_mass_and_moments_to_twelve_digits_at_one_too(law):
    assert np.allclose(law["mass"], 1, atol=QUADRATURE)
    assert np.allclose(law["moments"], np.stack([ALPHAS, ALPHAS + ALPHAS**2], axis=1), rtol=QUADRATURE)
    # ∫ s √(4 - s²)/π ds over [0, 2]: no smooth function of λ, so the rule is of second order.
    assert np.isclose(law["root"][2], 8 / (3 * np.pi), rtol=1e-6)


def test_t1_alpha_is_samples_over_parameters(law):
    assert np.allclose(law["zero_mass"], [0.75, 0.3, 0, 0, 0])


def test_resolvent_is_the_root_of_its_quadratic(law):
    assert np.allclose(law["resolvent"], law["stieltjes"], rtol=1e-10)
    m, g, a = law["stieltjes"], SHIFTS[None], ALPHAS[:, None]
    assert np.allclose(g * m**2 + (g + a - 1) * m, 1, rtol=1e-12)


def test_mean_of_the_inverse(law):
    assert np.allclose(np.delete(law["inverse"], 2), np.delete(law["inverse_mean"], 2), rtol=1e-10) and np.isinf(law["inverse_mean"][2])


def test_density_integrates_to_the_closed_distribution(law):
    for i, alpha in enumerate(ALPHAS):
        low, high = law["support"][i]

        def density(x, alpha=alpha, low=low, high=high):
            return np.sqrt(max((high - x) * (x - low), 0)) / (2 * np.pi * x)

        for point in (40, 60, 120):
            end = np.clip(POINTS[point], low, high)
            below = integrate.quad(density, low, end, limit=200)[0] + law["zero_mass"][i]
            assert np.isclose(below, law["cdf"][i, point], atol=1e-7)
        inside = (low < POINTS) & (high > POINTS)
        assert np.allclose(law["pdf"][i][inside], [density(x) for x in POINTS[inside]])
        assert not law["pdf"][i][~inside].any() and law["pdf_slope"][i] == 0


def test_duality_of_both_gram_matrices(law):
    assert np.allclose(law["pdf"], law["dual_pdf"], rtol=1e-9)


def test_derivative_in_alpha(law):
    differences = np.diff(law["entropy"], axis=1)[:, 0] / 2e-5
    assert np.allclose(np.delete(law["slope"], 2), np.delete(differences, 2), rtol=1e-6)


def test_eigenvalues_of_a_draw_follow_the_law(law):
    n = 400
    for i, alpha in enumerate(ALPHAS):
        inputs = np.random.default_rng(i).normal(size=(round(alpha * n), n)) / np.sqrt(n)
        values = np.linalg.eigvalsh(inputs.T @ inputs)
        seen = np.mean(values[:, None] <= POINTS[None] + 1e-9, axis=0)
        assert np.abs(seen - law["cdf"][i]).max() < 0.01


def test_quantiles_at_the_ends(law):
    assert np.allclose(law["quantiles"][:, -1], law["support"][:, 1], rtol=1e-8)
    assert np.allclose(law["quantiles"][3:, 0], law["support"][3:, 0], rtol=1e-6) and (law["quantiles"][:3, 0] < 1e-30).all()
    assert not law["quantiles"][0, :3].any() and (np.diff(law["quantiles"], axis=1) >= 0).all()


@jax.jit
def there_and_back(alpha, share):
    law = MarchenkoPastur(alpha)
    return law.cdf(law.quantile(share)), law.zero_mass


@given(st.floats(0.01, 100), st.floats(0, 1))
def test_quantile_inverts_the_distribution(alpha, share):
    with jax.enable_x64(True):
        back, zero_mass = map(float, there_and_back(alpha, share))
    assert abs(back - max(share, zero_mass)) < 1e-9


def test_the_other_convention_is_this_one_over_alpha(law):
    # N rows of M entries of variance 1, over N: γ = M/N = 1/α.
    rows = np.random.default_rng(0).normal(size=(900, 225))
    values = np.linalg.svd(rows / np.sqrt(900), compute_uv=False) ** 2
    assert np.isclose(np.median(values), law["quantiles"][4, 2] / 4, rtol=0.03)
    for i, alpha in enumerate(ALPHAS):
        assert np.allclose(law["support"][i] / alpha, [(1 - alpha**-0.5) ** 2, (1 + alpha**-0.5) ** 2])


def test_bad_numbers_are_refused():
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="samples over parameters, must be positive, got"):
            MarchenkoPastur(alpha)
    law = MarchenkoPastur(1.0)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        law.quantile(1.5)
    with pytest.raises(ValueError, match="shift must be at least 0, got -1"):
        law.stieltjes(-1.0)
    with pytest.raises(ValueError, match="n_nodes must be at least 1, got 0"):
        law.quadrature(n_nodes=0)


@pytest.mark.parametrize(("n", "p"), [(400, 100), (200, 300)])
def test_a_sample_follows_the_law(double, n, p):
    law = MarchenkoPastur(p / n)
    found = np.asarray(law.sample(jax.random.key(0), n, p))
    assert found.shape == (n,) and (np.diff(found) >= 0).all() and (found == 0).sum() == max(n - p, 0)
    # Eigenvalues repel each other: the distance from the law falls as 1/n.
    ranks = (np.arange(n) + 0.5) / n
    positive = found > 0
    assert np.abs(np.asarray(law.cdf(jnp.asarray(found)))[positive] - ranks[positive]).max() < 5 / n


@pytest.mark.parametrize(("n", "p", "message"), [(100, 0, "n and p must be at least 1"), (100, 52, r"p/n must be alpha, 0\.5, got 52/100")])
def test_draws_of_another_ratio_are_refused(n, p, message):
    with pytest.raises(ValueError, match=message):
        MarchenkoPastur(0.5).sample(jax.random.key(0), n, p)


def test_the_density_has_no_bound_at_zero_as_many_samples_as_parameters():
    law = MarchenkoPastur(1.0)
    assert law.pdf(0.0) == jnp.inf and law.pdf(4.0) == 0
    assert MarchenkoPastur(2.0).pdf(0.0) == 0 and MarchenkoPastur(0.5).pdf(0.0) == 0


@pytest.mark.parametrize(("alpha", "limit"), [(3.0, 0.5), (1.0, np.inf), (0.5, np.inf)])
def test_without_a_shift_the_resolvent_is_the_mean_of_the_inverse(alpha, limit):
    assert np.isclose(MarchenkoPastur(alpha).stieltjes(0.0), limit)
