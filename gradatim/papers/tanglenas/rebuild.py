"""Trains every architecture of a space alone, for minutes on one core, and writes the table into the package.

    python -m gradatim.papers.tanglenas.rebuild SPACE FOLDER

SPACE is `cell` or `macro`; FOLDER keeps checkpoints, from which the same command goes on.
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
from .networks import load_parts
from .table import SEED, decides, path_of, train_table


def main(space: str, folder: str) -> None:
    """Trains and writes."""
    config, directory = Search(), Path(folder)
    session = Session(jax.random.key(SEED), directory=directory, resume=directory.exists(), quiet=False)
    accuracies = train_table(config, space, load_parts(config, session), session, session.key)
    content = {
        "what": f"test accuracy in percent of each of {len(accuracies)} architectures (rows, the last choice counts fastest), "
        "trained alone from each seed",
        "command": f"python -m gradatim.papers.tanglenas.rebuild {space} FOLDER",
        "config": decides(config, space),
        "seed": SEED,
        "versions": versions(),
        "machine": machine(),
        "data": [asdict(one) for one in session.provenances],
        "accuracies": np.round(accuracies, 4).tolist(),
    }
    path_of(space).write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
