"""What a run ran on: versions, machine, source commit and memory."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from gradatim.lab.registry import GROUP

PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGES = ("gradatim", "jax", "jaxlib", "numpy", "optax", "equinox", "xarray")
OWN_MEMORY = 1_000_000_000
"Bytes of Python, JAX and compiled programs: half of it in a small run, twice as much where dozens of programs are compiled."


def versions(*others: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide an outcome, and of `others`."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *others):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def distributions(module: ModuleType) -> list[str]:
    """The installed distributions, other than this one, whose entry points name a module as a paper."""
    # Not `packages_distributions`, which reads the list of files of everything that is installed.
    points = metadata.entry_points(group=GROUP)
    return list(dict.fromkeys(point.dist.name for point in points if point.module == module.__name__ and point.dist is not None))


def machine() -> dict[str, Any]:
    """System, processor and number of cores."""
    return {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(), "cpus": os.cpu_count()}


def devices() -> dict[str, Any]:
    """JAX's platform, kind and number of devices, and the flags that its compiler was given; imports JAX."""
    import jax

    found = {"platform": jax.default_backend(), "device": jax.devices()[0].device_kind, "devices": jax.device_count()}
    return {**found, "xla_flags": os.environ.get("XLA_FLAGS", "")}


def commit(package: Path = PACKAGE) -> str | None:
    """The commit of the source checkout that holds the package (`-dirty` if the package's own files differ from it), or None.

    What lies beside the package, results above all, does not count: no run reads it.
    """
    if not (package.parent / ".git").exists():
        return None
    try:
        head, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changes else head


def peak_memory() -> int | None:
    """The most bytes of memory this process has held."""
    # Linux's getrusage starts from the parent's peak, so it cannot be used for a child.
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None


def available_memory() -> int | None:
    """Bytes that a run can take without swapping, the container's limit counted; None where the system does not say."""
    limits = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    for folder, limit, used, reclaimable in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Cached files count as used, but give way to a run.
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            taken = int(Path(folder, used).read_text()) - int(stat[reclaimable])
            limits.append(int(Path(folder, limit).read_text()) - taken)
    if not limits:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return max(0, min(limits)) if limits else None


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
