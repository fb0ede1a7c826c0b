"""The work folder of a curation: trials shard by shard, and a manifest of what was asked and which shards are whole.

An interrupted run goes on at the first shard that is missing. What a shard holds is `trial_tables.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidground_hf.locks import lock_folder

ROWS_PER_SHARD = 10_000
"""Contiguous rows of a set that are asked about together; fixed, so that results do not depend on who asks. Our guess:
two parts of a wave, and some megabytes of trials."""

_SCHEMA_VERSION = 1


def count_shards(num_rows: int) -> int:
    """How many shards a set has; the last may be shorter.

    Example:
        >>> count_shards(10_000), count_shards(10_001)
        (1, 2)
    """
    return -(-num_rows // ROWS_PER_SHARD)


def find_bounds(shard: int, num_rows: int) -> tuple[int, int]:
    """The first row of a shard and the one behind its last."""
    return shard * ROWS_PER_SHARD, min((shard + 1) * ROWS_PER_SHARD, num_rows)


def find_shard(row: int) -> int:
    """The shard that a row is in."""
    return row // ROWS_PER_SHARD


class WorkFolder:
    """A folder for what a curation keeps on the disk meanwhile, for one run at a time.

    Args:
        path (`Path`, *optional*): made when it is not there, and left; without it one is made that goes when this
            object does.

    Attributes:
        path (`Path`): the folder.
        is_kept (`bool`): whether it outlives this object.

    Raises:
        `RuntimeError`: when another run is using the folder.
        `OSError`: when it cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self.is_kept = path is not None
        self._release: Callable[[], object]
        if path is None:
            self.path = Path(tempfile.mkdtemp(prefix="vidground-"))
            self._release = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
            return
        self.path = path
        try:
            self._release = weakref.finalize(self, os.close, lock_folder(path))
        except BlockingIOError:
            raise RuntimeError(
                f"another run, or a curation of this process, is using {str(path)!r}; wait until it ends, call its "
                "work.remove(), or name another folder"
            ) from None

    def remove(self) -> None:
        """Deletes the folder and lets another run have it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Lets another run have the folder; one without a name goes."""
        self._release()


class ShardFolder:
    """Trials of a set in a folder, one parquet file a shard.

    What was made for other settings, or by another version, is deleted first.

    Args:
        folder (`Path`): made when it is not there; for one run at a time.
        settings (`Mapping`): JSON; everything that the trials depend on.

    Raises:
        `RuntimeError`: when the folder holds anything else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._manifest = folder / "manifest.json"
        asked = {"schema_version": _SCHEMA_VERSION, "rows_per_shard": ROWS_PER_SHARD, **settings}
        known = self._read_manifest()
        # What was read back has been through JSON, so what is compared goes through it, too.
        if known is None or known["asked"] != json.loads(json.dumps(asked)):
            self._clear()
            known = {"asked": asked, "shards": {}}
        folder.mkdir(parents=True, exist_ok=True)
        self._state = known

    def _clear(self) -> None:
        found = list(self.folder.iterdir()) if self.folder.is_dir() else []
        foreign = [path.name for path in found if not path.name.startswith(("trials-", "manifest."))]
        if foreign:
            raise RuntimeError(
                f"{str(self.folder)!r} holds {foreign[0]!r}, which is not ours; name another work folder"
            )
        for path in found:
            path.unlink()

    def _read_manifest(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(state, dict) or not isinstance(state.get("shards"), dict) or "asked" not in state:
            return None
        is_whole = all(isinstance(e, dict) and {"sha256", "calls"} <= e.keys() for e in state["shards"].values())
        return state if is_whole else None

    def find_calls(self, shard: int) -> dict[str, int] | None:
        """What asking about a finished shard came to; `None` where it is missing, or not as it was written."""
        entry = self._state["shards"].get(str(shard))
        path = self._name(shard)
        if entry is None or not path.is_file() or _digest(path) != entry["sha256"]:
            return None
        calls: dict[str, int] = entry["calls"]
        return calls

    def write(self, shard: int, table: pa.Table, calls: Mapping[str, int], *, is_finished: bool) -> None:
        """Keeps a shard; one that is not finished is there for this run and asked again by the next."""
        path = self._name(shard)
        partial = path.with_suffix(".partial")
        pq.write_table(table, partial)
        os.replace(partial, path)
        if is_finished:
            self._state["shards"][str(shard)] = {"sha256": _digest(path), "calls": dict(calls)}
            partial = self._manifest.with_suffix(".partial")
            partial.write_text(json.dumps(self._state, indent=1), encoding="utf-8")
            os.replace(partial, self._manifest)

    def read(self, shard: int) -> pa.Table:
        """Reads a shard."""
        return pq.read_table(self._name(shard), memory_map=False)

    def _name(self, shard: int) -> Path:
        return self.folder / f"trials-{shard:05d}.parquet"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
