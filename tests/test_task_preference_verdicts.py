"""Rows chosen by what the curation found, read and trained on."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from datasets import Dataset  # noqa: E402

from tests.models import SimulatedModel  # noqa: E402
from tests.task_preference_rows import make_model, make_task_rows  # noqa: E402
from tests.test_task_preference_trainer import make_trainer  # noqa: E402
from vidground_hf.answerers.base import Answer  # noqa: E402
from vidground_hf.curation import curate, join_splits  # noqa: E402
from vidground_hf.ladder_curation import climb  # noqa: E402
from vidground_hf.prompts import Prompt  # noqa: E402
from vidground_hf.reading import read_examples  # noqa: E402
from vidground_hf.rules import single_shot  # noqa: E402
from vidground_hf.schema import LETTERS  # noqa: E402
from vidground_hf.task_preference.row_moments import read_dialogue  # noqa: E402
from vidground_hf.task_preference.task_rows import TaskRow, read_rows  # noqa: E402

COLUMNS = {"id": "id", "question": "question", "options": "options", "answer": "answer", "video": "video"}


def make_questions() -> list[TaskRow]:
    """Temporal reasoning and dialogue about clips; of each, one question that words alone answer."""
    asked = [row for row in make_task_rows() if row.options]
    options = ("red", "blue", "green", "white", "black")
    return [
        replace(row, question=f"{'easy' if k < 2 else 'hard'} {k}?", options=options) for k, row in enumerate(asked)
    ]


class WordsOnly(SimulatedModel):
    """Knows what is easy, and is wrong about the rest."""

    def _answer(self, prompt: Prompt) -> Answer:
        right = {row.question: str(row.answer) for row in make_questions()}[prompt.question or ""]
        is_easy = (prompt.question or "").startswith("easy")
        place = next(k for k, option in enumerate(prompt.options) if (option == right) == is_easy)
        return Answer(text=LETTERS[place])


def test_grounded_rows_of_tasks_are_trained_on(tmp_path: Path) -> None:
    asked = make_questions()
    assert [row.task for row in asked] == ["dialogue", "moment"] * 2
    columns = [asdict(row) for row in asked]
    done = curate(Dataset.from_list(columns), answerer=WordsOnly({}), rule=single_shot(), columns=COLUMNS)
    kept = join_splits(done.splits).filter(lambda row: row["is_visually_grounded"] is True)
    found = read_rows(kept)
    assert found.rejected == []
    assert found.rows == asked[2:]

    model, processor = make_model("internvl")
    trainer = make_trainer(tmp_path, model, processor, stage=2, train_dataset=found.rows)
    trainer.train()
    assert trainer.state.global_step == 1
    assert {"loss_dialogue", "loss_moment_span"} <= set(trainer.state.log_history[0])


def test_rows_are_chosen_by_what_they_need(tmp_path: Path) -> None:
    asked = make_questions()
    columns = [{key: value for key, value in asdict(row).items() if key in COLUMNS} for row in asked]
    done = climb(Dataset.from_list(columns), WordsOnly({}), views=["text"], columns=COLUMNS, rule="circular")
    kept = join_splits(done.splits).filter(lambda row: row["needs"] == "unanswered")
    examples = read_examples(kept, columns=COLUMNS)[2]
    found = read_rows(examples, read_dialogue)
    assert found.rejected == []
    assert [(row.task, row.question) for row in found.rows] == [("dialogue", row.question) for row in asked[2:]]
    assert [row.answer for row in found.rows] == [row.answer for row in asked[2:]]

    model, processor = make_model("internvl")
    trainer = make_trainer(tmp_path, model, processor, stage=1, train_dataset=found.rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss_dialogue"] > 0
