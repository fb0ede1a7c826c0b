"""What the policy knows blind weighs nothing from then on: who is asked, what is luck, what a resume keeps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

torch = pytest.importorskip("torch", reason="trains a model; pip install 'vidground-hf[models]'")
pytest.importorskip("accelerate", reason="trains a model; pip install 'vidground-hf[models]'")

from transformers import AutoModelForCausalLM, Trainer, TrainingArguments  # noqa: E402

from tests.models import draw  # noqa: E402
from tests.tiny_models import save_llama  # noqa: E402
from vidground_hf.callbacks import RefreshGrounding  # noqa: E402
from vidground_hf.callbacks_refresh import Refreshed  # noqa: E402
from vidground_hf.post_training import to_trl  # noqa: E402

WORDS = ["red", "blue", "green", "pink"]
Says = Callable[[dict[str, Any], int], str]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("model"))


def make_rows(count: int) -> Dataset:
    raw = [
        {"id": f"q{k}", "question": f"Which, {k}?", "options": WORDS, "answer": "ABCD"[k % 4], "video": f"{k}.mp4"}
        for k in range(count)
    ]
    return to_trl(Dataset.from_list(raw))


class Policy(Trainer):
    """A trainer of a tiny language model whose completions are made up."""

    def __init__(self, folder: Path, output: Path, rows: Any, says: Says, **settings: Any) -> None:
        defaults = {"max_steps": 6, "save_strategy": "no", "logging_steps": 1}
        arguments = TrainingArguments(
            str(output), per_device_train_batch_size=2, use_cpu=True, report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False, remove_unused_columns=False, **(defaults | settings),
        )  # fmt: skip
        super().__init__(
            AutoModelForCausalLM.from_pretrained(folder), arguments, train_dataset=rows, data_collator=collate
        )
        self.says = says
        self.row_weights: dict[str, float] = {}
        self.asked: list[tuple[int, list[str]]] = []

    def sample_completions(self, rows: list[dict[str, Any]], *, view: str, num_generations: int) -> list[list[str]]:
        assert view == "text"
        assert not any("video" in row for row in rows)
        self.asked.append((self.state.global_step, [row["id"] for row in rows]))
        return [[self.says(row, number) for number in range(num_generations)] for row in rows]


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ids = torch.tensor([[1, 2, 3]] * len(rows))
    return {"input_ids": ids, "labels": ids}


def know(*known: int) -> Says:
    """Knows some rows, and guesses at the others afresh at every try."""

    def say(row: dict[str, Any], number: int) -> str:
        is_known = int(row["id"][1:]) in known
        letter = row["solution"] if is_known else "ABCD"[int(4 * draw(row["id"], number))]
        return f"<think>{letter}?</think><answer>{letter}</answer>"

    return say


def test_what_is_known_weighs_nothing_and_luck_does_not_count(model_folder: Path, tmp_path: Path) -> None:
    known = range(0, 80, 4)
    trainer = Policy(model_folder, tmp_path, make_rows(80), know(*known))
    callback = RefreshGrounding(trainer, every_steps=2)
    trainer.add_callback(callback)
    trainer.train()
    assert [(step, len(ids)) for step, ids in trainer.asked] == [(2, 80), (4, 80)]
    assert trainer.row_weights == {f"q{k}": 0.0 for k in known}
    assert callback.record["q0"] == Refreshed(4, 4, 4, False, "right_and_sure")
    lucky = [name for name, one in callback.record.items() if one.num_right and int(name[1:]) not in known]
    assert len(lucky) > 20
    reasons = Counter(callback.record[name].reason for name in lucky)
    assert set(reasons) == {"right_but_unsure", "wrong_blind"}
    (line, _) = [line for line in trainer.state.log_history if "refresh_grounding/num_asked" in line]
    assert [line["step"] for line in trainer.state.log_history if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert (line["refresh_grounding/num_asked"], line["refresh_grounding/known_share"]) == (80, 0.25)
    assert (line["refresh_grounding/num_weighed_down"], line["step"]) == (20, 2)


def test_a_policy_that_prefers_a_letter_knows_nothing(model_folder: Path, tmp_path: Path) -> None:
    trainer = Policy(model_folder, tmp_path, make_rows(80), lambda row, number: "B")
    callback = RefreshGrounding(trainer, every_steps=2)
    callback.refresh(2)
    assert sum(one.num_right == 4 for one in callback.record.values()) > 10
    assert trainer.row_weights == {}


def test_weights_follow_the_policy(model_folder: Path, tmp_path: Path) -> None:
    trainer = Policy(model_folder, tmp_path, make_rows(40), know(*range(30)))
    callback = RefreshGrounding(trainer, every_steps=2, weight=0.25)
    callback.refresh(2)
    assert set(trainer.row_weights.values()) == {0.25}
    assert {f"q{k}" for k in range(30)} <= set(trainer.row_weights)
    assert len(trainer.row_weights) <= 30 / 0.95  # alpha
    trainer.says = know(*range(20))
    callback.refresh(4)
    assert {f"q{k}" for k in range(20)} <= set(trainer.row_weights)
    assert len(trainer.row_weights) <= 20 / 0.95
    trainer.says = lambda row, number: "no idea"
    callback.refresh(6)
    assert trainer.row_weights == {}
    assert callback.record["q0"] == Refreshed(6, 0, 4, True, "wrong_blind")


def test_rows_take_turns(model_folder: Path, tmp_path: Path) -> None:
    trainer = Policy(model_folder, tmp_path, make_rows(10), know())
    callback = RefreshGrounding(trainer, every_steps=1, num_rows=4, num_tries=2)
    for step in range(5):
        callback.refresh(step)
    asked = [name for _, ids in trainer.asked for name in ids]
    assert Counter(asked) == dict.fromkeys([f"q{k}" for k in range(10)], 2)
    assert len(set(asked[:10])) == 10
    assert asked[:10] == asked[10:]
    other = RefreshGrounding(trainer, every_steps=1, num_rows=4, seed=1)
    assert list(other.order) != list(callback.order)


def test_open_questions_are_known_by_most_tries(model_folder: Path, tmp_path: Path) -> None:
    raw = [
        {"id": f"q{k}", "question": f"How many, {k}?", "answer": "7", "problem_type": "numerical"} for k in range(2)
    ]
    says = {"q0": "7778", "q1": "7788"}
    trainer = Policy(
        model_folder, tmp_path, to_trl(Dataset.from_list(raw)), lambda row, number: says[row["id"]][number]
    )
    callback = RefreshGrounding(trainer, every_steps=1)
    callback.refresh(1)
    assert trainer.row_weights == {"q0": 0.0}
    assert callback.record["q0"] == Refreshed(1, 3, 4, False, "right_by_majority")


def test_a_resumed_run_goes_on_where_it_was(model_folder: Path, tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    made = {"every_steps": 2, "num_rows": 15}

    def run(output: Path, checkpoint: Path | None = None) -> tuple[Policy, RefreshGrounding]:
        trainer = Policy(model_folder, output, make_rows(40), know(*range(20)), **settings)
        callback = RefreshGrounding(trainer, **made)
        trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return trainer, callback

    whole, first = run(tmp_path / "whole")
    resumed, second = run(tmp_path / "resumed", tmp_path / "whole" / "checkpoint-3")
    assert [step for step, _ in whole.asked] == [2, 4]
    assert resumed.asked == whole.asked[1:]
    assert (second.record, second.num_refreshes) == (first.record, 2)
    assert len(second.record) == 30
    again, third = run(tmp_path / "again")
    assert (again.asked, third.record) == (whole.asked, first.record)


def test_what_cannot_be_refreshed_is_refused(model_folder: Path, tmp_path: Path) -> None:
    trainer = Policy(model_folder, tmp_path, make_rows(4), know())
    for wrong in ({"every_steps": 0}, {"num_rows": 0}, {"num_tries": 1}, {"weight": 1.0}):
        with pytest.raises(
            ValueError, match=re.escape("is out of range; allowed are 1 or more, 1 or more, 2 or more")
        ):
            RefreshGrounding(trainer, **({"every_steps": 1} | wrong))
    with pytest.raises(ValueError, match=re.escape("alpha = 1 is out of range; calibrated allows (0, 1)")):
        RefreshGrounding(trainer, 1, alpha=1)
    with pytest.raises(ValueError, match="str has no row weights; RefreshGrounding goes with VideoGRPOTrainer"):
        RefreshGrounding("trainer", 1)
    trainer.train_dataset = [{"id": "1"}]
    with pytest.raises(
        ValueError, match=re.escape("train_dataset is not as to_trl makes it; pass to_trl(dataset) to")
    ):
        RefreshGrounding(trainer, 1)
