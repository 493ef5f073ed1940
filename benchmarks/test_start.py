"""What starting costs: importing the package, the command's help, and `gradatim run` beside a call of the paper's own `run` and `draw`."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from turns import Rival, in_turns

from gradatim.lab import RunRequest
from gradatim.lab.supervisor import child_environment

PYTHON, GRADATIM = sys.executable, str(Path(sys.executable).with_name("gradatim"))
DIRECTLY = """
import jax
from gradatim.lab import Session
from gradatim.papers import thermomigration

jax.config.update("jax_enable_x64", True)
findings = thermomigration.run(thermomigration.SCALES["smoke"], Session(jax.random.key(0), precision="double", scale="smoke"))
"""
# What the command loads beyond the paper: the command line, twice, and what data and figures are written with (xarray asks Dask, where it
# is installed, whether a cluster is at work).
IMPORTS = """
import subprocess
import sys

subprocess.run([sys.executable, "-c", "import gradatim.cli.running, gradatim.lab.run"], check=True)
import dask.base, dask.distributed
import gradatim.lab.child, h5netcdf, matplotlib.backends.backend_agg, matplotlib.figure, matplotlib.image
"""
FIGURES = """
from gradatim.lab.plots import png

[png(figure) for figure in thermomigration.draw(findings).values()]
"""
COMMANDS = {
    "import gradatim": {"gradatim": [PYTHON, "-c", "import gradatim"], "Python alone": [PYTHON, "-c", "pass"]},
    "gradatim --help": {"gradatim": [GRADATIM, "--help"], "Python alone": [PYTHON, "-c", "pass"]},
    "thermomigration at smoke scale": {
        "gradatim": [GRADATIM, "run", "thermomigration", "--scale", "smoke", "--quiet", "--json"],
        "run called directly": [PYTHON, "-c", DIRECTLY],
        "the same and the command's imports": [PYTHON, "-c", IMPORTS + DIRECTLY],
        "the same, the command's imports and draw": [PYTHON, "-c", IMPORTS + DIRECTLY + FIGURES],
    },
}


@pytest.mark.parametrize("group", COMMANDS)
def test_start(benchmark, group, tmp_path):
    # Both ways compile alike and share a folder of programs, which are there after the first round.
    request = RunRequest("thermomigration", scale="smoke")
    same = {key: value for key, value in child_environment(request).items() if key.startswith(("JAX_", "XLA_"))}
    environment = {**os.environ, **same}

    start = functools.partial(subprocess.run, check=True, capture_output=True, cwd=tmp_path, env=environment)
    in_turns(benchmark, group, {name: Rival(functools.partial(start, command)) for name, command in COMMANDS[group].items()}, rounds=9)
