"""The folder of a run in the making: locked by whoever works on it, and renamed to a record when complete."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradatim.lab.records import FIGURES, PARTIAL, RECORD, jsonable

REQUEST, CHECKPOINTS, SCRATCH, OUTPUT, CRASH = "request.json", "checkpoints", "scratch", "output.txt", "crash.txt"
IDENTITY = ("slug", "scale", "seed", "changed")
"What two requests must share for the one to go on from the other's checkpoints."
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}
_IF_OURS = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


class StorageError(OSError):
    """The folder of runs cannot be written: one line that says what to do."""


class RunFolder:
    """A locked `….partial` folder; the lock is released when every process that holds `lock` has ended or closed it."""

    def __init__(self, path: Path, lock: int, resumed: bool) -> None:
        self.path, self.lock, self.resumed = path, lock, resumed

    @classmethod
    def create(cls, runs: Path, request: Mapping[str, Any]) -> RunFolder:
        """A new folder with the request in it.

        **Raises:** `StorageError` if it cannot be made.
        """
        with storage(runs):
            parent = Path(runs).absolute() / request["slug"]
            parent.mkdir(parents=True, exist_ok=True)
            while True:
                now = datetime.datetime.now(datetime.UTC)
                path = parent / f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}{PARTIAL}"
                if not path.with_name(path.name.removesuffix(PARTIAL)).exists():
                    with contextlib.suppress(FileExistsError):
                        path.mkdir()
                        break
            lock = os.open(path / REQUEST, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                flock(lock, wait=True)
                os.write(lock, _dump(request).encode())
                os.fsync(lock)
                sync_folder(path)
                sync_folder(parent)
            except BaseException:
                os.close(lock)
                raise
        return cls(path, lock, resumed=False)

    @classmethod
    def resume(cls, runs: Path, request: Mapping[str, Any]) -> RunFolder | None:
        """The newest unfinished run, or failed one with checkpoints, that nobody works on and that asked for the same; or None."""
        parent = Path(runs).absolute() / request["slug"]
        wanted = {name: jsonable(request[name]) for name in IDENTITY}
        for path in sorted(parent.glob("*/"), key=lambda folder: folder.name, reverse=True):
            if not path.name.endswith(PARTIAL) and not _failed_with_checkpoints(path):
                continue
            lock = _take(path, wanted)
            if lock is None:
                continue
            partial = path if path.name.endswith(PARTIAL) else path.with_name(path.name + PARTIAL)
            with storage(runs):
                path.rename(partial)
            return cls(partial, lock, resumed=True)
        return None

    @property
    def final(self) -> Path:
        """What the folder is called once complete."""
        return self.path.with_name(self.path.name.removesuffix(PARTIAL))

    def release(self) -> None:
        """Gives up this process's hold on the lock."""
        os.close(self.lock)

    def discard(self) -> None:
        """Removes a folder in which nothing was run, and its parent if that leaves it empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


def complete(partial: Path, *, keep_checkpoints: bool = False) -> Path:
    """Renames a folder whose `record.json` is written to its final name.

    **Raises:** `StorageError` if that fails; the folder then stays as it was.
    """
    final = partial.with_name(partial.name.removesuffix(PARTIAL))
    with storage(partial):
        for file in (partial / OUTPUT, partial / CRASH):
            if file.exists() and file.stat().st_size == 0:
                file.unlink()
        for folder in (partial / FIGURES, partial):
            if folder.exists():
                for leftover in folder.glob(".*"):  # of an attempt that was killed while it wrote
                    leftover.unlink()
                sync_folder(folder)
        partial.rename(final)
        sync_folder(final.parent)
    shutil.rmtree(final / SCRATCH, ignore_errors=True)
    if not keep_checkpoints:
        shutil.rmtree(final / CHECKPOINTS, ignore_errors=True)
    return final


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON so that the file holds the old text or the new one, whatever happens in between."""
    write_bytes(path, _dump(value).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, and renames it once it is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Waits until a file that another library wrote is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turns the system's refusals to write below `folder` into a `StorageError`; other errors pass."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        refusal = refused(error, folder)
        if refusal is None:
            raise
        raise refusal from error


def refused(error: BaseException | None, folder: Path) -> StorageError | None:
    """The refusal to write below `folder` behind an error, which a library may have wrapped in its own; or None."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, StorageError):
            return error
        if isinstance(error, OSError):
            ours = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(Path(folder).absolute())
            # numpy says a short write without the system's number.
            short = error.errno is None and re.search(r"\d+ requested and \d+ written", str(error))
            if short or error.errno in _CANNOT_WRITE or (error.errno in _IF_OURS and ours):
                return StorageError(
                    f"cannot write to {error.filename or folder}: {error.strerror or error}; "
                    "make room or grant access there, or name another folder with --runs"
                )
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def _dump(value: Any) -> str:
    return json.dumps(jsonable(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _failed_with_checkpoints(path: Path) -> bool:
    try:
        failed = json.loads((path / RECORD).read_text(encoding="utf-8"))["status"] == "failed"
        return failed and any((path / CHECKPOINTS).iterdir())
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _take(path: Path, wanted: Mapping[str, Any]) -> int | None:
    """A lock on the folder's request, if nobody else holds it and it asks for what is wanted."""
    try:
        lock = os.open(path / REQUEST, os.O_RDWR)
    except OSError:
        return None
    try:
        flock(lock, wait=False)
        request = json.loads(os.pread(lock, os.fstat(lock).st_size, 0))
        # Between looking and locking, another process may have finished the run and renamed it.
        still_there = os.path.samestat(os.fstat(lock), (path / REQUEST).stat())
        if still_there and all(request.get(name) == wanted[name] for name in IDENTITY):
            return lock
    except (OSError, ValueError, AttributeError):
        pass
    os.close(lock)
    return None


def flock(handle: int, *, wait: bool) -> None:
    """Takes the lock of an open file or folder; raises `BlockingIOError` if another has it and `wait` is False."""
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
