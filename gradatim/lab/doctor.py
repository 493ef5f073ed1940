"""What this machine offers to a run: versions, devices, caches and writable folders."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gradatim.lab import environment
from gradatim.lab.request import RunRequest
from gradatim.lab.supervisor import child_environment


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, whether that will do, and what to do if not."""

    group: str
    name: str
    found: str
    ok: bool = True
    advice: str = ""


def examine(runs: Path) -> list[Check]:
    """Looks at the interpreter, the packages, the machine, JAX's devices and cache, and whether `runs` can be written to."""
    return [*_versions(), *_machine(), *_caches(runs), folder_check("runs", runs)]


def folder_check(name: str, folder: Path) -> Check:
    """Whether files can be made in a folder, or in the nearest one that exists above it."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check("folders", name, f"{folder}: {error.strerror}", ok=False, advice="name a folder you may write to")
    return Check("folders", name, f"{folder}, {shutil.disk_usage(existing).free / 2**30:.1f} GiB free")


def _versions() -> list[Check]:
    checks = [
        Check("versions", "python", f"{platform.python_version()} ({sys.executable})"),
        Check("versions", "gradatim", metadata.version("gradatim")),
    ]
    for requirement in metadata.requires("gradatim") or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        # The documentation's tools are nobody's concern who runs papers.
        if name is None or (extra is not None and extra[1] == "docs"):
            continue
        try:
            checks.append(Check("versions", name[0], metadata.version(name[0])))
        except metadata.PackageNotFoundError:
            install = f"pip install 'gradatim[{extra[1]}]'" if extra else f"pip install {name[0]}"
            checks.append(Check("versions", name[0], "not installed", ok=extra is not None, advice=install))
    return checks


def _machine() -> list[Check]:
    found, memory = environment.machine(), environment.available_memory()
    checks = [
        Check("machine", "system", found["system"]),
        Check("machine", "processor", f"{found['processor']}, {found['cpus']} cores"),
        Check("machine", "memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB free"),
    ]
    try:
        devices = environment.devices()
    except RuntimeError as error:
        return [*checks, Check("machine", "JAX", str(error).splitlines()[0], ok=False, advice="set JAX_PLATFORMS=cpu")]
    return [*checks, Check("machine", "JAX", f"{devices['platform']}, {devices['devices']} x {devices['device']}")]


def _caches(runs: Path) -> list[Check]:
    # As a run sees it: its process has the cache on by default.
    folder = Path(child_environment(RunRequest("doctor", runs=runs))["JAX_COMPILATION_CACHE_DIR"])
    size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    return [Check("caches", "compiled programs", f"{folder}, {size / 2**20:.0f} MiB"), folder_check("cache", folder)]
