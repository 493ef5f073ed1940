import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.lab import Session
from gradatim.lab.ledger import Log

PROGRAM = Path(__file__).with_name("resumable_run.py")
N_KILLS = 3
"One in each loop of the program."


def _start(directory, mode):
    return subprocess.Popen([sys.executable, str(PROGRAM), str(directory), mode], stderr=subprocess.PIPE)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def test_killed_at_random_moments_and_resumed_it_ends_in_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = _start(whole, "new")
    assert process.communicate()[1] == b"" and process.returncode == 0
    log = (whole / "log.jsonl").read_bytes()
    # One moment in each stretch of the run, told by the length of its log.
    rng = random.Random(5)
    for i in range(N_KILLS):
        moment = int(len(log) * (i + rng.random()) / N_KILLS)
        process = _start(killed, "resume" if i else "new")
        while _size(killed / "log.jsonl") < moment and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
        process.stderr.close()
    process = _start(killed, "resume")
    assert process.communicate()[1] == b"" and process.returncode == 0
    with np.load(whole / "end.npz") as ours, np.load(killed / "end.npz") as theirs:
        assert len(ours.files) == len(theirs.files)
        for name in ours.files:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert (killed / "log.jsonl").read_bytes() == log


def _count(x, i, args):
    return x + 1


def _session(directory, **options):
    return Session(jax.random.key(0), directory=directory, checkpoint_seconds=0.0, **options)


def test_ctrl_c_leaves_a_checkpoint_and_is_raised_again(ctrl_c, tmp_path, monkeypatch):
    session = Session(jax.random.key(0), directory=tmp_path, checkpoint_seconds=1e9)
    options = {"steps": 100, "every": 10, "watch": lambda x, args: {"x": x}, "label": "count"}
    append = Log.append

    def append_and_press(self, label, step, watched):
        append(self, label, step, watched)
        if step == 50:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Log, "append", append_and_press)
    with pytest.raises(KeyboardInterrupt):
        session.loop(_count, jnp.zeros(()), **options)
    monkeypatch.undo()
    (path,) = tmp_path.glob("checkpoints/*/state.eqx")
    # The row of step 50 was not yet safe, so its line in the log is replaced.
    assert b'"step": 40' in path.read_bytes()
    resumed = Session(jax.random.key(0), directory=tmp_path, resume=True)
    loop = resumed.loop(_count, jnp.zeros(()), **options)
    assert loop.history["x"].tolist() == list(range(0, 101, 10))
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 11


def test_a_finished_loop_is_skipped(tmp_path):
    first = _session(tmp_path).loop(_count, jnp.zeros(()), steps=10, label="count")

    def never(x, i, args):
        raise AssertionError("a finished loop ran again")

    again = _session(tmp_path, resume=True).loop(never, jnp.zeros(()), steps=10, label="count")
    assert again.state == first.state == 10
    np.testing.assert_array_equal(again.history["step"], first.history["step"])


def test_a_stopped_loop_stays_stopped(tmp_path):
    def burst(x, i, args):
        return jnp.where(i < 5, x + 1, jnp.inf)

    options = {"steps": 10, "label": "burst", "on_nonfinite": "stop"}
    first = _session(tmp_path).loop(burst, jnp.zeros(()), **options)
    again = _session(tmp_path, resume=True).loop(burst, jnp.zeros(()), **options)
    assert (first.diverged_at, first.state) == (again.diverged_at, again.state) == (6, 5)


@pytest.mark.parametrize(
    ("state", "steps", "message"),
    [
        ({"y": jnp.zeros(3)}, 10, r"does not match the state: it holds no such leaf where the state has .*'y'"),
        ({"x": jnp.zeros(4)}, 10, r"\[3\].* where the state has .*\[4\]"),
        ({"x": jnp.zeros(3, jnp.int32)}, 10, "float32.* where the state has .*int32"),
        ({}, 10, "it holds 1 leaves, the state has 0"),
        ({"x": jnp.zeros(3)}, 11, "was written with steps 10, this run has 11: start a new run"),
    ],
)
def test_a_checkpoint_of_another_state_is_refused(tmp_path, state, steps, message):
    def stay(state, i, args):
        return state

    _session(tmp_path).loop(stay, {"x": jnp.zeros(3)}, steps=10, label="stay")
    with pytest.raises(ValueError, match=message):
        _session(tmp_path, resume=True).loop(stay, state, steps=steps, label="stay")


def test_a_new_run_forgets_the_checkpoints_of_the_last(tmp_path):
    _session(tmp_path).loop(_count, jnp.zeros(()), steps=10, watch=lambda x, _: {"x": x}, label="count")
    _session(tmp_path)
    assert not list(tmp_path.glob("checkpoints/*")) and not (tmp_path / "log.jsonl").exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    session = _session(tmp_path)
    session.loop(_count, jnp.zeros(()), steps=10, label="count")
    (path,) = tmp_path.glob("checkpoints/*/state.eqx")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _session_at(tmp_path).loop(_count, jnp.zeros(()), steps=10, label="count")
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["state.eqx"]


def _session_at(directory):
    session = Session(jax.random.key(0), directory=directory, checkpoint_seconds=0.0, resume=True)
    session._resume = False  # runs the loop again without forgetting what is there
    return session


RESULT = {
    "float": 0.1,
    "nan": float("nan"),
    "flag": True,
    "none": None,
    "tuple": (1, "two", [3.0]),
    "numpy": np.arange(6, dtype=np.int8).reshape(2, 3),
    "scalar": np.float32(0.1),
    "bfloat16": jnp.arange(3, dtype=jnp.bfloat16),
    "empty": np.zeros((0, 2)),
    "words": np.array(["a", "bc"]),
    "key": jax.random.key(3),
}


def test_once_comes_back_as_it_was(tmp_path):
    assert _session(tmp_path).once("result", lambda: RESULT) is RESULT

    def never():
        raise AssertionError("computed again")

    again = _session(tmp_path, resume=True).once("result", never)
    assert list(again) == list(RESULT)
    assert again["tuple"] == (1, "two", [3.0]) and again["flag"] is True and again["none"] is None and np.isnan(again["nan"])
    assert (type(again["scalar"]), again["scalar"]) == (np.float32, np.float32(0.1))
    for name in ("numpy", "bfloat16", "empty", "words"):
        assert type(again[name]) is type(RESULT[name]) and again[name].dtype == RESULT[name].dtype
        np.testing.assert_array_equal(again[name], RESULT[name])
    assert jax.random.key_data(again["key"]).tolist() == jax.random.key_data(RESULT["key"]).tolist()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"a": [1, {2}]}, r"result\['a'\]\[1\] must be a dict, list, tuple, array, number, string or None, got set"),
        ({1: 2}, "result must have strings as keys, got 1 of type int"),
        (np.array([object()]), "got ndarray"),
        (lambda: 0, "got function"),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_once_refuses_what_it_cannot_keep(tmp_path, result, message, kept):
    with pytest.raises(TypeError, match=message):
        Session(jax.random.key(0), directory=tmp_path if kept else None).once("result", lambda: result)


def test_a_checkpoint_of_other_points_to_look_at_is_refused(tmp_path):
    _session(tmp_path).loop(_count, jnp.zeros(()), steps=10, every=5, label="count")
    with pytest.raises(ValueError, match="was written with every 5, this run has 2: start a new run"):
        _session(tmp_path, resume=True).loop(_count, jnp.zeros(()), steps=10, every=2, label="count")
