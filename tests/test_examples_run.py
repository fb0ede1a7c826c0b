from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chat_server import ChatServer
from tests.questions import make_rows

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def audit(server: ChatServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> dict[str, int]:
    """Runs the example on 60 questions and returns how many rows its table counts as what."""
    data = folder / "questions.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in make_rows(60)))
    monkeypatch.delenv("VIDGROUND_ENDPOINT_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["audit", str(data), "--model", "tiny", "--url", server.url])
    runpy.run_path(str(EXAMPLES / "audit_with_a_served_model.py"), run_name="__main__")
    table = capsys.readouterr().out
    assert f"60 questions, answered by endpoint:tiny@{server.url} without the video" in table
    assert "rule calibrated(alpha=0.05)" in table
    assert "blind accuracy" in table
    return {
        name: int(count) for name, count in re.findall(r"^  (grounded|text_answerable|undecided)\D+(\d+)", table, re.M)
    }


def test_the_audit_with_a_served_model_ends_with_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(logprobs="given") as server:
        counts = audit(server, tmp_path, monkeypatch, capsys)
        assert server.num_requests >= 61
    # A server that knows nothing and is equally sure of everything: no answer is worth dropping a question for.
    assert counts == {"grounded": 60, "text_answerable": 0, "undecided": 0}


def test_a_server_without_log_probabilities_is_asked_again_in_other_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer() as server:
        with pytest.warns(UserWarning, match="gives no log-probabilities"):
            counts = audit(server, tmp_path, monkeypatch, capsys)
        assert server.num_requests > 61
    assert sum(counts.values()) == 60
