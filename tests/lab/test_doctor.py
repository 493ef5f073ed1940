from pathlib import Path

from gradatim.lab.doctor import examine, folder_check


def test_everything_a_run_needs_is_looked_at(tmp_path):
    checks = {(check.group, check.name): check for check in examine(tmp_path / "runs")}
    assert {group for group, _ in checks} == {"versions", "machine", "caches", "folders"}
    assert checks["versions", "jax"].ok
    assert checks["machine", "JAX"].found.startswith("cpu")
    assert checks["folders", "runs"].ok
    assert not (tmp_path / "runs").exists()


def test_missing_extra_is_no_fault_but_says_how_to_get_it(monkeypatch, tmp_path):
    from importlib import metadata

    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package>=1; extra == 'cluster'", "no-such-base>=1"])
    checks = {check.name: check for check in examine(tmp_path)}
    assert checks["no-such-package"].ok
    assert checks["no-such-package"].advice == "pip install 'gradatim[cluster]'"
    assert not checks["no-such-base"].ok


def test_folder_that_cannot_be_written(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    check = folder_check("runs", Path("anywhere"))
    assert not check.ok
    assert "Permission denied" in check.found
    assert "name a folder" in check.advice
