"""Temporary files beside those that are written, and what became of dead writers' ones.

Their names say who writes them: ``.sparsemend-MACHINE-PID-RANDOM.tmp``. A writer that was killed
leaves its file; the next one that writes to the folder on the same machine removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import uuid
from pathlib import Path

_NAME = re.compile(r"\.sparsemend-(?P<machine>[0-9a-f]{12})-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\.tmp")


def create_temporary(folder: Path, *, private: bool) -> Path:
    """Make an empty file with a new name.

    Parameters
    ----------
    folder
        Where.
    private
        Nobody else may read it; otherwise the umask says who may.
    """
    path = temporary_path(folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    os.close(os.open(path, flags, 0o600 if private else 0o666))
    return path


def temporary_path(folder: Path) -> Path:
    """A new name that says who writes there."""
    return folder / f".sparsemend-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files whose writers have ended; other machines' are left alone."""
    machine = _machine()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name and name["machine"] == machine and not _runs(int(name["pid"])):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                    continue
                with contextlib.suppress(OSError):  # another writer may have been faster
                    Path(entry.path).unlink()


def _machine() -> str:
    """Where a process number means one process: this machine since its start, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        where = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        where = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(where.encode()).hexdigest()[:12]


def _runs(pid: int) -> bool:
    """Whether there is such a process; True where that cannot be told."""
    if os.name != "posix":  # elsewhere signal 0 is a real one
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process
        return True
    return True
