"""A new paper from a template: its claims and its experiment, which run as they are."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from gradatim.lab.registry import papers

_TEMPLATE = Path(__file__).with_name("example.toml")


def new_paper(slug: str, directory: Path | str = Path()) -> tuple[Path, Path]:
    """Writes `slug_with_underscores.toml` and `.py` into a folder and returns their paths.

    They hold a small experiment that runs: change it into the paper's. A package of its own makes them known with

        [project.entry-points."gradatim.papers"]
        my-slug = "my_package.my_slug"

    **Raises:** `ValueError` for a slug that is malformed, cannot name a module or is taken; `FileExistsError` if a file is there.
    """
    stem = slug.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) or keyword.iskeyword(stem):
        raise ValueError(f"slug must be lower-case words joined by hyphens that begin with a letter, got {slug!r}")
    if slug in papers():
        raise ValueError(f"there is a paper {slug!r} already; choose another slug")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    targets = (folder / f"{stem}.toml", folder / f"{stem}.py")
    for target in targets:
        if target.exists():
            raise FileExistsError(f"{target} is there already; remove it, or choose another slug or folder")
    for target in targets:
        text = _TEMPLATE.with_suffix(target.suffix).read_text(encoding="utf-8")
        target.write_text(text.replace('slug = "example"', f'slug = "{slug}"'), encoding="utf-8")
    return targets
