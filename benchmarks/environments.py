"""Environments of the peers, apart from the library's own: their requirements would not go together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def python_of(name: str) -> str:
    """The Python of the peers' environment `name`, installed from `peers/NAME.txt` on first use."""
    requirements = HERE / "peers" / f"{name}.txt"
    folder = HERE.parent / f".venv-peers-{name}"
    python = folder / "bin" / "python"
    stamp = folder / ".complete"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print(f"installing the peers of {requirements.name} into {folder.name}", file=sys.stderr)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
        stamp.write_text(requirements.read_text())
    return str(python)
