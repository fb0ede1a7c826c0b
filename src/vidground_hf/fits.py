"""The file a fit is kept in: verdicts by row key, the fitted rule, and what the answerer learned.

One zip of JSON, parquet and numpy arrays, named by the sha256 of its bytes; nothing in it is pickled. Answers of
models are kept by `cache.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub.constants import HF_HOME

SCHEMA_VERSION = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold; a real one would change the bytes


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit knows.

    Attributes:
        settings (`dict`): JSON: schema version, answerer id, view, columns read, the fitted rule.
        rows (`pa.Table`): `key` (binary, 16 bytes) and the added columns, a row each.
        answerer (`bytes`, *optional*): what a trained answerer needs for unseen rows.
    """

    settings: dict[str, Any]
    rows: pa.Table
    answerer: bytes | None


def find_cache_dir() -> Path:
    """Folder for this package's files: `$VIDGROUND_CACHE`, else `vidground_hf` in the Hub's home."""
    return Path(os.environ.get("VIDGROUND_CACHE") or Path(HF_HOME) / "vidground_hf")


def list_files() -> list[Path]:
    """The files in the cache folder that hold fits, and added columns of sets that were curated without a folder."""
    return sorted(path for kind in ("fits", "columns") for path in (find_cache_dir() / kind).glob("*"))


def prune_files(older_than_days: float) -> int:
    """Deletes files of `list_files` by age; returns how many (`int`)."""
    oldest = time.time() - older_than_days * 86400
    old = [path for path in list_files() if path.stat().st_mtime < oldest]
    for path in old:
        path.unlink()
    return len(old)


def save_fit(fit: Fit, folder: Path | None = None) -> tuple[Path, str]:
    """Writes a fit under its own sha256 and returns the path and the digest; the same fit is written once."""
    table = io.BytesIO()
    pq.write_table(fit.rows, table)
    parts = {"fit.json": json.dumps(fit.settings, sort_keys=True).encode(), "rows.parquet": table.getvalue()}
    if fit.answerer is not None:
        parts["answerer.npz"] = fit.answerer
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    folder = find_cache_dir() / "fits" if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}.zip"
    if not path.exists():
        partial = folder / f"{digest}.{os.getpid()}.partial"
        try:
            partial.write_bytes(packed.getvalue())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return path, digest


def load_fit(path: Path, digest: str) -> Fit:
    """Reads a fit and checks that its bytes are the ones it was saved with.

    Raises:
        `FileNotFoundError`: when the file is gone.
        `ValueError`: when its bytes changed, or another version of this package wrote it.
    """
    if not path.exists():
        raise FileNotFoundError(f"the fit {str(path)!r} is gone; call .fit(dataset) again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"the fit {str(path)!r} is not the one that was saved; delete it and call .fit(dataset) again"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        settings = json.loads(archive.read("fit.json"))
        if settings["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"the fit {str(path)!r} has version {settings['schema_version']}, this package reads "
                f"{SCHEMA_VERSION}; call .fit(dataset) again"
            )
        rows = pq.read_table(io.BytesIO(archive.read("rows.parquet"))).combine_chunks()
        answerer = archive.read("answerer.npz") if "answerer.npz" in archive.namelist() else None
    return Fit(settings, rows, answerer)


def keep_file(path: Path, folder: Path) -> Path:
    """Copies a file into a folder under its own sha256; the same content is there once."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{digest}{path.suffix}"
    partial = kept.with_suffix(f".{os.getpid()}.partial")
    shutil.copyfile(path, partial)
    os.replace(partial, kept)
    return kept
