import gzip
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gradatim import datasets
from gradatim.lab import (
    Findings,
    Measure,
    RunOutcome,
    RunRequest,
    child,
    find,
    latest,
    list_records,
    new_paper,
    open_record,
    run_papers,
    supervise,
)
from gradatim.lab.run_folder import RunFolder
from gradatim.lab.supervisor import QUICKLY_COMPILED, _open_folder, child_environment


def request(runs, slug="random-walk", scale="smoke", **options):
    return RunRequest(slug, scale, runs=runs, **options)


KILLED = {"walkers.n_walkers": 150, "steps": 100, "loops": 5, "pause": 0.2, "ending": "print"}
"Long enough to be killed in the middle."


@pytest.fixture(scope="module")
def straight(tmp_path_factory, install_papers):
    """How a run ends that nobody disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        site = tmp_path_factory.mktemp("undisturbed")
        install_papers(site)
        patch.syspath_prepend(str(site))
        return supervise(request(site / "runs", seed=3, changed=KILLED))


def test_a_run_leaves_a_whole_record(third_party, straight):
    outcome = straight
    assert (outcome.status, outcome.cause, outcome.exit_code, outcome.resumed) == ("ok", "", 0, False), outcome
    record = open_record(outcome.record)
    assert (record.slug, record.scale, record.seed, record.precision, record.status) == ("random-walk", "smoke", 3, "double", "ok")
    assert record.config["walkers"] == {"n_walkers": 150, "stride": 1.0}
    assert record.changed == {name: KILLED[name] for name in KILLED if name != "steps"}, "a field set to what it was is not changed"
    assert {"compile", "run", "total"} <= set(record.seconds) and record.peak_memory > 1e7
    assert {"system", "processor", "cpus", "platform", "device", "devices", "xla_flags"} <= set(record.machine)
    assert record.data["walks/spread"].dtype == np.float64 and record.data["walks/spread"].dims == ("walk", "step")
    assert [path.name for path in record.figures] == ["spread.png"] and list(record.redraw()) == ["spread"]
    assert list(record.notes) == ["they walked"]
    assert {"python", "gradatim", "jax", "gradatim-example-paper"} <= set(record.versions)
    assert {name: verdict["verdict"] for name, verdict in record.verdicts.items()} == {"C1": "holds", "C2": "untested", "C3": "holds"}
    files = sorted(path.name for path in record.path.iterdir())
    assert files == ["data.nc", "figures", "log.jsonl", "output.txt", "record.json", "request.json"]
    assert (record.path / "output.txt").read_text() == "{}, said a walker\n", "what is printed is not taken for the answer"
    summary = json.loads(json.dumps(outcome.summary(), allow_nan=False))
    assert set(summary) == {"slug", "scale", "status", "record", "seconds", "verdicts"}
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_a_new_paper_from_the_template_runs_as_it_is(third_party, tmp_path):
    new_paper("my-idea", third_party / "gradatim_example_paper")
    points = next(third_party.glob("*.dist-info")) / "entry_points.txt"
    points.write_text(points.read_text() + "my-idea = gradatim_example_paper.my_idea\n")
    outcome = supervise(request(tmp_path / "runs", "my-idea"))
    assert outcome.status == "ok", outcome
    assert outcome.verdicts["C1"]["verdict"] == "holds"


def test_every_bad_ending_is_a_failed_record_and_the_others_go_on(third_party, tmp_path):
    endings = ["raise", "exit", "segfault", "killed"]
    requests = [request(tmp_path / "runs", changed={"ending": ending, "loops": 1}) for ending in endings]
    seen = []
    outcomes = run_papers([*requests, request(tmp_path / "runs", "random-clock")], workers=2, on_outcome=seen.append)
    by_ending = dict(zip(endings, outcomes, strict=False))
    expected = {
        "raise": ("error", "RuntimeError: the walkers are lost"),
        "exit": ("crash", "the run's process ended with exit code 7 before it was done"),
        "segfault": ("crash", "the run's process was killed (SIGSEGV)"),
        "killed": ("crash", "the run's process was killed (SIGKILL; the system does that when memory runs out"),
    }
    for ending, (cause, message) in expected.items():
        outcome = by_ending[ending]
        assert (outcome.status, outcome.cause, outcome.exit_code) == ("failed", cause, 3)
        assert outcome.message.startswith(message) and "\n" not in outcome.message
        record = open_record(outcome.record)
        assert record.status == "failed" and message in record.error and record.config["ending"] == ending
        assert (record.path / "checkpoints").exists()
    assert 'raise RuntimeError("the walkers are lost")' in by_ending["raise"].traceback
    assert "random_walk.py" in open_record(by_ending["segfault"].record).error
    assert outcomes[-1].status == "ok"
    assert len(seen) == 5 and seen[-1].slug == "random-clock", "what is timed runs last"
    assert latest("random-walk", tmp_path / "runs") is None and len(list_records(tmp_path / "runs")) == 5


@pytest.fixture
def inside(third_party, tmp_path, monkeypatch):
    """Runs `random-clock` in this process with another experiment in it; gives its answer and its record."""
    monkeypatch.setenv("JAX_ENABLE_X64", "0")  # a run sets it for itself

    def run(experiment):
        module = find("random-clock").module()
        original = module.run
        monkeypatch.setattr(module, "run", lambda config, session: experiment(lambda: original(config, session), session))
        folder = _open_folder(request(tmp_path / "runs", "random-clock"))
        answer = child._guarded(folder.path, quiet=True, resume=False)
        folder.release()
        return answer, open_record(folder.final)

    return run


def test_findings_that_belong_to_no_claim_are_an_error_and_what_was_measured_is_kept(inside):
    def experiment(original, session):
        return Findings({"C9.seconds": Measure.exact(1.0)}, original().data)

    (cause, message, _), record = inside(experiment)
    assert cause == "error" and "\n" not in message
    assert message.startswith("ValueError: random-clock: the findings name 'C9.seconds', which is no part of a claim; parts: C1.seconds")
    assert record.status == "failed" and message in record.error and record.data["walk"].size == 1000


def test_a_corrupt_file_in_the_data_folder_is_one_line_that_names_it(inside, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16 + 10_000 * 784)))
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path / "data"))
    (cause, message, trace), record = inside(lambda original, session: datasets.load("fashion-mnist", split="test"))
    assert cause == "error" and "\n" not in message and "replace the file" in message
    assert message.startswith(f"DatasetError: {tmp_path / 'data' / 't10k-images-idx3-ubyte.gz'} is corrupt: expected content with sha256")
    assert record.status == "failed" and trace == record.error and "Traceback" in trace


def test_an_interruption_that_got_lost_in_an_import_is_heard_after_it(third_party, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    folder = _open_folder(request(tmp_path / "runs", "random-clock"))
    monkeypatch.setattr(child, "_told", threading.Event())
    with pytest.raises(KeyboardInterrupt):
        child._stop(signal.SIGINT, None)
    assert child._guarded(folder.path, quiet=True, resume=False) == ("interrupted", "", "")
    folder.release()


def test_a_record_keeps_the_provenance_of_its_data(inside):
    def experiment(original, session):
        session.uses(datasets.load("digits", n=20).provenance)
        return original()

    _, record = inside(experiment)
    assert record.status == "ok"
    (data,) = record.provenance
    assert {"source", "version", "licence", "sha256"} == set(data) and data["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slug": "randm-walk"}, r"there is no paper 'randm-walk' \(did you mean 'random-walk'"),
        ({"changed": {"walkers.n_walkers": 10**12}}, r"would need about 14902.1 GiB of memory, [\d.]+ GiB are free: take a smaller"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(third_party, tmp_path, options, message):
    outcome = supervise(request(tmp_path / "runs", **options))
    assert (outcome.status, outcome.cause, outcome.exit_code, outcome.record) == ("failed", "bad-input", 2, None)
    with pytest.raises(ValueError, match=message):
        raise ValueError(outcome.message)
    assert "\n" not in outcome.message and outcome.traceback == ""
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "random-clock: steps must be between 1 and 1e\\+06, got 0"),
        ({"steps": 2.5}, "random-clock: steps must be of type int, got 2.5"),
        ({"stps": 5}, r"random-clock: there is no field 'stps' \(did you mean 'steps'\?\)"),
    ],
)
def test_fields_are_checked_before_anything_runs(third_party, monkeypatch, changed, message):
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    with pytest.raises(child.BadInputError, match=message):
        child._prepare({"slug": "random-clock", "scale": "smoke", "changed": changed})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "labtop"}, r"scale must be one of smoke, laptop, full, got 'labtop' \(did you mean 'laptop'\?\)"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**32}, "seed must lie in"),
        ({"timeout": float("nan")}, "timeout must be a positive number"),
        ({"timeout": 0.0}, "timeout must be a positive number"),
        ({"threads": 3}, "threads must be 1 or None"),
    ],
)
def test_bad_requests_are_refused_when_made(options, message):
    with pytest.raises(ValueError, match=message):
        RunRequest("random-walk", **options)


def test_a_time_out_is_a_failed_record_that_can_be_taken_up_again(third_party, tmp_path):
    slow = request(tmp_path / "runs", changed={"pause": 60.0, "loops": 1}, timeout=4.0)
    outcome = supervise(slow)
    assert (outcome.cause, outcome.exit_code) == ("timeout", 3)
    assert outcome.message.startswith("timed out after 4 s; `gradatim run random-walk --scale smoke")
    assert "timed out after 4 s" in open_record(outcome.record).error


def test_a_folder_that_cannot_be_written_is_one_line(third_party, tmp_path):
    (tmp_path / "file").touch()
    outcome = supervise(request(tmp_path / "file"))
    assert (outcome.cause, outcome.exit_code, outcome.record) == ("storage", 2, None)
    assert outcome.message.startswith("cannot write to ") and "\n" not in outcome.message


def test_a_disk_that_fills_up_leaves_what_can_be_taken_up_again(third_party, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    many = request(tmp_path / "runs", changed={"walkers.n_walkers": 30_000})
    try:
        outcome = supervise(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (outcome.cause, outcome.record) == ("storage", None), outcome
    assert outcome.message.startswith("cannot write to ") and "make room" in outcome.message and "\n" not in outcome.message
    assert len(list((tmp_path / "runs").glob("*/*.partial"))) == 1


def findings(path):
    record = open_record(path)
    return record.measures, record.data["walks/spread"].values.tobytes(), (path / "log.jsonl").read_bytes()


def start(site, runs, changed):
    """A supervisor in a process of its own, to be killed."""
    code = (
        "import json, sys; from gradatim.lab import RunRequest, supervise;"
        "supervise(RunRequest('random-walk', 'smoke', seed=3, runs=sys.argv[1], changed=json.loads(sys.argv[2]), resume=True))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.Popen([sys.executable, "-c", code, str(runs), json.dumps(changed)], env=environment)


def child_of(pid):
    """The process that a supervisor started, once there is one."""
    for _ in range(1000):
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                ours = int(entry.read_text().rpartition(")")[2].split()[1]) == pid
                if ours and b"gradatim.lab.child" in (entry.parent / "cmdline").read_bytes():
                    return int(entry.parent.name)
            except (OSError, IndexError):
                continue
        time.sleep(0.01)
    raise AssertionError("no child")


def kill_and_resume(site, runs, moments, whom):
    """Kills a run again and again, at so many seconds after its start, and lets it end; returns the outcome."""
    for moment, victims in zip(moments, whom, strict=True):
        supervisor = start(site, runs, KILLED)
        child = child_of(supervisor.pid)
        deadline = time.monotonic() + moment
        # Nor after its end, however fast the machine: once the last loop has begun, it is time.
        while time.monotonic() < deadline and len(list(runs.glob("*/*/checkpoints/*"))) < KILLED["loops"]:
            time.sleep(0.01)
        # The first is not killed before there is something to go on from: a new run would start.
        while not list(runs.glob("*/*/checkpoints/*/state.eqx")):
            time.sleep(0.01)
        for victim in {"child": [child], "both": [supervisor.pid, child], "supervisor": [supervisor.pid]}[victims]:
            os.kill(victim, signal.SIGKILL)
        supervisor.wait()
        wait_for_end(child)
    outcome = supervise(request(runs, seed=3, changed=KILLED, resume=True))
    assert outcome.status == "ok" and outcome.resumed, outcome
    return outcome


def wait_for_end(pid):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError("the child outlived its supervisor")


@pytest.mark.parametrize(
    "whom",
    [["child", "both", "supervisor"], pytest.param(["child", "both"] * 5, marks=pytest.mark.laptop)],
    ids=["three times", "ten times"],
)
def test_a_run_killed_at_random_moments_ends_in_the_same_bits(third_party, straight, tmp_path, whom):
    resumed = kill_and_resume(third_party, tmp_path / "killed", np.random.default_rng().uniform(0, 2.0, len(whom)), whom)
    assert findings(resumed.record) == findings(straight.record)
    assert [path.name for path in (tmp_path / "killed" / "random-walk").iterdir()] == [resumed.record.name]
    assert not (resumed.record / "checkpoints").exists()


def test_ctrl_c_stops_all_runs_and_says_how_to_go_on(third_party, ctrl_c, tmp_path):
    code = """
import sys
from gradatim.lab import RunRequest, run_papers
requests = [RunRequest("random-walk", "smoke", seed, {"pause": 60.0}, runs=sys.argv[1]) for seed in (0, 1, 2)]
for outcome in run_papers(requests, workers=2):
    print(outcome.cause, outcome.message)
"""
    environment = {**os.environ, "PYTHONPATH": str(third_party)}
    arguments = [sys.executable, "-c", code, str(tmp_path / "runs")]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
    while len(list((tmp_path / "runs").glob("*/*/checkpoints/*/state.eqx"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    lines = process.communicate(timeout=60)[0].splitlines()
    assert [line.split()[0] for line in lines] == ["interrupted"] * 3
    assert "`gradatim run random-walk --scale smoke" in lines[1] and "--seed 1" in lines[1] and "--resume`" in lines[1]
    assert "not started" in lines[2]
    partials = list((tmp_path / "runs").glob("*/*"))
    assert len(partials) == 2 and all(path.name.endswith(".partial") for path in partials)


def test_a_changed_configuration_is_not_mixed_with_old_checkpoints(third_party, tmp_path):
    asked = request(tmp_path / "runs", resume=True)
    folder = RunFolder.create(asked.runs, {"slug": asked.slug, "scale": asked.scale, "seed": 0, "changed": {}})
    draft = {"machine": {}, "config": {"steps": 99}, "resumed": [], "status": "failed"}
    (folder.path / "record.json").write_text(json.dumps(draft))
    (folder.path / "checkpoints" / "000").mkdir(parents=True)
    folder.release()
    failed = folder.path.rename(folder.final)
    outcome = supervise(asked)
    assert outcome.cause == "bad-input" and "has changed since" in outcome.message
    assert (failed / "checkpoints" / "000").exists() and json.loads((failed / "record.json").read_text()) == draft, "nothing is lost"


class Inline(Executor):
    """Any executor will do: this one runs what it is given at once."""

    def __init__(self):
        self.submitted = []

    def submit(self, fn, /, *args, **kwargs):
        self.submitted.append(args[0])
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def pretended(monkeypatch, supervisor):
    monkeypatch.setattr(sys.modules["gradatim.lab.run"], "supervise", supervisor)


def test_the_executor_is_a_parameter_and_a_lost_supervisor_stops_no_other(third_party, monkeypatch):
    def supervisor(request):
        if request.seed == 1:
            raise ConnectionError("worker gone")
        return RunOutcome(request.slug, request.scale, "ok")

    pretended(monkeypatch, supervisor)
    requests = [RunRequest("random-clock"), RunRequest("random-walk", seed=1), RunRequest("random-walk", seed=2)]
    executor = Inline()
    outcomes = run_papers(requests, executor=executor)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert outcomes[1].message == "the supervisor was lost: ConnectionError: worker gone"
    assert [asked.slug for asked in executor.submitted] == ["random-walk", "random-walk", "random-clock"]


def test_runs_about_time_have_the_machine_to_themselves(third_party, monkeypatch):
    running, most, threads = [], {}, {}
    lock = threading.Lock()

    def supervisor(request):
        with lock:
            running.append(request)
            most[request.seed] = len(running)
            threads[request.seed] = request.threads
        time.sleep(0.1)
        with lock:
            running.remove(request)
            most[request.seed] = max(most[request.seed], len(running) + 1)
        return RunOutcome(request.slug, request.scale, "ok")

    pretended(monkeypatch, supervisor)
    slugs = ["random-clock", "random-walk", "random-walk", "random-walk", "random-clock"]
    run_papers([RunRequest(slug, seed=i) for i, slug in enumerate(slugs)], workers=3)
    assert most[0] == most[4] == 1 and threads[0] is None
    assert max(most[i] for i in (1, 2, 3)) > 1 and threads[1] == 1


def test_the_childs_environment_respects_the_users(monkeypatch, tmp_path):
    for name in ("JAX_COMPILATION_CACHE_DIR", "NPROC", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = child_environment(RunRequest("random-walk"))
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "gradatim" / "jax")
    assert environment["MPLBACKEND"] == "agg" and not {"NPROC", "XLA_FLAGS"} & set(environment)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    pinned = child_environment(RunRequest("random-walk", threads=1))
    assert pinned["JAX_COMPILATION_CACHE_DIR"] == "/mine" and pinned["NPROC"] == "1"
    assert child_environment(RunRequest("random-walk", scale="smoke"))["XLA_FLAGS"] == QUICKLY_COMPILED
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    flags = child_environment(RunRequest("random-walk", scale="smoke"))["XLA_FLAGS"].split()
    assert flags[-1] == "--xla_backend_optimization_level=2"  # the last one counts


def test_the_command_of_a_request_asks_for_the_same():
    assert RunRequest("random-walk").command() == "gradatim run random-walk"
    changed = {"walkers.n_walkers": 5, "ages": [1.0, 2.0], "ending": "a b", "is_bent": False, "path.is_long": True, "shift": -0.5}
    asked = RunRequest("random-walk", "full", 7, changed, runs=Path("my runs"))
    words = "--scale full --seed 7 --runs 'my runs' --walkers.n-walkers 5 --ages 1.0 2.0 --ending 'a b' --no-is-bent --path.is-long"
    assert asked.command() == f"gradatim run random-walk {words} --shift=-0.5"


@pytest.mark.parametrize(("name", "is_known"), [("C1", True), ("C1.seconds", True), ("C9", False), ("C1.hours", False)])
def test_reasons_for_what_was_not_measured_name_a_claim_or_its_part(third_party, name, is_known):
    found = Findings({}, xr.DataTree(), {name: "no clock"})
    if is_known:
        assert child._judge(find("random-clock"), found, "smoke")["C1"]["reason"] == "no clock"
        return
    with pytest.raises(ValueError, match=f"the findings name '{name}', which is no part of a claim"):
        child._judge(find("random-clock"), found, "smoke")
