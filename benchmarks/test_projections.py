"""A projection onto a convex set, and a cotangent pulled back through it: ours; jaxopt's in `peers/`.

Both are compared with slow methods of NumPy first. The time is that of one compiled call which does both, in double precision.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gradatim.implicit import project_birkhoff, project_box_section, project_polyhedron, project_transportation

_spec = importlib.util.spec_from_file_location("sets", Path(__file__).parent / "peers" / "sets.py")
assert _spec is not None
assert _spec.loader is not None
sets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sets)

OURS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    sets.SECTION: (project_box_section, ("a", "b", "lower", "upper")),
    sets.POLYHEDRON: (project_polyhedron, ("A", "b", "G", "h")),
    sets.TRANSPORTATION: (project_transportation, ("a", "b")),
    sets.BIRKHOFF: (project_birkhoff, ()),
}


@pytest.mark.parametrize("group", OURS)
def test_projection(benchmark: Any, group: str) -> None:
    projection, names = OURS[group]
    benchmark.group, benchmark.param = group, "gradatim"
    problem = sets.WORK[group]()
    with jax.enable_x64(True):
        given = [jnp.asarray(problem[name]) for name in ("v", "cotangent", *names)]

        def pull(v: Any, cotangent: Any, *others: Any) -> Any:
            x, back = jax.vjp(lambda v: projection(v, *others), v)
            return x, back(cotangent)[0]

        lowered: Any = jax.jit(pull)
        compiled = lowered.lower(*given).compile()
        errors = sets.errors(problem, *compiled(*given))
        assert max(errors.values()) < sets.AGREEMENT
        benchmark.extra_info.update(errors)
        benchmark.pedantic(lambda: jax.block_until_ready(compiled(*given)), rounds=30, warmup_rounds=2)
