from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from hypothesis import settings

# No test asserts a time; a busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _isolate(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps caches of a test away from the user's, and the terminal quiet."""
    folder: Path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VIDGROUND_CACHE", str(folder / "vidground"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "datasets"))
    datasets.disable_progress_bars()
