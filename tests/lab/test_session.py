import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import test_util as jtu

from gradatim.lab import NonFiniteError, Session
from gradatim.lab.loop import holds_convolution

WAYS = [None, 1, 7]  # compiled, step by step, and in calls of seven steps


@pytest.fixture
def session():
    return Session(jax.random.key(0))


def _halve(x, i, args):
    return x / 2


def _watch(x, args):
    return {"x": x}


def _blur(image, i, args):
    kernel = jnp.full((3, 3, 1, 1), 1 / 9)
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("chunk", WAYS)
def test_loop_is_the_plain_python_loop(session, chunk):
    def step(state, i, args):
        x, k = state
        return x * args["decay"] + i, k + 1

    args = {"decay": jnp.asarray(0.5)}
    loop = session.loop(
        step, (jnp.ones(3), jnp.asarray(0)), steps=20, args=args, every=6, watch=lambda s, a: {"x": s[0], "k": s[1]}, label="x", chunk=chunk
    )
    x, rows = np.ones(3, np.float32), [np.ones(3, np.float32)]
    for i in range(20):
        x = x * np.float32(0.5) + np.float32(i)
        rows.append(x)
    steps = [0, 6, 12, 18, 20]
    assert loop.history["step"].tolist() == steps == loop.history["k"].tolist()
    np.testing.assert_array_equal(loop.history["x"], np.stack([rows[s] for s in steps]))
    np.testing.assert_array_equal(loop.state[0], x)
    assert loop.diverged_at is None


@pytest.mark.parametrize("chunk", WAYS)
def test_keys_modules_and_low_precision_keep_their_kind(session, chunk):
    class Model(eqx.Module):
        weight: jax.Array
        activation: object
        name: str = eqx.field(static=True)

    def step(state, i, args):
        model, key = state
        key, noise = jax.random.split(key)
        return eqx.tree_at(lambda m: m.weight, model, model.activation(model.weight) + jax.random.normal(noise, (3,), jnp.bfloat16)), key

    model = Model(jnp.zeros(3, jnp.bfloat16), jax.nn.relu, "model")
    loop = session.loop(step, (model, jax.random.key(1)), steps=10, label="model", chunk=chunk)
    expected = (model, jax.random.key(1))
    for i in range(10):
        expected = eqx.filter_jit(step)(expected, i, ())
    assert loop.state[0].activation is jax.nn.relu and loop.state[0].weight.dtype == jnp.bfloat16
    np.testing.assert_array_equal(loop.state[0].weight, expected[0].weight)
    np.testing.assert_array_equal(jax.random.key_data(loop.state[1]), jax.random.key_data(expected[1]))


@pytest.mark.parametrize("chunk", WAYS)
def test_the_caller_keeps_its_arrays(session, chunk):
    x = jnp.ones(4)
    data = jnp.ones(4)
    # One array in two places of the state: two buffers once copied.
    session.loop(lambda s, i, a: (s[0] + a, s[1] - a), (x, x), steps=5, args=data, label="shared", chunk=chunk)
    assert x.sum() == data.sum() == 4


def test_numpy_leaves_become_arrays(session):
    loop = session.loop(lambda s, i, a: (s[0] + 1, s[1]), (np.zeros(2, np.float32), "kept"), steps=3, label="numpy")
    assert loop.state[0].tolist() == [3, 3] and loop.state[1] == "kept"


@pytest.mark.parametrize("chunk", [None, 1])
def test_second_loop_and_short_tail_do_not_compile_again(session, chunk):
    def step(x, i, args):
        return x * args + 1

    def watch(x, args):
        return {"x": x}

    session.loop(step, jnp.ones(3), steps=10, args=jnp.asarray(0.5), every=4, watch=watch, label="first", chunk=chunk)
    start, args = jnp.zeros(3), jnp.asarray(0.25)
    with jtu.count_jit_compilation_cache_miss() as count:
        session.loop(step, start, steps=23, args=args, every=5, watch=watch, label="second", chunk=chunk)
    # Copying the state once is the only small program that may be new.
    assert count() <= 1


def test_weak_types_do_not_compile_again(session):
    traces = []

    def step(x, i, args):
        traces.append(x.weak_type)
        return x + 1

    session.loop(step, jnp.asarray(0.0), steps=9, label="weak", chunk=1)
    assert traces == [False]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_convolutions_are_found_however_deep(wrap):
    image = jnp.ones((1, 4, 4, 1))

    def scanned(x, i, args):
        return jax.lax.scan(lambda x, _: (wrap(lambda y: _blur(y, i, args))(x), None), x, None, length=2)[0]

    def gradient(x, i, args):
        return jax.grad(lambda y: wrap(lambda z: _blur(z, i, args))(y).sum())(x)

    assert holds_convolution(scanned, image, ()) and holds_convolution(gradient, image, ())
    assert holds_convolution(lambda x, i, a: jax.lax.cond(i > 1, lambda y: _blur(y, i, a), lambda y: y, x), image, ())
    assert not holds_convolution(_halve, image, ())


def test_convolution_is_dispatched_step_by_step(session):
    traced = []

    def step(x, i, args):
        traced.append(i)
        return _blur(x, i, args)

    image = jax.random.normal(session.key, (1, 5, 5, 1))
    dispatched = session.loop(step, image, steps=10, label="blur")
    compiled = session.loop(_blur, image, steps=10, label="blur", chunk=10)
    # Inside a loop XLA picks another convolution: the same sums in another order.
    np.testing.assert_allclose(dispatched.state, compiled.state, rtol=1e-5, atol=1e-6)


def _blow_up(state, i, args):
    return {"x": state["x"] + 1, "w": jnp.where(i == 36, jnp.nan, state["w"])}


BLOW_UP = {"x": jnp.zeros(()), "w": jnp.ones(2)}


@pytest.mark.parametrize("chunk", WAYS)
@pytest.mark.parametrize("every", [1, 10, 100])
def test_first_step_that_is_not_finite_is_named(session, chunk, every):
    with pytest.raises(NonFiniteError, match=r"loop 'blow up': state\['w'\] is not finite after step 37: shorten the step") as caught:
        session.loop(_blow_up, BLOW_UP, steps=100, every=every, label="blow up", chunk=chunk)
    assert (caught.value.label, caught.value.step, caught.value.quantity) == ("blow up", 37, "state['w']")
    assert isinstance(caught.value, FloatingPointError)


@pytest.mark.parametrize("chunk", WAYS)
def test_stop_ends_with_the_last_finite_state(session, chunk):
    loop = session.loop(
        _blow_up, BLOW_UP, steps=100, every=10, watch=lambda s, _: {"x": s["x"]}, label="x", chunk=chunk, on_nonfinite="stop"
    )
    assert loop.diverged_at == 37 and loop.state["x"] == 36 and loop.state["w"].tolist() == [1, 1]
    assert loop.history["step"].tolist() == loop.history["x"].tolist() == [0, 10, 20, 30, 36]


@pytest.mark.parametrize("chunk", WAYS)
def test_keep_records_the_step_and_goes_on(session, chunk):
    loop = session.loop(_blow_up, BLOW_UP, steps=60, every=10, label="x", chunk=chunk, on_nonfinite="keep")
    assert loop.diverged_at == 37 and loop.state["x"] == 60 and np.isnan(loop.state["w"]).all()


def test_a_watched_quantity_that_is_not_finite_is_named(session):
    with pytest.raises(NonFiniteError, match="watched 'log' is not finite after step 4:"):
        session.loop(lambda x, i, a: x - 1, jnp.asarray(4.0), steps=8, every=2, watch=lambda x, _: {"log": jnp.log(x)}, label="x")


def test_a_start_that_is_not_finite_is_named(session):
    with pytest.raises(NonFiniteError, match="state is not finite after step 0"):
        session.loop(_halve, jnp.asarray(jnp.inf), steps=8, label="x")


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_run_time_errors_stay_readable(session, chunk):
    def step(x, i, args):
        return eqx.error_if(x + 1, x > 5, "x is too large: shorten the step")

    with pytest.raises(eqx.EquinoxRuntimeError, match="x is too large: shorten the step"):
        session.loop(step, jnp.zeros(()), steps=30, every=10, label="x", chunk=chunk)


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (lambda s, i, a: {**s, "new": s["x"]}, ValueError, "step must return a state of the structure that it takes"),
        (lambda s, i, a: {**s, "x": s["x"][:1]}, ValueError, r"keep shape and dtype of state\['x'\], got float32\(1,\) for float32\(2,\)"),
        (lambda s, i, a: {**s, "x": s["x"].astype(int)}, ValueError, r"got int32\(2,\) for float32\(2,\)"),
        (lambda s, i, a: {**s, "n": s["n"] + 1}, TypeError, r"state\['n'\] is a int, so it stays as it is, but step changes it: make it"),
        (lambda s, i, a: {**s, "n": s["n"] + i}, TypeError, r"state\['n'\] is a int"),
    ],
)
def test_a_step_must_keep_the_state_as_it_is_made(session, chunk, step, error, message):
    with pytest.raises(error, match=message):
        session.loop(step, {"x": jnp.zeros(2), "n": 0}, steps=3, label="x", chunk=chunk)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"steps": 1, "every": 0}, "every must be at least 1, got 0"),
        ({"steps": 1, "chunk": 0}, "chunk must be at least 1, got 0"),
        ({"steps": 1, "on_nonfinite": "ignore"}, "on_nonfinite"),
        ({"steps": 1, "watch": lambda x, _: {"step": x}}, "without the name 'step'"),
    ],
)
def test_bad_arguments(session, options, message):
    with pytest.raises(Exception, match=message):
        session.loop(_halve, jnp.ones(()), label="x", **options)


def test_no_steps_at_all(session):
    loop = session.loop(_halve, jnp.ones(()), steps=0, watch=_watch, label="x")
    assert loop.state == 1 and loop.history["step"].tolist() == [0]


def test_default_is_a_hundred_looks(session):
    assert len(session.loop(_halve, jnp.ones(()), steps=1000, label="x").history["step"]) == 101
    assert len(session.loop(_halve, jnp.ones(()), steps=30, label="x").history["step"]) == 31


def test_log_holds_the_watched_scalars(tmp_path):
    session = Session(jax.random.key(0), directory=tmp_path)
    watch = lambda x, _: {"x": x, "big": 1 / (x - 0.25), "vector": jnp.ones(3), "n": jnp.asarray(2)}  # noqa: E731
    session.loop(_halve, jnp.ones(()), steps=4, watch=watch, label="halve", on_nonfinite="keep")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {"loop": "halve", "step": 0, "x": 1.0, "big": pytest.approx(4 / 3), "n": 2}
    assert lines[2]["big"] is None and len(lines) == 5


def test_without_a_directory_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = Session(jax.random.key(0))
    session.loop(_halve, jnp.ones(()), steps=4, watch=_watch, label="halve")
    session.once("one", lambda: 1)
    (session.scratch / "file").write_text("x")
    folder = session.scratch
    del session
    assert not list(tmp_path.iterdir()) and not folder.exists()


def test_scratch_lies_in_the_directory(tmp_path):
    assert Session(jax.random.key(0), directory=tmp_path).scratch.parent == tmp_path


def test_seconds_tell_compiling_from_running():
    session = Session(jax.random.key(0))
    step = lambda x, i, args: jnp.sin(x) + 1  # noqa: E731
    session.loop(step, jnp.ones(3), steps=10, label="first")
    first = dict(session.seconds)
    session.loop(step, jnp.ones(3), steps=10, label="second")
    assert first["compile"] > 0 and first["run"] > 0
    assert session.seconds["compile"] - first["compile"] < first["compile"] / 2
    session.once("sleep", time.sleep, 0.05)
    assert session.seconds["run"] >= first["run"] + 0.05


def test_timed_takes_turns(session):
    calls = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    seconds = session.timed("turns", functions, repeats=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: rows.shape for name, rows in seconds.items()} == {"a": (3,), "b": (3,)}
    assert all((rows >= 0).all() for rows in seconds.values())
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        session.timed("turns", functions, repeats=0)


def test_timed_is_kept_for_resume(tmp_path):
    first = Session(jax.random.key(0), directory=tmp_path).timed("one", {"one": lambda: 1}, repeats=2)
    again = Session(jax.random.key(0), directory=tmp_path, resume=True).timed("one", {"one": lambda: 1}, repeats=2)
    np.testing.assert_array_equal(first["one"], again["one"])


def test_notes_and_provenance(session):
    session.note("cold start")
    session.uses(("digits", "1.7"))
    session.uses(("digits", "1.7"))
    assert session.notes == ["cold start"] and session.provenances == [("digits", "1.7")]


def test_double_precision_must_be_on():
    with pytest.raises(ValueError, match="precision 'double' needs JAX in double precision: set JAX_ENABLE_X64=1"):
        Session(jax.random.key(0), precision="double")
    with jax.enable_x64(True):
        loop = Session(jax.random.key(0), precision="double").loop(_halve, jnp.ones(()), steps=3, label="x")
    assert loop.state.dtype == jnp.float64


def test_resume_needs_a_directory():
    with pytest.raises(ValueError, match="resume needs the directory"):
        Session(jax.random.key(0), resume=True)


def test_bar_shows_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    Session(jax.random.key(0), quiet=False).loop(_halve, jnp.ones(()), steps=40, label="halve")
    shown = capsys.readouterr().err
    assert "halve" in shown and "40/40" in shown


def test_bar_is_silent_where_nobody_watches(monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    Session(jax.random.key(0), quiet=False).loop(_halve, jnp.ones(()), steps=40, label="halve")
    assert capsys.readouterr() == ("", "")


def _several(chosen):
    steps = [lambda x, i, args, k=k: x * (k + 1) / 3 + i for k in range(3)]
    return steps, lambda i: chosen[i]


def test_choose_takes_the_steps_in_the_given_order(session):
    chosen = [2, 0, 1, 1, 2, 0, 0]
    steps, choose = _several(chosen)
    loop = session.loop(steps, jnp.ones(2), steps=7, choose=choose, watch=_watch, label="several", every=3)
    x, expected = np.ones(2, np.float32), []
    for i, k in enumerate(chosen):
        if i % 3 == 0:
            expected.append(x)
        x = (x * np.float32(k + 1) / np.float32(3) + np.float32(i)).astype(np.float32)
    assert np.allclose(loop.history["x"], [*expected, x], rtol=1e-6) and loop.history["step"].tolist() == [0, 3, 6, 7]


def test_choose_resumes_in_the_same_bits(tmp_path):
    chosen = np.random.default_rng(0).integers(0, 3, 60).tolist()
    steps, choose = _several(chosen)

    def interrupted(i):
        if i == 41:
            raise KeyboardInterrupt
        return choose(i)

    options = {"steps": 60, "watch": _watch, "label": "several", "every": 10}
    whole = Session(jax.random.key(0)).loop(steps, jnp.ones(2), choose=choose, **options)
    with pytest.raises(KeyboardInterrupt):
        Session(jax.random.key(0), directory=tmp_path).loop(steps, jnp.ones(2), choose=interrupted, **options)
    seen = []
    resumed = Session(jax.random.key(0), directory=tmp_path, resume=True).loop(
        steps, jnp.ones(2), choose=lambda i: seen.append(i) or choose(i), **options
    )
    assert min(seen) == 40 and np.array_equal(resumed.state, whole.state) and np.array_equal(resumed.history["x"], whole.history["x"])


def test_choose_names_the_step_that_is_not_finite(session):
    steps = [_halve, lambda x, i, args: x / jnp.where(i == 13, 0.0, 1.0)]
    with pytest.raises(NonFiniteError, match="state is not finite after step 14"):
        session.loop(steps, jnp.ones(2), steps=30, choose=lambda i: i % 2, label="several", every=10)


@pytest.mark.parametrize(
    "options",
    [{"step": []}, {"step": [_halve, _halve]}, {"step": [_halve], "choose": lambda i: 0, "chunk": 5}],
    ids=["none", "no choose", "chunk"],
)
def test_several_steps_need_choose_and_no_chunk(session, options):
    with pytest.raises(ValueError, match="step must be one function, or several with choose and without a chunk"):
        session.loop(state=jnp.ones(2), steps=3, label="several", **options)


def test_a_step_may_hold_arrays_as_defaults(tmp_path):
    """Two loops of two such steps: what a function's signature holds is never compared."""
    session = Session(jax.random.key(0), directory=tmp_path)
    for value in (1.0, 2.0):
        array = jnp.full(2, value)

        def step(state, i, args, increment=array):
            return state + increment

        np.testing.assert_array_equal(session.loop(step, jnp.zeros(2), steps=3, label=f"by {value}").state, 3 * value)


def test_where_a_run_diverged_is_known_after_an_interruption(tmp_path):
    def choose(i, stop_at=55):
        if i == stop_at:
            raise KeyboardInterrupt
        return 0

    options = {"steps": 80, "every": 10, "label": "blow up", "on_nonfinite": "keep"}
    with pytest.raises(KeyboardInterrupt):
        Session(jax.random.key(0), directory=tmp_path).loop([_blow_up], BLOW_UP, choose=choose, **options)
    resumed = Session(jax.random.key(0), directory=tmp_path, resume=True).loop([_blow_up], BLOW_UP, choose=lambda i: 0, **options)
    assert resumed.diverged_at == 37 and resumed.state["x"] == 80 and resumed.history["step"].tolist() == list(range(0, 81, 10))


def test_the_log_takes_single_numbers_of_any_kind(tmp_path):
    watch = lambda x, _: {"z": x + 1j, "one": jnp.ones(1), "two": jnp.ones(2), "is": x > 0}  # noqa: E731
    Session(jax.random.key(0), directory=tmp_path).loop(_halve, jnp.ones(()), steps=0, watch=watch, label="kinds")
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert line == {"loop": "kinds", "step": 0, "z": "(1+1j)", "one": 1.0, "is": True}
