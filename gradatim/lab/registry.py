"""The papers that can be run: those of this package and those of others, read without importing JAX."""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from importlib.metadata import entry_points
from pathlib import Path

from gradatim.lab.paper import Paper, module_beside, read_paper

GROUP = "gradatim.papers"
"The entry-point group of third-party papers, and the package of our own."


def papers() -> dict[str, Paper]:
    """Every paper by its slug, in alphabetical order.

    Our own are the TOML files beside this package's experiments. Another package adds one by an entry point of the group
    `gradatim.papers`, named as the slug, with the value `"package.module"`; its TOML stands beside the module, with the same stem.

    A paper that cannot be read is left out, with a warning that names it.
    """
    found, broken = _read_all()
    for name, error in broken.items():
        warnings.warn(f"paper {name!r} cannot be read and is left out: {error}", stacklevel=2)
    return found


def find(slug: str) -> Paper:
    """The paper of one slug.

    **Raises:** `ValueError` if there is none, with the closest names, or if its file cannot be read.

    >>> find("diffgrad").title
    'diffGrad: An Optimization Method for Convolutional Neural Networks'
    """
    found, broken = _read_all()
    if slug in found:
        return found[slug]
    if slug in broken:
        raise ValueError(f"paper {slug!r} cannot be read: {broken[slug]}")
    close = difflib.get_close_matches(slug, found, n=3) or [name for name in found if slug and slug in name][:3]
    hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    raise ValueError(f"there is no paper {slug!r}{hint}; `gradatim list` shows all {len(found)}")


def _read_all() -> tuple[dict[str, Paper], dict[str, Exception]]:
    found: dict[str, Paper] = {}
    broken: dict[str, Exception] = {}
    # By name: the laboratory knows the experiments as data, and never imports them.
    package = importlib.util.find_spec(GROUP)
    for folder in (package.submodule_search_locations or ()) if package else ():
        for path in sorted(Path(folder).glob("*.toml")):
            try:
                paper = read_paper(path, module_beside(path, GROUP))
                found[paper.slug] = paper
            except (ValueError, OSError) as error:
                broken[path.stem.replace("_", "-")] = error
    for point in entry_points(group=GROUP):
        # Whatever goes wrong in another package must not take ours down.
        try:
            paper = _third_party(point.name, point.module)
            if paper.slug in found:
                raise ValueError(f"{point.value}: the slug {paper.slug!r} is taken by {found[paper.slug].module_name or GROUP}")
            found[paper.slug] = paper
        except Exception as error:
            broken.setdefault(point.name if point.name not in found else point.value, error)
    return dict(sorted(found.items())), broken


def _third_party(slug: str, module: str) -> Paper:
    parent, _, stem = module.rpartition(".")
    # The parent alone is looked up, so that the module (and JAX with it) stays unimported.
    spec = importlib.util.find_spec(parent or stem)
    if spec is None:
        raise ValueError(f"{module}: there is no package {parent or stem!r}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if parent else [Path(spec.origin or "").parent]
    for folder in folders:
        toml = folder / f"{stem}.toml"
        if toml.exists():
            paper = read_paper(toml, module)
            if paper.slug != slug:
                raise ValueError(f"{toml.name}: the entry point is named {slug!r} but the slug is {paper.slug!r}")
            return paper
    raise ValueError(f"{module}: there is no {stem}.toml beside the module")
