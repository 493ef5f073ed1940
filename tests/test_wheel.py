"""A built wheel runs a paper in a clean environment outside the tree, with nothing beside it but what it declares."""

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def declared(requirements):
    """The installed distributions that the requirements name, and those that these name in turn."""
    found, waiting = {}, [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            asked = (requirement.name.lower().replace("_", "-"), extra)
            if asked in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            found[asked] = dist = distribution(requirement.name)
            for inner in map(Requirement, dist.requires or ()):
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    # Judged already, for the extra that was asked for.
                    inner.marker = None
                    waiting.append(inner)
    return {dist.metadata["Name"]: dist for dist in found.values()}.values()


def lend(dist, site):
    """Links a distribution's files, and what Python compiled of them, into another environment, as pip would unpack it but at once."""
    for file in dist.files:
        here, there = Path(dist.locate_file(file)), site / file
        if ".." in file.parts or "__pycache__" in file.parts or not here.exists():
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(here)
        compiled = here.parent / "__pycache__"
        if here.suffix == ".py" and there.parent != site and compiled.exists() and not (there.parent / "__pycache__").exists():
            (there.parent / "__pycache__").symlink_to(compiled)


def test_wheel_runs_a_paper(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python, gradatim = tmp_path / "env/bin/python", tmp_path / "env/bin/gradatim"
    run(sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", "install", "--no-deps", wheel)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    code = "import importlib.metadata as m, json, sysconfig; print(json.dumps([sysconfig.get_path('purelib'), m.requires('gradatim')]))"
    site, requirements = json.loads(run(python, "-c", code, cwd=tmp_path, env=environment))
    lent = declared([text for text in requirements if "extra ==" not in text])
    for dist in lent:
        lend(dist, Path(site))
    assert {"jax", "optax", "xarray"} <= {dist.metadata["Name"] for dist in lent} and len(lent) < 80
    (outcome,) = json.loads(run(gradatim, "run", "thermomigration", "--scale", "smoke", "--json", cwd=tmp_path, env=environment))
    assert outcome["status"] == "ok"
    assert Path(tmp_path, outcome["record"], "record.json").exists()
    assert json.loads(run(gradatim, "list", "--json", cwd=tmp_path, env=environment))
