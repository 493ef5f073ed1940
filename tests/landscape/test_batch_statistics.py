import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.landscape import interpolate, recompute_stats


class Net(eqx.Module):
    first: eqx.nn.Linear
    norms: tuple[eqx.nn.BatchNorm, ...]
    last: eqx.nn.Linear

    def __init__(self, key, modes=("batch", "batch"), names=("batch", "batch")):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(3, 4, key=keys[0])
        self.norms = tuple(eqx.nn.BatchNorm(4, name, mode=mode) for mode, name in zip(modes, names, strict=True))
        self.last = eqx.nn.Linear(4, 2, key=keys[1])

    def __call__(self, x, state):
        x = self.first(x)
        for norm in self.norms:
            x, state = norm(x, state)
            x = jax.nn.relu(x)
        return self.last(x), state


def outputs(model, inputs, state):
    return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(inputs, state)


@pytest.mark.parametrize("modes", [("batch", "batch"), ("ema", "ema"), ("batch", "ema")])
def test_after_interpolation_inference_gives_what_normalising_by_the_data_gives(modes):
    (start, state), (end, _) = (eqx.nn.make_with_state(Net)(jax.random.key(seed), modes) for seed in (0, 1))
    inputs = 2 + 3 * jax.random.normal(jax.random.key(2), (50, 3))
    # Two steps of training leave statistics of other inputs behind.
    for shift in (5.0, -5.0):
        _, state = outputs(start, inputs + shift, state)
    middle = eqx.nn.inference_mode(interpolate(start, end, 0.5))
    stale, state = outputs(middle, inputs, state)
    fresh, _ = outputs(middle, inputs, recompute_stats(middle, state, inputs))

    hidden = jax.vmap(middle.first)(inputs)
    for norm in middle.norms:
        hidden = jax.nn.relu((hidden - hidden.mean(0, keepdims=True)) / jnp.sqrt(hidden.var(0, keepdims=True) + norm.eps))
    exact = jax.vmap(middle.last)(hidden)
    assert np.allclose(fresh, exact, atol=1e-5) and not np.allclose(stale, exact, atol=1e-2)
    # The state that was given is still to be used.
    assert np.allclose(outputs(middle, inputs, state)[0], stale)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (lambda: eqx.nn.make_with_state(Net)(jax.random.key(0), names=("a", "b")), "'a', 'b'"),
        (lambda: (eqx.nn.Linear(3, 1, key=jax.random.key(0)), eqx.nn.State({})), ""),
    ],
)
def test_models_without_one_batch_axis_are_refused(model, names):
    net, state = model()
    with pytest.raises(ValueError, match=rf"batch normalisations over one axis, got the names \[{names}\]"):
        recompute_stats(net, state, jnp.ones((2, 3)))
