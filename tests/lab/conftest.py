import shutil
import signal
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1] / "third_party"


@pytest.fixture(scope="session")
def install_papers():
    """Puts the package with the example papers into a folder."""
    return lambda site: install(PROJECT, site)


@pytest.fixture
def ctrl_c():
    """This process and those that it starts hear SIGINT, to which a shell makes the suite deaf that starts it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A package of its own with papers in it, installed into a folder that is on the path for this test."""
    site = tmp_path / "site-packages"
    install(PROJECT, site)
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "gradatim_example_paper"]:
        del sys.modules[name]


def install(project, site):
    """What pip leaves of a pure Python package, without the wait."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    package = table["name"].replace("-", "_")
    shutil.copytree(project / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{package}-{table['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n")
    files = [path.relative_to(site).as_posix() for path in (site / package).iterdir()]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    points = table["entry-points"]["gradatim.papers"].items()
    (info / "entry_points.txt").write_text("[gradatim.papers]\n" + "".join(f"{name} = {value}\n" for name, value in points))
