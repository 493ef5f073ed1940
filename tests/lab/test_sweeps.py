import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from gradatim.lab import Session, Sweep, best_by_others, epochs, learning_rate_sweep, time_to_target
from gradatim.lab import sweeps as module

N, SIDE, STEPS, EVERY, SEEDS = 24, 4, 12, 5, 3
RATES = [0.03, 0.3, 1e20]
ARMS = {"sgd": optax.sgd, "adam": lambda rate: optax.adam(rate, b2=0.99)}


def _data():
    images = np.random.default_rng(0).normal(size=(N, SIDE, SIDE, 1)).astype(np.float32)
    return jnp.asarray(images), jnp.asarray(images.mean((1, 2, 3)) * 2)


class Dense(eqx.Module):
    weight: jax.Array
    activation: object = jax.nn.tanh

    def __call__(self, images):
        return self.activation(images.reshape(len(images), -1) @ self.weight)


class Convolution(eqx.Module):
    weight: jax.Array

    def __call__(self, images):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, self.weight, (1, 1), "SAME", dimension_numbers=dims).mean((1, 2, 3))


MODELS = {
    "dense": lambda key: Dense(0.1 * jax.random.normal(key, (SIDE**2,))),
    "convolution": lambda key: Convolution(jax.random.normal(key, (3, 3, 1, 1))),
}


def _loss(model, batch):
    images, targets = batch
    # A quartic runs away to infinity where a squared error would only grow.
    return ((model(images) - targets) ** 2).mean() + 1e-3 * (model.weight**4).sum()


def _evaluate(model, data):
    return {"loss": _loss(model, data), "error": jnp.abs(model(data[0]) - data[1]).mean()}


def _sweep(model, **changes):
    options = {
        "init": MODELS[model],
        "loss": _loss,
        "evaluate": _evaluate,
        "data": _data(),
        "order": lambda key: epochs(key, N, batch_size=8, steps=STEPS),
        "steps": STEPS,
        "n_seeds": SEEDS,
        "every": EVERY,
    }
    session = changes.pop("session", None) or Session(jax.random.key(0))
    return learning_rate_sweep(session, changes.pop("arms", ARMS), RATES, **(options | changes))


@pytest.fixture(scope="module", params=list(MODELS))
def model(request):
    return request.param


@pytest.fixture(scope="module")
def sweep(model):
    return _sweep(model)


@eqx.filter_jit
def _one_step(optimizer, params, state, rows, data):
    gradient = eqx.filter_grad(_loss)(params, tuple(array[rows] for array in data))
    updates, state = optimizer.update(gradient, state, eqx.filter(params, eqx.is_inexact_array))
    params = eqx.apply_updates(params, updates)
    return params, state, _evaluate(params, data)["loss"]


_first_loss = eqx.filter_jit(lambda params, data: _evaluate(params, data)["loss"])


def test_curves_are_those_of_single_trainings(sweep, model):
    keys, data = jax.random.split(jax.random.key(0), SEEDS), _data()
    for arm, rate, seed in (("sgd", 0.3, 2), ("adam", 0.03, 0)):
        first, shuffle = jax.random.split(keys[seed])
        params, optimizer = MODELS[model](first), ARMS[arm](rate)
        state = optimizer.init(eqx.filter(params, eqx.is_inexact_array))
        losses = [_first_loss(params, data)]
        for rows in np.asarray(epochs(shuffle, N, batch_size=8, steps=STEPS)):
            params, state, after = _one_step(optimizer, params, state, jnp.asarray(rows), data)
            losses.append(after)
        curve = sweep.data.loss.sel(arm=arm, rate=rate, seed=seed)
        assert curve.step.values.tolist() == [0, 5, 10, 12]
        # Sums of a batch of seeds run in another order, over twelve steps.
        np.testing.assert_allclose(curve, [losses[s] for s in curve.step.values], rtol=1e-4)


def test_arms_and_rates_share_each_seeds_start(sweep):
    start = sweep.data.loss.isel(step=0)
    assert bool((start == start.isel(arm=0, rate=0)).all())
    assert len(np.unique(start)) == SEEDS


def test_divergence_is_recorded_and_the_others_go_on(sweep):
    diverged_at = sweep.data.diverged_at
    assert (diverged_at.sel(rate=[0.03, 0.3]) == -1).all()
    gone = diverged_at.sel(arm="sgd", rate=1e20)
    assert (gone >= 1).all() and (gone <= 5).all()
    curves = sweep.data.sel(arm="sgd", rate=1e20)
    assert np.isfinite(curves.loss.isel(step=0)).all()
    assert np.isnan(curves.loss.isel(step=slice(1, None))).all() and np.isnan(curves.error.isel(step=-1)).all()
    assert sweep.best_rate("sgd", "loss") in (0.03, 0.3)


def test_both_ways_agree(monkeypatch):
    alone = _sweep("convolution")
    monkeypatch.setattr(module, "dispatched_on_this_device", lambda *_: False)
    together = _sweep("convolution")
    np.testing.assert_array_equal(alone.data.diverged_at, together.data.diverged_at)
    xr.testing.assert_allclose(alone.data, together.data, rtol=1e-3, atol=1e-6)


def test_one_compilation_an_arm(monkeypatch):
    traces = []

    def arm(rate):
        traces.append(rate)
        return optax.sgd(rate)

    _sweep("convolution", arms={"sgd": arm}, n_seeds=1)
    once = len(traces)
    traces.clear()
    _sweep("convolution", arms={"sgd": arm}, n_seeds=3)
    assert len(traces) == once


def test_batches_may_be_drawn_from_keys():
    def draw(data, key):
        images = jax.random.normal(key, (8, SIDE, SIDE, 1))
        return images, images.mean((1, 2, 3)) * 2

    sweep = _sweep("dense", order=lambda key: jax.random.split(key, STEPS), batch=draw)
    final = sweep.final.loss.sel(arm="sgd", rate=0.3)
    assert (final < sweep.data.loss.sel(arm="sgd", rate=0.3).isel(step=0)).all()


def test_sweep_resumes_from_disk(tmp_path, model):
    first = _sweep(model, session=Session(jax.random.key(0), directory=tmp_path))
    again = _sweep(model, session=Session(jax.random.key(0), directory=tmp_path, resume=True))
    xr.testing.assert_identical(first.data, again.data)


def _by_hand():
    loss = np.array([[[[4.0, 2.0], [4.0, 1.0], [4.0, 1.5]], [[4.0, 1.0], [4.0, np.nan], [4.0, 1.0]]], [[[4.0, 3.0]] * 3, [[4.0, 2.5]] * 3]])
    diverged_at = np.where(np.isnan(loss[..., -1]), 7, -1)
    dims = ("arm", "rate", "seed")
    return Sweep(
        xr.Dataset(
            {"loss": ((*dims, "step"), loss), "diverged_at": (dims, diverged_at)},
            {"arm": ["a", "b"], "rate": [0.1, 1.0], "seed": [0, 1, 2], "step": [0, 10]},
        )
    )


def test_a_rate_at_which_a_seed_diverged_is_not_the_best():
    sweep = _by_hand()
    assert sweep.best_rate("a", "loss") == 0.1 and sweep.best_rate("a", "loss", maximise=True) == 0.1
    assert sweep.best_rate("b", "loss") == 1.0 and sweep.best_rate("b", "loss", maximise=True) == 0.1


def test_paired_is_seed_by_seed_at_each_best_rate():
    measure = _by_hand().paired("a", "b", "loss")
    assert measure.samples == (-0.5, -1.5, -1.0)
    assert _by_hand().paired("a", "b", "loss", kind="log-ratio").samples == pytest.approx((0.8, 0.4, 0.6), rel=1e-12)


def test_no_repeat_has_a_say_in_its_own_choice():
    # The third seed alone would choose the second rate; without it the first is best, and with it the second.
    values = np.array([[3.0, 3, 3], [4, 4, 0], [np.nan, -9, -9]])
    scores = xr.DataArray(np.stack([values, values[::-1]]), {"arm": ["a", "b"], "seed": [5, 6, 7]}, ("arm", "rate", "seed"))
    found = best_by_others(scores, "rate")
    assert dict(found.sizes) == {"arm": 2, "seed": 3} and found.seed.values.tolist() == [5, 6, 7]
    # The first seed is NaN at the third rate, which the others prefer: that is what it gets.
    np.testing.assert_array_equal(found.sel(arm="a"), [np.nan, 4, 3])
    np.testing.assert_array_equal(found.sel(arm="b"), found.sel(arm="a"))
    most = best_by_others(scores.sel(arm="a"), "rate", maximise=True)
    np.testing.assert_array_equal(most, [3, 3, 0])
    np.testing.assert_array_equal(best_by_others(-scores, "rate", maximise=True), -found)
    with pytest.raises(ValueError, match="seed must have at least 2 entries, got 1"):
        best_by_others(scores.isel(seed=[0]), "rate")


def test_time_to_target_of_each_run():
    times = _by_hand().time_to_target("loss", 1.5)
    assert times.dims == ("arm", "rate", "seed")
    assert times.sel(arm="a").values.tolist() == [[np.inf, 10, 10], [10, np.inf, 10]]


@pytest.mark.parametrize(
    ("curve", "target", "maximise", "expected"),
    [
        ([3, 2, 1], 2.0, False, 10),
        ([3, 2.1, 2.01], 2.0, False, np.inf),
        ([1, 2, 3], 2.0, True, 10),
        ([1, 1, 1], 1.0, True, 0),
        ([np.nan, np.nan, np.nan], 1.0, False, np.inf),
        ([3, 1, 3], 2.0, False, 10),
    ],
)
def test_time_to_target(curve, target, maximise, expected):
    assert time_to_target(curve, [0, 10, 20], target, maximise=maximise) == expected


def test_epochs_see_every_example_once(getkey):
    rows = np.asarray(epochs(getkey(), 10, batch_size=3, steps=8))
    assert rows.shape == (8, 3)
    for epoch in (rows[:3], rows[3:6]):
        assert len(np.unique(epoch)) == 9
    assert not np.array_equal(rows[:3], rows[3:6])


def test_refused(getkey):
    with pytest.raises(ValueError, match=r"batch_size must lie in \[1, 10\], the number of examples, got 11"):
        epochs(getkey(), 10, batch_size=11, steps=1)
    with pytest.raises(ValueError, match="a sweep needs arms, and rates that differ"):
        _sweep("dense", arms={})
    with pytest.raises(ValueError, match="arm must be one of a, b, got 'c'"):
        _by_hand().best_rate("c", "loss")
    only = Sweep(_by_hand().data.sel(rate=[1.0]))
    with pytest.raises(ValueError, match=r"'a' diverges at every rate of \[1.0\]: sweep smaller ones"):
        only.best_rate("a", "loss")


def test_what_is_to_be_large_is_compared_at_the_rates_best_for_that():
    sweep = _by_hand()
    assert sweep.at_best("b", "loss", maximise=True).isel(step=-1).values.tolist() == [3, 3, 3]
    assert sweep.at_best("b", "loss").isel(step=-1).values.tolist() == [2.5, 2.5, 2.5]
    assert sweep.paired("a", "b", "loss", maximise=True).samples == (-1, -2, -1.5)
    assert (sweep.time_to_target("loss", 2.5, maximise=True) == 0).all()


def test_an_optimiser_whose_own_numbers_overflow_has_diverged():
    def runaway(rate):
        def update(gradient, state, params=None):
            return jax.tree.map(jnp.zeros_like, gradient), state * 1e20

        return optax.GradientTransformation(lambda params: jnp.ones(()), update)

    sweep = _sweep("dense", arms={"runaway": runaway}, steps=4, every=2, n_seeds=1)
    # 1e20, then infinity; of the parameters, which stay as they are, only the curve up to there is kept.
    assert (sweep.data.diverged_at == 2).all()
    assert np.isfinite(sweep.data.loss.isel(step=0)).all() and np.isnan(sweep.data.loss.isel(step=slice(1, None))).all()
