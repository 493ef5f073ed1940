import functools
import gc
import os
from pathlib import Path

# Before JAX is imported: compiled programs are shared between test processes and runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"))  # noqa: PTH118, PTH120
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "agg")
# Random numbers of several axes compile twenty times faster so; what is asserted must not depend on which numbers they are.
os.environ.setdefault("JAX_THREEFRY_PARTITIONABLE", "0")
# Where in the source an operation comes from is written down for each of them, a hundred frames deep under pytest.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import hypothesis
import jaxtyping
import pytest

# Stays installed: the rooms are imported when a test first asks for them.
# An int where a float is declared is right, as it is for Python's type checkers.
jaxtyping.install_import_hook("gradatim", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from gradatim.lab.supervisor import QUICKLY_COMPILED  # noqa: E402

# Most of the suite's time is compilation, of programs that run for milliseconds.
os.environ.setdefault("XLA_FLAGS", QUICKLY_COMPILED)

import jax  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

# One context for all programs of a process: JAX makes one for each, whose dialects take a tenth of the time of a small program
# and, as long as the program is remembered, a megabyte. What is compiled while another program is being written down has its own.
own_context = mlir.make_ir_context
shared_context = functools.cache(own_context)
mlir.make_ir_context = lambda: shared_context() if mlir.ir.Context.current is None else own_context()
# Tracing makes many objects and few cycles: to look for these seventy times less often saves another tenth.
gc.set_threshold(50_000, 20, 50)

# The first call of a property compiles, which is no fault of the property.
# A third of the usual examples: the suite has a quarter of an hour for thirty-two papers.
hypothesis.settings.register_profile("gradatim", max_examples=33, deadline=None, print_blob=True)
hypothesis.settings.load_profile("gradatim")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def getkey(request):
    """A function that hands out fresh keys, the same ones each time the test runs."""
    seed = sum(map(ord, request.node.nodeid))
    keys = iter(jax.random.split(jax.random.key(seed), 1000))
    return lambda: next(keys)


@pytest.fixture
def without_type_checks():
    """As for a user, for whom the types of the tests do not stop a wrong word first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def double():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_forgotten_in_time():
    """Each keeps memory mappings, of which a process may have 65,530; the suite has more, and then ends without a word."""
    yield
    mappings = Path("/proc/self/maps")
    if not mappings.exists() or mappings.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
