"""The example that compares the ladder's labels with a toy set's planted ones."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the example asks a model; pip install 'vidground-hf[models]'")

from tests.tiny_vlms import save_qwen2_5_vl

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ladder_on_toy_set.py"


@pytest.mark.slow
def test_the_example_prints_planted_and_found_labels(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    model = save_qwen2_5_vl(tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["ladder", str(model), "--num-questions", "10", "--frames", "2"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    *table, line = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert sum(sum(found.values()) for found in result["planted"]["confusion"].values()) == 10
    assert [rung["view"] for rung in result["rungs"]] == [
        "options_only", "text", "subtitles", "single_frame", "shuffled_frames", "video",
    ]  # fmt: skip
    assert result["wrong_video"]["num_rows"] == 10
    assert table[-5].split() == [
        "planted", "options", "text", "subtitles", "one_frame", "unordered", "video", "unanswered", "undecided",
    ]  # fmt: skip
