"""What limits simultaneous use of an SQLite file: its journal mode and its file system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from suite.tracking.checks.finding import Finding, finding

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: File systems of networks, whose locks SQLite cannot rely on.
_OF_NETWORKS = ("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "gpfs", "beegfs", "9p", "afs", "ceph", "glusterfs")
_A_SERVER = "track to a server (docs/tracking.md)"


def file_of(uri: str) -> Path:
    """The file of an embedded store.

    Args:
        uri: `sqlite:///path`.

    Returns:
        Its path.
    """
    return Path(uri.partition(":///")[2].partition("?")[0])


def connection_limits(connection: Connection, uri: str) -> Finding:
    """Whether several processes may use the file at the same time.

    Args:
        connection: to the database.
        uri: its address.

    Returns:
        The finding.
    """
    from sqlalchemy import text

    system = _file_system(file_of(uri).resolve())
    mode = str(connection.execute(text("pragma journal_mode")).scalar())
    if system.startswith(_OF_NETWORKS):
        return finding("connection limits", f"the file is on a network ({system}), where locks can fail", _A_SERVER)
    if mode != "wal":
        to_do = "any run or suite publish turns the write-ahead log on, unless the file is read-only"
        return finding("connection limits", f"journal mode {mode}: readers and the writer wait for each other", to_do)
    found = "write-ahead log: any number of readers, one writer at a time, others wait up to 20 s"
    return finding("connection limits", f"{found}; for several machines {_A_SERVER}")


def _file_system(path: Path) -> str:
    import psutil

    mounted = [each for each in psutil.disk_partitions(all=True) if path.is_relative_to(each.mountpoint)]
    return max(mounted, key=lambda each: len(each.mountpoint)).fstype if mounted else ""
