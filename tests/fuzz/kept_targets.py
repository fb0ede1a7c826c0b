"""Targets that damage what the package itself has written: the cache, a fit, a curated folder.

Damage is refused with an error of ours, or what is read is what was written; never something else.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import datasets
from datasets import Dataset

from tests.fuzz.outcomes import damage, own_errors
from tests.questions import make_rows
from vidground_hf.answerers.base import Answer
from vidground_hf.benchmark_verdicts import read_verdicts
from vidground_hf.cache import AnswerCache, CacheError
from vidground_hf.curated import load_curated
from vidground_hf.curation import curate
from vidground_hf.filtering import GroundFilter
from vidground_hf.fits import load_fit
from vidground_hf.folders import read_report

_ANSWERS = {
    bytes([number]) * 32: Answer(text=f"answer {number}", option_logprobs=(-0.5, -1.5)) for number in range(24)
}


def make_seeds() -> list[bytes]:
    """Flips of one bit, cuts and overwritten runs, at places all over a file."""
    places = [number * 2654435761 % 2**32 for number in range(24)]
    flips = [bytes([0]) + place.to_bytes(4, "little") + bytes([1 << place % 8]) for place in places]
    cuts = [bytes([1]) + place.to_bytes(4, "little") for place in places[:8]]
    runs = [bytes([2]) + place.to_bytes(4, "little") + bytes(16) for place in places[:8]]
    return [b"", *flips, *cuts, *runs, bytes([2, 0, 0, 0, 0]) + b"not a database, but some text" * 9]


@cache
def _make_cache() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers.sqlite"
        with AnswerCache(path) as kept:
            for key, answer in _ANSWERS.items():
                kept.put(key, answer, "model@1")
            kept.remember("clip", lambda: "facts")
        return path.read_bytes()


def check_cache(data: bytes, folder: Path) -> None:
    """A damaged cache is refused, or gives the answers that were put and takes another."""
    path = folder / "answers.sqlite"
    new = bytes(32)
    path.write_bytes(damage(_make_cache(), data))
    try:
        with own_errors(CacheError), AnswerCache(path) as kept:
            with own_errors(CacheError):
                found = kept.get_many(list(_ANSWERS))
                assert found.items() <= _ANSWERS.items()
            with own_errors(CacheError):
                kept.put(new, Answer(text="new"), "model@1")
                assert kept.get_many([new]) == {new: Answer(text="new")}
            with own_errors(CacheError):
                assert isinstance(kept.remember("clip", lambda: "facts"), str)
            with own_errors(CacheError):
                kept.describe()
            with own_errors(CacheError):
                kept.prune(older_than_days=1)
    finally:
        for left in folder.glob("answers.sqlite*"):
            left.unlink()


@cache
def _make_fit() -> tuple[bytes, str]:
    fitted = GroundFilter().fit(Dataset.from_list(make_rows(40)))
    assert fitted.fit_path is not None
    return fitted.fit_path.read_bytes(), fitted.fit_sha256 or ""


def check_fit(data: bytes, folder: Path) -> None:
    """A damaged fit is refused."""
    content, digest = _make_fit()
    path = folder / "fit.zip"
    path.write_bytes(damage(content, data))
    with own_errors(ValueError):
        load_fit(path, digest)
        assert path.read_bytes() == content


@cache
def _make_curation() -> tuple[Dataset, Path]:
    rows = Dataset.from_list(make_rows(40))
    return rows, curate(rows, source={"id": "a set"}).save(Path(mkdtemp(prefix="vidground-fuzz-")) / "curated")


def check_curated(data: bytes, folder: Path) -> None:
    """A curated folder of which one file is damaged is read as far as it can be, or refused."""
    rows, source = _make_curation()
    curated = folder / "curated"
    shutil.copytree(source, curated)
    files = [curated / "report.json", curated / "README.md", *sorted(curated.glob("data/*.parquet"))]
    chosen = files[data[0] % len(files)] if data else files[0]
    chosen.write_bytes(damage(chosen.read_bytes(), data[1:]))
    try:
        with own_errors(ValueError):
            read_verdicts(curated, rows)
        with own_errors(ValueError):
            read_report(curated)
        with own_errors(ValueError):
            load_curated(str(curated))
    finally:
        shutil.rmtree(curated)
        shutil.rmtree(datasets.config.HF_DATASETS_CACHE, ignore_errors=True)
