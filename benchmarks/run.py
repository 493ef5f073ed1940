"""Ours beside the peers: runs every benchmark and peer back to back, prints the ratios and writes `results.json`.

    python benchmarks/run.py [WORD]        only the files whose name holds WORD

`test_*.py` runs under pytest-benchmark in the environment of the library. `peers/ENVIRONMENT_*.py` are scripts that print a JSON list of
`{group, name, seconds, info}`; each runs in an environment of its own, made from `peers/ENVIRONMENT.txt` on first use.
A row's ratio is its seconds over ours in the same group: above 1, we are ahead.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import python_of
from rich.console import Console
from rich.table import Table

from gradatim.lab.environment import machine, versions

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
OURS = "gradatim"


def main(word: str = "") -> None:
    """Runs what matches, keeps the older results of what does not."""
    if not list(HERE.glob(f"*_*{word}*.py")) + list((HERE / "peers").glob(f"*{word}*.py")):
        sys.exit(f"no benchmark is named like {word!r}; there are: {', '.join(path.stem for path in sorted(HERE.glob('test_*.py')))}")
    rows = [row for path in sorted(HERE.glob(f"test_*{word}*.py")) for row in _ours(path)]
    rows += [row for path in sorted((HERE / "peers").glob(f"*_*{word}*.py")) for row in _peer(path)]
    groups: dict[str, Any] = json.loads(RESULTS.read_text())["groups"] if RESULTS.exists() else {}
    for group in dict.fromkeys(row["group"] for row in rows):
        groups[group] = _with_ratios([row for row in rows if row["group"] == group])
    results = {"date": datetime.date.today().isoformat(), "versions": versions("matfree"), "machine": machine(), "groups": groups}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(groups)


def _with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = next((row["seconds"] for row in rows if row["name"] == OURS), None)
    entries = [{k: v for k, v in row.items() if k != "group"} | {"ratio": row["seconds"] / ours if ours else None} for row in rows]
    return sorted(entries, key=lambda entry: entry["seconds"])


def _ours(path: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=prepend"]
        subprocess.run([*command, f"--benchmark-json={report}", str(path)], check=True, cwd=HERE.parent)
        benchmarks = json.loads(report.read_text())["benchmarks"]
    return [{"group": entry["group"], **row} for entry in benchmarks for row in _rows(entry)]


def _rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of rivals that took turns, or the entry's own."""
    alone = {"name": entry["param"] or entry["name"], "seconds": entry["stats"]["median"], "info": entry["extra_info"]}
    return entry["extra_info"].get("rows", [alone])


def _peer(path: Path) -> list[dict[str, Any]]:
    environment = path.stem.partition("_")[0]
    python = python_of(environment)
    done = subprocess.run([python, str(path)], stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    return json.loads(done.stdout.strip().splitlines()[-1])


def _print(groups: dict[str, Any]) -> None:
    table = Table(title="Ours beside the peers")
    for heading in ("work", "who", "seconds", "ratio to ours", "notes"):
        table.add_column(heading, justify="right" if heading in ("seconds", "ratio to ours") else "left")
    for group, entries in groups.items():
        for i, entry in enumerate(entries):
            ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.2f} ×"
            notes = ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in entry["info"].items()
            )
            table.add_row(group if i == 0 else "", entry["name"], f"{entry['seconds']:.4g}", ratio, notes)
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main(*sys.argv[1:2])
