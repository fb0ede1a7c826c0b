"""Cards and evaluation results of models: the metric's figures, blind ones marked, strangers' texts inert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResultEntry, HfApi, ModelCard, parse_eval_result_entries

from tests.hub_server import HubServer
from vidground_hf import measure_gap, push_eval_results, push_model_card, write_eval_results
from vidground_hf.model_cards import render_model_card

REPORT = json.loads(Path(__file__).with_name("report_example.json").read_text())
HOSTILE = '<script>alert(1)</script> | [x](javascript:1) {{ 7 * 7 }} `"\n---\nlicense: mit\n\u202e'


@pytest.fixture(scope="module")
def gaps() -> dict[str, dict[str, Any]]:
    gold = ["A", "B", "C", "D"] * 10
    visual = ["A", "B", "C", "A"] * 10
    blind = ["A", "C", "A", "A"] * 10
    return {
        "bench/one": measure_gap(visual, blind, gold, num_options=4, num_resamples=200),
        "bench/two": measure_gap(gold, blind, gold, num_options=4, num_resamples=200),
    }


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    huggingface_hub.utils.disable_progress_bars()
    with HubServer(tmp_path / "server") as server, server.connect(tmp_path / "cache", server.token("ada")):
        yield server
    huggingface_hub.utils.enable_progress_bars()


def test_blind_results_are_marked_and_read_back_by_the_library(gaps: dict[str, Any], tmp_path: Path) -> None:
    paths = write_eval_results(
        gaps, tmp_path, task_ids={"bench/two": "val"}, date="2026-01-31", source_url="https://example.org/logs"
    )
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        ".eval_results/bench--one.yaml",
        ".eval_results/bench--two.yaml",
    ]
    kept = {"date": "2026-01-31", "source_url": "https://example.org/logs"}
    assert parse_eval_result_entries(yaml.safe_load(paths[0].read_text())) == [
        EvalResultEntry("bench/one", "default", 0.75, **kept),
        EvalResultEntry("bench/one", "default", 0.25, notes="blind", **kept),
    ]
    assert parse_eval_result_entries(yaml.safe_load(paths[1].read_text()))[1].task_id == "val"


def test_what_could_not_be_measured_is_left_out(tmp_path: Path) -> None:
    empty = measure_gap(["A"], ["A"], ["E"], num_options=4, num_resamples=10)
    assert empty["visual_accuracy"] is None
    (path,) = write_eval_results({"bench/one": empty}, tmp_path)
    assert yaml.safe_load(path.read_text()) == []
    card: Any = ModelCard(render_model_card("ada/model", {"bench/one": empty}, base_model="base/model"))
    assert card.data.eval_results is None
    assert "| bench/one | 1 | – | – | – | – | – |" in card.text


@pytest.mark.parametrize("name", ["bench", "a/b/c", "../x", "a/b\n", "bench/one two"])
def test_results_are_stored_by_dataset_on_the_hub(gaps: dict[str, Any], tmp_path: Path, name: str) -> None:
    if name == "../x":
        (path,) = write_eval_results({name: gaps["bench/one"]}, tmp_path)
        assert path.parent == tmp_path / ".eval_results"
        return
    message = f"results are stored by dataset on the Hub, got {name!r}; name it user/name"
    with pytest.raises(ValueError, match=re.escape(message)):
        write_eval_results({name: gaps["bench/one"]}, tmp_path)


def test_another_dictionary_is_refused(tmp_path: Path) -> None:
    message = "the report of 'bench/one' has no visual_accuracy, gap, num_examples; pass what measure_gap, the metric"
    for call in (
        lambda reports: write_eval_results(reports, tmp_path),
        lambda reports: render_model_card("ada/model", reports, base_model="base/model"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call({"bench/one": REPORT})


def test_the_card_tells_data_recipe_and_gap(gaps: dict[str, Any]) -> None:
    report = REPORT | {"source": {"id": "user/source", "revision": "1a2b", "fingerprint": "00"}}
    text = render_model_card(
        "ada/model",
        gaps,
        base_model="base/model",
        training_report=report,
        recipe={"learning rate": 1e-6, "steps": 900},
    )
    for line in (
        "# ada/model",
        "Of 2,175 questions, text alone answers 511 (23.5 %); 1,662 are kept, and 2 could not be judged.",
        "| Source | user/source |",
        "| Right without the video | 56.6 % (54.5 to 58.6) | blind accuracy, with its 95 % interval |",
        "| learning rate | 1e-06 |",
        "| steps | 900 |",
    ):
        assert f"\n{line}\n" in text
    row = next(line for line in text.splitlines() if line.startswith("| bench/one |"))
    one = gaps["bench/one"]
    assert row.split(" | ")[1:4] == [
        "40",
        f"75.0 % ({100 * one['visual_accuracy_low']:.1f} to {100 * one['visual_accuracy_high']:.1f})",
        f"25.0 % ({100 * one['blind_accuracy_low']:.1f} to {100 * one['blind_accuracy_high']:.1f})",
    ]
    assert "| +50.0 points (" in row
    data: Any = ModelCard(text).data
    assert (data.base_model, data.datasets, data.model_name) == ("base/model", ["user/source"], "model")
    assert [(one.dataset_name, one.metric_type, one.metric_name, one.metric_value) for one in data.eval_results] == [
        ("bench/one", "accuracy", "accuracy with the video", 0.75),
        ("bench/one", "accuracy", "accuracy without the video (blind)", 0.25),
        ("bench/one", "blind_visual_gap", "blind-visual gap", 0.5),
        ("bench/two", "accuracy", "accuracy with the video", 1.0),
        ("bench/two", "accuracy", "accuracy without the video (blind)", 0.25),
        ("bench/two", "blind_visual_gap", "blind-visual gap", 0.75),
    ]


def test_a_card_without_data_and_recipe_has_no_such_sections(gaps: dict[str, Any]) -> None:
    text = render_model_card("ada/model", gaps, base_model="base/model")
    assert "## Training data" not in text
    assert "## Recipe" not in text
    assert "## How much it looks" not in render_model_card("ada/model", {}, base_model="base/model")


def test_strangers_texts_stay_texts(gaps: dict[str, Any]) -> None:
    report = REPORT | {"source": {"id": HOSTILE, "revision": HOSTILE, "fingerprint": "00"}, "answerer": HOSTILE}
    text = render_model_card(
        "ada/model",
        {HOSTILE: gaps["bench/one"]},
        base_model=HOSTILE,
        training_report=report,
        recipe={HOSTILE: HOSTILE},
    )
    _, front_matter, body = text.split("---\n", 2)
    assert "license" not in yaml.safe_load(front_matter)
    assert not re.search(r"<\w|\]\(javascript|\u202e|^license", body, re.MULTILINE)
    plain = render_model_card(
        "ada/model",
        {"x": gaps["bench/one"]},
        base_model="x",
        training_report=report | {"answerer": "x"},
        recipe={"x": "x"},
    )
    assert body.count("\n") == plain.split("---\n", 2)[2].count("\n")


def test_cards_and_results_are_proposed_on_somebody_elses_model(hub: HubServer, gaps: dict[str, Any]) -> None:
    HfApi(token=hub.token("bob")).create_repo("bob/model")
    first = push_model_card("bob/model", gaps, base_model="base/model", create_pr=True)
    second = push_eval_results("bob/model", gaps, create_pr=True)
    assert first.url.endswith("/bob/model/discussions/1")
    assert second.url.endswith("/bob/model/discussions/2")
    assert "README.md" in hub.list_files("model", "bob/model", "refs/pr/1")
    assert ".eval_results/bench--one.yaml" in hub.list_files("model", "bob/model", "refs/pr/2")
    assert "README.md" not in hub.list_files("model", "bob/model")


def test_a_pushed_card_is_valid_and_pushed_once(hub: HubServer, gaps: dict[str, Any]) -> None:
    assert push_model_card("ada/model", gaps, base_model="base/model", training_report=REPORT).is_changed
    assert not push_model_card("ada/model", gaps, base_model="base/model", training_report=REPORT).is_changed
    card: Any = ModelCard(hub.read_file("model", "ada/model", "README.md").decode())
    card.validate()
    assert card.data.base_model == "base/model"
    assert push_eval_results("ada/model", gaps).is_changed
    assert not push_eval_results("ada/model", gaps).is_changed
    assert len(hub.list_commits("model", "ada/model")) == 3
