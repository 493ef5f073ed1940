import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import PeriodicGrid
from gradatim.physics.electrolyte import DrivenElectrolyte, FluctuationSampler, MultispeciesElectrolyte

GRID = PeriodicGrid((12, 10), (12.0, 10.0))
N_SAMPLES = 400
pytestmark = pytest.mark.usefixtures("double")


@eqx.filter_jit
def _sampler(electrolyte, dt):
    return FluctuationSampler(electrolyte, GRID, dt)


def sampler(electrolyte, dt):
    # Numbers as arrays: other values of them compile nothing again.
    return _sampler(jax.tree.map(jnp.asarray, electrolyte), jnp.asarray(dt))


@eqx.filter_jit
def structure_factors(sampler, keys):
    """Means over independent chains of ⟨uᵢ uⱼ*⟩ V after one step."""
    spectra = jax.vmap(lambda key: sampler(sampler.initial(key)).spectra)(keys) * (sampler.grid.volume**0.5 / sampler.grid.n_cells)
    return jnp.einsum("si...,sj...->ij...", spectra, spectra.conj()) / keys.shape[0]


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(5), N_SAMPLES)


def electrolyte(field):
    return DrivenElectrolyte(1.0, field, diffusivity=0.8, mean_density=1.5, dim=2)


@pytest.mark.parametrize("field", [0.0, 2.0])
def test_samples_have_the_theorys_structure_factors(field, keys):
    found = np.asarray(structure_factors(sampler(electrolyte(field), 200.0), keys)) / 3.0
    exact = jax.tree.map(np.asarray, jax.jit(lambda: electrolyte(field).structure_factor(GRID.wavevectors()))())
    keep = np.array(GRID.squared_wavenumber() > 0)
    # The Nyquist row feels no field, as a real field cannot.
    keep[6] = field == 0
    density, charge = (np.where(keep, part, 1) for part in (exact.density, exact.charge))
    # Real modes scatter as √(2/n), the others less.
    bound = 5 * np.sqrt(2 / N_SAMPLES)
    assert np.abs(found[0, 0].real / density - 1)[keep].max() < bound
    assert np.abs(found[1, 1].real / charge - 1)[keep].max() < bound
    assert np.abs((found[0, 1].imag - exact.cross) / np.sqrt(density * charge))[keep].max() < bound
    assert abs((found[0, 0].real / density)[keep].mean() - 1) < 5 / np.sqrt(N_SAMPLES * keep.sum())


def test_variance_of_the_noise_of_one_short_step_is_that_of_each_mode_and_axis(keys):
    dt = 1e-4
    found = np.asarray(structure_factors(sampler(electrolyte(2.0), dt), keys)).real
    added = 4 * 0.8 * 1.5 * dt * np.asarray(GRID.squared_wavenumber())
    for axis in (slice(1, None), 0), (0, slice(1, None)):
        for part in (0, 1):
            ratio = found[part, part][axis] / added[axis]
            assert abs(ratio.mean() - 1) < 5 * np.sqrt(2 / (N_SAMPLES * ratio.size))
    assert (found[:, :, 0, 0] == 0).all()


def test_steps_of_any_length_make_the_same_distribution():
    steps = [sampler(electrolyte(2.0), dt) for dt in (0.7, 0.35)]
    matrix = lambda s: np.moveaxis(np.asarray(s), (0, 1), (-2, -1))  # noqa: E731
    (p, r), (half, root) = ((matrix(s.propagator), matrix(s.root)) for s in steps)
    adjoint = lambda m: np.swapaxes(m, -1, -2).conj()  # noqa: E731
    assert np.abs(half @ half - p).max() < 1e-13
    twice = root @ adjoint(root) + half @ root @ adjoint(root) @ adjoint(half)
    assert np.allclose(twice, r @ adjoint(r), rtol=1e-11, atol=1e-12)


def test_numbers_are_conserved_over_long_runs(getkey):
    short = sampler(electrolyte(2.0), 0.3)

    @eqx.filter_jit
    def run(short, key):
        state = jax.lax.fori_loop(0, 3000, lambda _, s: short(s), short.initial(key))
        fields = short.fields(state)
        return state.spectra, fields, GRID.forward(fields)

    spectra, fields, back = map(np.asarray, run(short, getkey()))
    assert (spectra[:, 0, 0] == 0).all() and np.abs(fields.sum((1, 2))).max() < 1e-12 * np.abs(fields).sum()
    # Fields are real: going to space and back loses nothing.
    assert np.abs(back - spectra).max() < 1e-12 * np.abs(spectra).max()


def test_a_real_field_knows_no_drift_at_the_nyquist_mode_of_the_axis_of_the_field():
    turned = sampler(DrivenElectrolyte(1.0, 2.0, dim=2, axis=1), 0.3)
    swing = np.asarray(turned.propagator)[0, 1].imag
    assert not swing[:, 0].any() and not swing[:, 5].any() and (swing[:, 1:5] != 0).all()


def test_any_mixture_can_be_sampled(keys):
    salt = MultispeciesElectrolyte(jnp.array([2.0, -1.0]), jnp.array([1.0, 2.0]), jnp.array([0.5, 2.0]), field=1.0, dim=2)
    found = np.asarray(structure_factors(sampler(salt, 300.0), keys))
    exact = np.moveaxis(np.asarray(jax.jit(lambda: salt.structure_factor(GRID.wavevectors()))()), (-2, -1), (0, 1))
    keep = np.array(GRID.squared_wavenumber() > 0)
    keep[6] = False
    for i in (0, 1):
        assert abs((found[i, i] / np.where(keep, exact[i, i], 1)).real[keep].mean() - 1) < 5 / np.sqrt(N_SAMPLES * keep.sum())


def test_vmap_over_fields_and_derivatives(getkey):
    key = getkey()

    def end(field):
        return jnp.sum(FluctuationSampler(electrolyte(field), GRID, 0.5)(state0).spectra.real ** 2)

    state0 = sampler(electrolyte(1.0), 0.5).initial(key)
    batch = np.asarray(jax.jit(jax.vmap(end))(np.array([1.0, 2.0])))
    both = jax.jit(jax.value_and_grad(end))  # the value of its gradient's program: one compilation less
    assert np.isclose(batch[1], both(2.0)[0])
    difference = (both(2.0 + 1e-5)[0] - both(2.0 - 1e-5)[0]) / 2e-5
    assert np.isclose(both(2.0)[1], difference, rtol=1e-6) and abs(difference) > 1e-6


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="dt must be positive and finite, got 0"):
        FluctuationSampler(electrolyte(1.0), GRID, 0.0)
    with pytest.raises(ValueError, match="grid must have the electrolyte's 2 dimensions, got 1"):
        FluctuationSampler(electrolyte(1.0), PeriodicGrid((8,), 1.0), 0.1)
