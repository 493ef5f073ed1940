"""A new paper from a template: its claims and its experiment, which run as they are."""

from __future__ import annotations

from pathlib import Path


def new_paper(slug: str, directory: Path = Path()) -> tuple[Path, Path]:
    """Writes `slug_with_underscores.toml` and `.py` into a folder and returns their paths.

    **Raises:** `ValueError` for a slug that is malformed, cannot name a module or is taken; `FileExistsError` if a file is there.
    """
    raise NotImplementedError
