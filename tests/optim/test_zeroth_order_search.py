"""Random search: the (1+1) evolution strategy with the one-fifth rule, and simulated annealing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.optim import one_plus_one, simulated_annealing

KEY = jax.random.key(13)
SIGMAS = 4.5  # of a standard error


def bowl(x, scale=1.0):
    return (x**2).sum() * scale


def path(search, start, *args, steps=200, key=KEY):
    """The states after every step."""

    @jax.jit
    def run(start, keys, *args):
        def step(state, key):
            state = search.step(state, *args, key=key)
            return state, state

        return jax.lax.scan(step, search.init(start, *args), keys)[1]

    return jax.tree.map(np.asarray, run(start, jax.random.split(key, steps), *args))


def test_one_in_five_trials_succeeds_and_the_loss_falls_by_a_constant_factor():
    """On the sphere: less than the 0.405/d a step that the best radius at each step would give (Rechenberg), and most of it."""
    d = 20
    states = path(one_plus_one(bowl, radius=10.0), jnp.ones(d), steps=2500)
    succeeded = np.diff(states.value[500:]) < 0
    assert abs(succeeded.mean() - 0.2) < 0.02
    rate = -(math.log(states.value[-1]) - math.log(states.value[500])) / 1999
    assert 0.22 / d < rate < 0.405 / d
    # Too long a radius at first, and then one in proportion to the distance.
    reach = states.radius[1000:] * d / np.sqrt(states.value[1000:])
    assert 0.5 < np.median(reach) < 2.5


def test_growing_transforms_of_the_loss_change_nothing():
    start = jnp.linspace(-1.0, 1.0, 4)
    plain, warped = (path(one_plus_one(f, radius=0.5), start) for f in (bowl, lambda x: 3 * bowl(x) - 7))
    # Each is a program of its own, which rounds in its own way.
    np.testing.assert_allclose(plain.params, warped.params, atol=1e-5)
    np.testing.assert_allclose(plain.radius, warped.radius, rtol=1e-5)


def test_scaling_unknowns_and_radius_scales_the_path():
    start = jnp.linspace(-1.0, 1.0, 4)
    plain, doubled = (path(one_plus_one(bowl, radius=0.5 * s), s * start) for s in (1.0, 2.0))
    np.testing.assert_array_equal(2 * plain.params, doubled.params)


def test_the_best_is_never_lost_and_nan_never_kept():
    def cliff(x):
        return jnp.where(x[0] > 0.5, jnp.nan, -x.sum())

    states = path(one_plus_one(cliff, radius=0.3), jnp.zeros(3))
    assert np.isfinite(states.value).all() and (np.diff(states.value) <= 0).all() and (states.params[:, 0] <= 0.5).all()
    # From where the loss is NaN, any number is better.
    assert np.isfinite(path(one_plus_one(cliff, radius=0.3), jnp.full(3, 0.55)).value[-1])


def test_another_success_rate_and_trees_of_half_precision():
    start = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(4)}
    states = path(one_plus_one(lambda p: bowl(p["a"].astype(jnp.float32)) + bowl(p["b"]), radius=0.1, success_rate=0.5), start)
    assert {name: leaf.dtype for name, leaf in states.params.items()} == {"a": jnp.bfloat16, "b": jnp.float32}
    kept = np.diff(states.value, prepend=10.0) < 0
    expected = 0.1 * np.exp(0.8 * np.cumsum(np.where(kept, 1.0, -1.0)))
    np.testing.assert_allclose(states.radius, expected, rtol=1e-4)


def test_the_radius_grows_as_it_is_told_to_and_losses_see_their_arguments():
    start, scale = jnp.ones(4), 3.0
    states = path(one_plus_one(bowl, radius=0.1, growth=0.3), start, scale, steps=20)
    kept = np.diff(states.value, prepend=12.0) < 0
    np.testing.assert_allclose(states.radius, 0.1 * np.exp(0.3 * np.cumsum(np.where(kept, 1.0, -0.25))), rtol=1e-4)
    np.testing.assert_allclose(states.value, scale * (states.params**2).sum(1), rtol=1e-5)
    annealed = path(simulated_annealing(bowl, radius=0.1, temperature=1.0), start, scale, steps=20)
    np.testing.assert_allclose(annealed.value, scale * (annealed.params**2).sum(1), rtol=1e-5)


def test_annealing_at_a_constant_temperature_is_a_boltzmann_law():
    """The variance of a coordinate in ½ x² is T, whatever the radius: Metropolis steps are reversible."""
    n, temperature = 4000, 0.5
    search = simulated_annealing(lambda x: x**2 / 2, radius=1.0, temperature=temperature)

    @jax.jit
    def last(keys):
        def walk(key):
            step = lambda state, key: (search.step(state, key=key), None)  # noqa: E731
            return jax.lax.scan(step, search.init(jnp.array(0.0)), jax.random.split(key, 100))[0]

        return jax.vmap(walk)(keys)

    states = jax.tree.map(np.asarray, last(jax.random.split(KEY, n)))
    assert abs(states.params.var() - temperature) < SIGMAS * math.sqrt(2 / n) * temperature
    assert abs(states.params.mean()) < SIGMAS * math.sqrt(temperature / n)
    assert (states.best_value <= states.value).all() and (states.count == 100).all()


def test_without_temperature_annealing_is_hill_climbing():
    states = path(simulated_annealing(bowl, radius=0.2, temperature=0.0), jnp.ones(3))
    assert (np.diff(states.value) <= 0).all() and states.value[-1] < 0.2
    np.testing.assert_array_equal(states.params, states.best_params)


def test_a_temperature_that_falls_freezes_the_walk_and_the_best_is_kept():
    search = simulated_annealing(bowl, radius=0.5, temperature=lambda n: jnp.where(n < 150, 10.0, 0.0))
    states = path(search, jnp.zeros(3))
    assert states.value[:150].max() > 1.0 and (np.diff(states.value[150:]) <= 0).all()
    assert (states.best_value == 0).all() and not states.best_params.any()


def test_a_state_shares_no_buffer():
    state = simulated_annealing(bowl, radius=0.5, temperature=1.0).init(jnp.ones(3))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: one_plus_one(bowl, radius=0.0), r"radius must be positive and finite, got 0\.0"),
        (lambda: one_plus_one(bowl, radius=1.0, growth=-1.0), r"growth must be positive and finite, got -1\.0"),
        (lambda: one_plus_one(bowl, radius=1.0, success_rate=1.0), r"success_rate must lie in \(0, 1\), got 1\.0"),
        (lambda: simulated_annealing(bowl, radius=-1.0, temperature=1.0), r"radius must be positive and finite, got -1\.0"),
        (lambda: simulated_annealing(bowl, radius=1.0, temperature=-1.0), r"temperature must be at least 0 and finite, got -1\.0"),
        (lambda: simulated_annealing(bowl, radius=1.0, temperature=math.nan), "temperature must be at least 0 and finite, got nan"),
        (lambda: one_plus_one(lambda x: x, radius=1.0).init(jnp.ones(3)), r"fun must return a scalar, got shape \(3,\)"),
        (lambda: simulated_annealing(bowl, radius=1.0, temperature=1.0).init({}), "params must hold at least one array"),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("search", [one_plus_one(bowl, radius=1.0), simulated_annealing(bowl, radius=1.0, temperature=1.0)])
def test_integers_and_missing_keys_are_refused(search):
    with pytest.raises(TypeError, match="the parameter must be real floating point, got int32"):
        search.init(jnp.arange(3))
    with pytest.raises(TypeError, match="key must be a JAX random key"):
        search.step(search.init(jnp.ones(3)), key=None)
