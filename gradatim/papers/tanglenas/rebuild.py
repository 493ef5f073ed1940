"""Trains every architecture of the cell space alone, a quarter of an hour on one core, and writes the table into the package.

    python -m gradatim.papers.tanglenas.rebuild FOLDER

FOLDER keeps checkpoints, from which the same command goes on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from gradatim.lab import Session
from gradatim.lab.environment import machine, versions

from .config import Search
from .networks import load_parts, rest_of
from .table import PATH, SEED, decides, train_table


def main(folder: str) -> None:
    """Trains and writes."""
    config, directory = Search(), Path(folder)
    session = Session(jax.random.key(SEED), directory=directory, resume=directory.exists(), quiet=False)
    table = train_table(config, rest_of(config).space, load_parts(config, session), session, session.key)
    content = {
        "what": "test accuracy in percent of each of 64 architectures (rows, the last choice counts fastest), trained alone from each seed",
        "command": "python -m gradatim.papers.tanglenas.rebuild FOLDER",
        "config": decides(config),
        "seed": SEED,
        "versions": versions(),
        "machine": machine(),
        "data": [asdict(one) for one in session.provenances],
        "accuracies": np.round(table.accuracies, 4).tolist(),
    }
    PATH.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
