import errno
import json
import math
import multiprocessing
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from gradatim.lab import Measure, latest, list_records, open_record
from gradatim.lab.environment import available_memory, commit, peak_memory, versions
from gradatim.lab.records import SCHEMA_VERSION, jsonable
from gradatim.lab.run_folder import RunFolder, StorageError, complete, refused, storage, write_bytes, write_json

REQUEST = {"slug": "random-walk", "scale": "smoke", "seed": 0, "changed": {"steps": 20}}
ENDLESS = Measure(2.0, 1.0, math.inf, "no bound above", (2.0, math.inf))
ORDER = Measure.paired_sequence([[1.0, 2.0, 3.0], [1.5, 2.5, 3.6]])
RECORD = {
    "schema_version": SCHEMA_VERSION,
    **REQUEST,
    "precision": "single",
    "status": "ok",
    "error": "",
    "config": {"steps": 20},
    "versions": {"jax": "0"},
    "machine": {},
    "commit": None,
    "started": "2026-01-01T00:00:00.000+00:00",
    "finished": "2026-01-01T00:00:01.000+00:00",
    "seconds": {"compile": 1.0, "run": 2.0, "total": 4.0},
    "peak_memory": 1,
    "measures": {"C1.exponent": ENDLESS, "C2.order": ORDER},
    "verdicts": {"C1": {"verdict": "holds", "value": 2.0, "low": 1.0, "high": math.inf, "parts": {"exponent": {"high": math.inf}}}},
    "untested": {},
    "notes": [],
    "provenance": [],
}


def write(runs, **changes):
    folder = RunFolder.create(runs, REQUEST)
    write_json(folder.path / "record.json", {**RECORD, **changes})
    folder.release()
    return complete(folder.path)


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = write(tmp_path)
    record = open_record(path)
    assert record == open_record(str(path / "record.json"))
    assert record.measures == {"C1.exponent": ENDLESS, "C2.order": ORDER}
    assert record.verdicts["C1"]["high"] == math.inf == record.verdicts["C1"]["parts"]["exponent"]["high"]
    assert record.summary()["verdicts"]["C1"]["high"] == "inf"
    assert record.figures == []
    assert "Infinity" not in (path / "record.json").read_text()


def test_data_keep_names_units_and_values(tmp_path):
    import xarray as xr  # here: the eight writers of another test import this module

    path = write(tmp_path)
    temperature = ("time", np.array([1.0, np.nan, np.inf]), {"units": "seconds"})
    xr.DataTree.from_dict({"/a": xr.Dataset({"temperature": temperature})}).to_netcdf(path / "data.nc", engine="h5netcdf")
    back = open_record(path).data["a/temperature"]
    np.testing.assert_array_equal(back.values, temperature[1])
    assert (back.dims, back.attrs["units"]) == (("time",), "seconds")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "record.json").unlink(), "is no record: it has no record.json"),
        (lambda path: (path / "record.json").write_text('{"slug": '), "is damaged"),
        (lambda path: (path / "record.json").write_bytes(b"\xff\xfe"), "is damaged"),
        (lambda path: (path / "record.json").write_text("[]"), "is damaged"),
        (lambda path: edit(path, schema_version=SCHEMA_VERSION + 1), "newer version of gradatim .*upgrade gradatim"),
        (lambda path: edit(path, seconds=None, measures=3), "is damaged"),
        (lambda path: edit(path, measures={"C1.x": {"value": 1, "low": 2, "high": 3, "method": "", "samples": []}}), "cannot be read"),
    ],
)
def test_a_damaged_record_is_a_clear_error_and_hides_no_other(tmp_path, damage, message):
    good, bad = write(tmp_path), write(tmp_path)
    damage(bad)
    with pytest.raises(ValueError, match=message):
        open_record(bad)
    with pytest.warns(UserWarning, match="left out"):
        assert [record.path for record in list_records(tmp_path)] == [good]


def edit(path, **changes):
    table = json.loads((path / "record.json").read_text())
    (path / "record.json").write_text(json.dumps({**table, **changes}))


def test_damaged_data_is_a_clear_error(tmp_path):
    record = open_record(write(tmp_path))
    with pytest.raises(ValueError, match=r"holds no data.nc"):
        _ = record.data
    (record.path / "data.nc").write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"data.nc is damaged"):
        _ = record.data


def test_missing_and_unfinished_records_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no record at"):
        open_record(tmp_path / "nothing")
    folder = RunFolder.create(tmp_path, REQUEST)
    with pytest.raises(ValueError, match=r"is an unfinished run; .*--resume"):
        open_record(folder.path)
    assert list_records(tmp_path) == []
    folder.release()


def test_latest_is_the_newest_that_fits(tmp_path):
    assert latest("random-walk", tmp_path) is None
    old = write(tmp_path, started="2026-01-01")
    new = write(tmp_path, started="2026-01-03", scale="laptop")
    failed = write(tmp_path, started="2026-01-04", status="failed", error="Traceback\nValueError: no")
    assert [record.path for record in list_records(tmp_path)] == [failed, new, old]
    assert latest("random-walk", tmp_path).path == new
    assert latest("random-walk", tmp_path, scale="smoke").path == old
    assert latest("random-walk", tmp_path, status=None).path == failed
    assert open_record(failed).summary()["error"] == "ValueError: no"


def write_many(runs, n):
    for i in range(n):
        write(runs, notes=[f"{os.getpid()} {i}"])


def test_eight_processes_write_two_hundred_records_and_lose_none(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(tmp_path, 25)) for _ in range(8)]
    for writer in writers:
        writer.start()
    # Read all the while: whatever is listed must be whole.
    while any(writer.is_alive() for writer in writers):
        list_records(tmp_path)
        time.sleep(0.2)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    records = list_records(tmp_path)
    assert len({record.notes[0] for record in records}) == len(records) == 200
    assert not list(tmp_path.glob("*/*.partial"))


def test_only_one_of_many_takes_an_unfinished_run_up_again(tmp_path):
    folder = RunFolder.create(tmp_path, REQUEST)
    assert RunFolder.resume(tmp_path, REQUEST) is None, "its maker still works on it"
    folder.release()
    first = RunFolder.resume(tmp_path, REQUEST)
    assert first is not None and first.resumed and first.path == folder.path
    assert RunFolder.resume(tmp_path, REQUEST) is None
    first.release()


@pytest.mark.parametrize("other", [{"seed": 1}, {"scale": "laptop"}, {"changed": {}}, {"changed": {"steps": 21}}])
def test_another_request_does_not_take_an_unfinished_run(tmp_path, other):
    RunFolder.create(tmp_path, REQUEST).release()
    assert RunFolder.resume(tmp_path, {**REQUEST, **other}) is None


def test_a_failed_run_is_taken_up_again_while_it_has_checkpoints(tmp_path):
    bare = write(tmp_path, status="failed")
    assert RunFolder.resume(tmp_path, REQUEST) is None
    (bare / "checkpoints").mkdir()
    (bare / "checkpoints" / "state").touch()
    folder = RunFolder.resume(tmp_path, REQUEST)
    assert folder is not None and folder.path.name == f"{bare.name}.partial" and not bare.exists()
    folder.release()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write to .*file.*: Not a directory; make room or grant access there, or .*--runs"):
        RunFolder.create(tmp_path / "file", REQUEST)


def test_a_read_only_folder_is_one_clear_error(tmp_path, monkeypatch):
    # Permission bits do not stop a superuser, who may run these tests; what the system would say does.
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match=r"cannot write to .*random-walk: Permission denied; make room or grant access"):
        RunFolder.create(tmp_path, REQUEST)


def test_a_full_disk_is_one_clear_error_and_keeps_the_old_text(tmp_path):
    path = write(tmp_path) / "record.json"
    before = path.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write to .*: File too large"), storage(tmp_path):
            write_bytes(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["record.json", "request.json"]


def test_an_experiments_own_file_errors_stay_its_own(tmp_path):
    with pytest.raises(FileNotFoundError), storage(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no such data", "/data")
    with pytest.raises(PermissionError) as caught, storage(tmp_path):
        raise PermissionError(errno.EACCES, "not yours", "/data")
    assert not isinstance(caught.value, StorageError)


def test_json_is_strict():
    text = json.dumps(jsonable({"a": np.array([1.0, np.inf]), "b": (np.float32(0.5), -math.inf, None, True)}), allow_nan=False)
    assert json.loads(text) == {"a": [1.0, "inf"], "b": [0.5, "-inf", None, True]}
    with pytest.raises(TypeError, match="a record cannot hold a object"):
        jsonable({"a": object()})


def test_the_environment_is_known():
    assert {"python", "gradatim", "jax", "jaxlib", "numpy", "optax", "equinox"} <= set(versions())
    assert peak_memory() > 1e6
    assert available_memory() > 1e6
    assert commit() is None or len(commit().removesuffix("-dirty")) == 40


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_only_changes_of_the_package_make_its_commit_dirty(tmp_path):
    package, beside = tmp_path / "package", tmp_path / "results.json"
    package.mkdir()
    assert commit(package) is None
    (package / "code.py").write_text("a = 1")
    beside.write_text("{}")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "first")):
        subprocess.run([*git, *words], check=True)
    beside.write_text("{1}")
    clean = commit(package)
    assert clean is not None and len(clean) == 40
    (package / "code.py").write_text("a = 2")
    assert commit(package) == f"{clean}-dirty"


def test_records_of_one_paper_are_told_from_those_of_others(tmp_path):
    write(tmp_path)
    assert list_records(tmp_path, "random-clock") == [] and latest("random-clock", tmp_path) is None
    assert len(list_records(tmp_path, "random-walk")) == len(list_records(tmp_path)) == 1


def test_the_newest_unfinished_run_is_taken_up_again(tmp_path):
    folders = [RunFolder.create(tmp_path, REQUEST) for _ in range(3)]
    for folder, day in zip(folders, ("02", "03", "01"), strict=True):
        folder.release()
        folder.path.rename(folder.path.with_name(f"202601{day}T000000Z-00000000.partial"))
    resumed = RunFolder.resume(tmp_path, REQUEST)
    assert resumed is not None and resumed.path.name == "20260103T000000Z-00000000.partial"
    assert resumed.final.name == "20260103T000000Z-00000000"
    resumed.release()


@pytest.mark.parametrize("kept", [True, False])
def test_a_complete_folder_holds_nothing_that_was_for_its_making(tmp_path, kept):
    folder = RunFolder.create(tmp_path, REQUEST)
    for name in ("figures", "scratch", "checkpoints"):
        (folder.path / name).mkdir()
    for name in (".record.json.7", "figures/.spread.png.7", "figures/spread.png", "scratch/big", "checkpoints/state", "output.txt"):
        (folder.path / name).touch()
    (folder.path / "crash.txt").write_text("Segmentation fault")
    folder.release()
    final = complete(folder.path, keep_checkpoints=kept)
    files = {path.relative_to(final).as_posix() for path in final.rglob("*") if path.is_file()}
    assert files == {"request.json", "crash.txt", "figures/spread.png"} | ({"checkpoints/state"} if kept else set())
    assert not (final / "scratch").exists()


def test_a_refusal_is_found_behind_the_errors_that_libraries_wrap_it_in(tmp_path):
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = OSError("100 requested and 3 written")  # as numpy says it
    assert isinstance(refused(wrapped, tmp_path), StorageError)
    assert refused(OSError("a socket of its own"), tmp_path) is None and refused(RuntimeError("no"), tmp_path) is None
