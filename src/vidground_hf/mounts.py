"""On what kind of file system a folder lies.

Linux only; elsewhere nothing is known.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# SQLite's write-ahead log needs shared memory and locks that these do not give (sqlite.org/wal.html).
NETWORK_FILE_SYSTEMS = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"),
        *("fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3"),
        *("smbfs", "wekafs"),
    )
)


def find_network_mount(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the network mount a folder lies on (`str`, *optional*); `None` on a local disk."""
    if not mounts.exists():
        return None
    kind = find_file_system(folder, os.fsdecode(mounts.read_bytes()))
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def find_file_system(folder: Path, mounts: str) -> str | None:
    """The type of the mount that holds a folder, from the text of `/proc/mounts`; `None` where no line fits."""
    target = os.path.join(os.path.realpath(folder), "")
    best, kind = "", None
    for line in mounts.splitlines():
        _, escaped, found, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), escaped)
        # A later line covers an earlier one at the same place.
        if target.startswith(os.path.join(point, "")) and len(point) >= len(best):
            best, kind = point, found
    return kind
