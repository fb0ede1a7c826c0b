"""`blind_visual_gap`: the published figures it reproduces, the keys of its card, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import evaluate
import pytest

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.metric_loading import load_metric
from vidground_hf.stats.checks import UNANSWERED

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "metrics" / "blind_visual_gap"
ROWS = {"predictions": ["A", "B", "C"], "blind_predictions": ["A", "C", "A"], "references": ["A", "B", "B"]}


@pytest.fixture(scope="module")
def metric() -> evaluate.EvaluationModule:
    return load_metric("blind_visual_gap")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@needs_shared_data
@pytest.mark.parametrize(
    ("model", "frames", "blind", "visual", "table"),
    [
        ("Qwen2.5-VL-7B", "128f_151k", 46.31, 68.25, (841, 164, 640, 525)),
        ("LLaVA-NeXT-Video-7B", "32f_151k", 36.50, 47.93, (632, 160, 408, 970)),
    ],
)
def test_mlvu(
    metric: evaluate.EvaluationModule,
    model: str,
    frames: str,
    blind: float,
    visual: float,
    table: tuple[int, int, int, int],
) -> None:
    folder = SHARED_DATA / "mlvu-blind-and-video-predictions"
    gold = read_csv(folder / "mlvu_alignment.csv")
    answers = {
        row["sample_id"]: row for row in read_csv(folder / f"labels/aggregated/{model}_MLVU_predictions_wide.csv")
    }
    result = metric.compute(
        predictions=[answers[row["sample_id"]][frames] for row in gold],
        blind_predictions=[answers[row["sample_id"]]["textonly"] for row in gold],
        references=[row["gold_letter"] for row in gold],
        num_options=[int(row["n_options"]) for row in gold],
        clusters=[row["video"] for row in gold],
        groups=[row["question_type"] for row in gold],
        ids=[row["sample_id"] for row in gold],
    )
    assert (result["num_examples"], result["num_unscored"]) == (2170, 0)
    assert round(100 * result["blind_accuracy"], 2) == blind
    assert round(100 * result["visual_accuracy"], 2) == visual
    assert tuple(result[key] for key in ("both", "blind_only", "visual_only", "neither")) == table
    assert result["gap_low"] > 0
    assert result["p_value"] == 1 / 10_001
    assert sum(group["num_examples"] for group in result["groups"].values()) == 2170
    # The model with video often repeats its lucky blind guess, which TA* takes as independent.
    assert (result["ta_accuracy_corrected_low"] > 1) == (model == "LLaVA-NeXT-Video-7B")


@needs_shared_data
def test_nextqa(metric: evaluate.EvaluationModule) -> None:
    folder = SHARED_DATA / "nextqa"
    rows = read_csv(folder / "dataset/nextqa/val.csv")
    answers = json.loads((folder / "results/HGA-bert-ft-h256-val.json").read_text())
    result = metric.compute(
        predictions=["ABCDE"[answers[f"{row['video']}_{row['qid']}"]["prediction"]] for row in rows],
        blind_predictions=[UNANSWERED] * len(rows),
        references=[row["answer"] for row in rows],
        options=[[row[f"a{k}"] for k in range(5)] for row in rows],
        groups=[row["type"][0] for row in rows],
        num_resamples=200,
    )
    assert result["num_examples"] == 4996
    assert round(100 * result["visual_accuracy"], 2) == 49.74
    by_group = {name: round(100 * group["visual_accuracy"], 2) for name, group in result["groups"].items()}
    assert by_group == {"C": 46.26, "T": 50.74, "D": 59.33}


def test_card_marks_every_figure_with_an_interval(metric: evaluate.EvaluationModule) -> None:
    lines = re.findall(r"^\| `(\w+)` (†?)", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    documented = [f"{name}{end}" for name, dagger in lines for end in (("", "_low", "_high") if dagger else ("",))]
    result = metric.compute(**ROWS, groups=["x", "x", "y"], num_resamples=20)
    assert sorted(documented) == sorted(result)
    assert set(result) - set(result["groups"]["x"]) == {"groups", "visual_gains"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**ROWS, "blind_predictions": ["A"]}, "blind_predictions has 1 rows and predictions has 3: rows 1, 2 stand"),
        ({**ROWS, "references": ["A", None, "B"]}, "references must be text; pass UNANSWERED where there is none"),
        (
            {**ROWS, "predictions": ["A", float("nan"), "B"]},
            "predictions must be text; pass UNANSWERED",
        ),
        ({**ROWS, "predictions": [0, 1, 2]}, "got 0 in rows 0, 1, 2"),
        ({**ROWS, "blind_predictions": [None] * 3}, "blind_predictions must be text"),
        ({**ROWS, "ids": ["a", "a", "b"]}, "ids must be unique; got 'a' in rows 0, 1"),
        ({"predictions": ["A"], "references": ["A"]}, "inputs are missing: ['blind_predictions']"),
    ],
)
def test_refuses_bad_rows_through_evaluate(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_metric("blind_visual_gap").compute(**columns)
