from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from vidground_hf.fits import SCHEMA_VERSION, Fit, find_cache_dir, load_fit, save_fit


def make_fit(value: float = 0.5, answerer: bytes | None = b"weights", version: int = SCHEMA_VERSION) -> Fit:
    rows = pa.table({"key": pa.array([b"0" * 16], pa.binary(16)), "bias_score": [value]})
    return Fit({"schema_version": version, "rule": {"name": "x"}}, rows, answerer)


@pytest.mark.parametrize("answerer", [b"weights", None])
def test_a_fit_comes_back_as_it_was_saved(tmp_path: Path, answerer: bytes | None) -> None:
    fit = make_fit(answerer=answerer)
    path, digest = save_fit(fit, tmp_path)
    assert path == tmp_path / f"{digest}.zip"
    loaded = load_fit(path, digest)
    assert (loaded.settings, loaded.answerer) == (fit.settings, answerer)
    assert loaded.rows.equals(fit.rows)


def test_the_same_fit_is_one_file_and_another_is_another(tmp_path: Path) -> None:
    first, again, other = (
        save_fit(make_fit(), tmp_path),
        save_fit(make_fit(), tmp_path),
        save_fit(make_fit(0.25), tmp_path),
    )
    assert first == again
    assert first != other
    assert len(list(tmp_path.iterdir())) == 2


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path))
    path, _ = save_fit(make_fit())
    assert path.parent == tmp_path / "fits"
    monkeypatch.delenv("VIDGROUND_CACHE")
    assert find_cache_dir().name == "vidground_hf"


def test_a_fit_that_is_gone_changed_or_from_another_version_is_refused(tmp_path: Path) -> None:
    path, digest = save_fit(make_fit(), tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape("gone.zip' is gone; call .fit(dataset) again")):
        load_fit(tmp_path / "gone.zip", digest)
    other, other_digest = save_fit(make_fit(version=1), tmp_path)
    with pytest.raises(ValueError, match=re.escape("has version 1, this package reads 2; call .fit(dataset) again")):
        load_fit(other, other_digest)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=re.escape("is not the one that was saved; delete it and call .fit(dataset)")):
        load_fit(path, digest)
