"""A built wheel runs a paper in a clean environment outside the tree."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_runs_a_paper(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    # The locked versions, without the hashes: pip then resolves what the wheel itself declares, to versions known to work.
    lock = (ROOT / "requirements.lock").read_text()
    (tmp_path / "constraints.txt").write_text("\n".join(re.findall(r"(?m)^([a-z0-9][^\\\n]*?)\s*\\$", lock)))
    run(sys.executable, "-m", "venv", tmp_path / "env")
    pip = [tmp_path / "env/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", "-c", tmp_path / "constraints.txt", wheel)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    gradatim = tmp_path / "env/bin/gradatim"
    (outcome,) = json.loads(run(gradatim, "run", "thermomigration", "--scale", "smoke", "--json", cwd=tmp_path, env=environment))
    assert outcome["status"] == "ok"
    assert Path(tmp_path, outcome["record"], "record.json").exists()
    assert json.loads(run(gradatim, "list", "--json", cwd=tmp_path, env=environment))
