import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.sciml import Affine, ConvectionDiffusion, Raised, Sampled, burgers, collocation_grid

PERIOD = 2 * math.pi


def test_numbers_and_functions_are_coefficients_alike():
    problem = ConvectionDiffusion(lambda x, t, w: w * (1 - w), 0.5, jnp.cos, PERIOD)
    x = jnp.array(0.5)
    assert problem.speed(x, x, x) == 0.25 and problem.diffusivity(x, x, x) == 0.5
    assert burgers(0.1, jnp.sin, mean=3.0).speed(x, x, jnp.array(7.0)) == 7.0
    assert Affine(1.0, 2.0)(x, x, x) == 2.0 and Raised(jnp.cos, 1.0)(jnp.array(0.0)) == 2.0


def test_a_batch_of_problems_is_a_problem_with_an_axis_more():
    problems = eqx.filter_vmap(lambda c: ConvectionDiffusion(c, 0.01, jnp.sin, PERIOD))(jnp.arange(3.0))
    assert problems.speed.constant.tolist() == [0, 1, 2]


def test_known_coefficients_make_a_problem_in_a_traced_function_too():
    problem = burgers(0.1, jnp.sin)
    remade = jax.jit(lambda: ConvectionDiffusion(problem.speed, problem.diffusivity, jnp.cos, PERIOD).diffusivity.constant)
    assert float(remade()) == np.float32(0.1)


def test_samples_are_joined_by_their_fourier_series(double):
    def truth(x):
        return 0.3 + np.sin(x) - 0.5 * np.cos(4 * x)

    profile = Sampled(jnp.asarray(truth(PERIOD * np.arange(11) / 11)), PERIOD)
    x = np.linspace(0, 10, 7)
    assert np.allclose(jax.jit(jax.vmap(profile))(x), truth(x), atol=1e-12)


def test_the_grid_has_every_pair_and_both_ends_of_time():
    points = collocation_grid(3, 2, period=3.0, horizon=0.5)
    assert list(zip(points.x.tolist(), points.t.tolist(), strict=True)) == [(0, 0), (1, 0), (2, 0), (0, 0.5), (1, 0.5), (2, 0.5)]
    assert points.initial.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvectionDiffusion(1.0, 0.1, jnp.sin, 0.0), "period must be positive and finite, got 0.0"),
        (lambda: ConvectionDiffusion(1.0, -0.1, jnp.sin, PERIOD), "diffusivity must be at least 0, got -0.1"),
        (lambda: ConvectionDiffusion(1.0, float("nan"), jnp.sin, PERIOD), "diffusivity must be at least 0, got nan"),
        (lambda: ConvectionDiffusion(1.0, 0.1, jnp.sin, 5.0), "initial must have the period 5, got 0 at 0 and -0.958924 one period on"),
        (lambda: ConvectionDiffusion(1.0, 0.1, lambda x: jnp.stack([x, x]), PERIOD), r"initial must return a scalar .* got shape \(2,\)"),
        (lambda: ConvectionDiffusion(lambda x, t, w: w[None], 0.1, jnp.sin, PERIOD), r"speed must return a scalar .* got shape \(1,\)"),
        (lambda: Sampled(jnp.ones(4), 1.0), "samples must be odd in number, got 4"),
        (lambda: collocation_grid(1, 5, period=1.0, horizon=1.0), "n_places must be at least 2, got 1"),
        (lambda: collocation_grid(5, 1, period=1.0, horizon=1.0), "n_times must be at least 2, got 1"),
        (lambda: collocation_grid(5, 5, period=1.0, horizon=0.0), "horizon must be positive, got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
