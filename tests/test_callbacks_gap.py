"""The gap at every evaluation: what a live model answers, on which rows, at what price, and that training goes on."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

torch = pytest.importorskip("torch", reason="trains a model; pip install 'vidground-hf[models]'")
pytest.importorskip("accelerate", reason="trains a model; pip install 'vidground-hf[models]'")

from safetensors.torch import load_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForImageTextToText,
    AutoProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tests.tiny_vlms import save_qwen3_vl  # noqa: E402
from vidground_hf import FrameBudget, TransformersAnswerer, callbacks_gap, make_toy_set, open_dataset  # noqa: E402
from vidground_hf.callbacks import BlindGapCallback, GapCardCallback  # noqa: E402
from vidground_hf.callbacks_clock import TrainingClock  # noqa: E402
from vidground_hf.callbacks_gap import LEAST_ROWS  # noqa: E402
from vidground_hf.callbacks_record import RECORD_NAME  # noqa: E402
from vidground_hf.callbacks_rows import Asked, read_verdicts, summarize_rows  # noqa: E402
from vidground_hf.judging import make_trial  # noqa: E402
from vidground_hf.post_training import to_trl  # noqa: E402

BUDGET = FrameBudget(num_frames=2)
TEXTS = [{"input_ids": [k, 2, 3, 4], "labels": [k, 2, 3, 4]} for k in range(8)]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3_vl(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_set(tmp_path_factory.mktemp("toy"), num_questions=24, num_clips=4)


@pytest.fixture(scope="module")
def rows(toy: Path) -> Dataset:
    return to_trl(open_dataset(toy), media_root=str(toy.parent))


def make_trainer(model_folder: Path, output: Path, **settings: Any) -> Trainer:
    """A trainer of a video model on a few texts of four tokens."""
    evaluated = settings.pop("eval_dataset", TEXTS[:2])
    defaults = {"max_steps": 4, "learning_rate": 0.0, "save_strategy": "no", "eval_strategy": "steps", "eval_steps": 2}
    arguments = TrainingArguments(
        str(output), per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False, **(defaults | settings),
    )  # fmt: skip
    return Trainer(
        AutoModelForImageTextToText.from_pretrained(model_folder),
        arguments,
        train_dataset=TEXTS,
        eval_dataset=evaluated,
        processing_class=AutoProcessor.from_pretrained(model_folder),
    )


def follow(trainer: Trainer, rows: Dataset | None, **settings: Any) -> BlindGapCallback:
    callback = BlindGapCallback(trainer, rows, budget=BUDGET, num_workers=0, **({"max_time_share": 1.0} | settings))
    trainer.add_callback(callback)
    return callback


def score_saved(folder: Path, callback: BlindGapCallback) -> list[tuple[float | None, float | None]]:
    """What the model in a folder is worth on the callback's rows, by an answerer that loads it."""
    answerer = TransformersAnswerer(str(folder), num_workers=0)
    answers = answerer.answer([prompt for row in callback.rows for prompt in row.prompts])
    pairs = zip(callback.rows, answers[::2], answers[1::2], strict=True)
    return [
        (make_trial(row.example, a, row.order).score, make_trial(row.example, b, row.order).score)
        for row, a, b in pairs
    ]


def test_metrics_are_those_of_the_model_as_it_is(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(model_folder, tmp_path)
    callback = follow(trainer, rows)
    decoded: list[Any] = []
    prepared: list[Any] = []
    trainer.train()
    logged = [line for line in trainer.state.log_history if "eval_gap" in line]
    assert [line["step"] for line in logged] == [2, 4]
    scores = score_saved(model_folder, callback)
    parts = {"": [True] * 24, "vg_": [row["needs"] != "text" for row in rows]}
    parts["ta_"] = [not one for one in parts["vg_"]]
    number = {name: place for place, name in enumerate(rows["id"])}
    for name, wanted in parts.items():
        part = [pair for pair, row in zip(scores, callback.rows, strict=True) if wanted[number[row.example.id]]]
        visual, blind = (sum(pair[k] or 0 for pair in part) / len(part) for k in (0, 1))
        for line in logged:
            assert line[f"eval_{name}visual_accuracy"] == pytest.approx(visual)
            assert line[f"eval_{name}blind_accuracy"] == pytest.approx(blind)
            assert line[f"eval_{name}gap"] == pytest.approx(visual - blind)
    assert (logged[0]["eval_gap_num_rows"], logged[0]["eval_gap_num_unanswered"]) == (24, 0)
    assert 0 < logged[1]["eval_gap_time_share"] < 1

    # Frames stay; what the weights made of them does not.
    engine = callback._live.visual

    def load(requests: Any) -> Any:
        decoded.extend(requests)
        return iter(())

    engine.load_frames = load
    engine.clips.encoder.encode = prepared.append
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    trainer.model.train()
    trainer.model.save_pretrained(tmp_path / "other")
    trainer.processing_class.save_pretrained(tmp_path / "other")
    metrics = callback.measure()
    assert trainer.model.training
    assert not decoded
    assert not prepared
    other = score_saved(tmp_path / "other", callback)
    assert other != scores
    assert [(one.visual_score, one.blind_score) for one in callback.asked] == other
    assert "eval_gap_time_share" not in metrics
    assert engine.seen.num_bytes == 0


def test_the_best_model_is_chosen_by_the_gap(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(
        model_folder, tmp_path, max_steps=6, learning_rate=0.1, save_strategy="steps", save_steps=2,
        metric_for_best_model="eval_gap", load_best_model_at_end=True, save_only_model=True,
    )  # fmt: skip
    follow(trainer, rows)
    trainer.train()
    gaps = {line["step"]: line["eval_gap"] for line in trainer.state.log_history if "eval_gap" in line}
    assert list(gaps) == [2, 4, 6]
    assert len(set(gaps.values())) > 1
    best = max(gaps, key=lambda step: gaps[step])
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (gaps[best], best)
    saved = load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors")
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
    assert trainer.evaluate()["eval_gap"] == pytest.approx(gaps[best])


def test_few_rows_are_asked_where_time_is_short(
    model_folder: Path, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(model_folder, tmp_path, max_steps=2)
    callback = follow(trainer, rows, max_time_share=1e-6)
    with caplog.at_level(logging.WARNING, "vidground_hf.callbacks_gap"):
        metrics = trainer.train() and trainer.state.log_history[-2]
    assert metrics["eval_gap_num_rows"] == LEAST_ROWS
    assert [one.row for one in callback.asked] == list(range(LEAST_ROWS))
    assert caplog.messages == [
        "asking 16 of 24 rows for the blind-visual gap: more would take over 0 % of the training time"
    ]
    assert trainer.evaluate()["eval_gap_num_rows"] == 24


def test_the_clock_leaves_evaluations_their_share() -> None:
    clock = TrainingClock(max_share=0.2)
    assert clock.measure_left(10.0) == float("inf")
    assert clock.measure_share(10.0) is None
    clock.start(100.0)
    assert clock.measure_left(100.0) == 0.0
    assert clock.measure_left(140.0) == pytest.approx(10.0)  # 10 of then 50
    assert clock.measure_left(144.0, pending_seconds=4.0) == pytest.approx(6.0)  # 10 of 50 again
    clock.add(10.0)
    assert clock.measure_share(150.0) == pytest.approx(0.2)
    assert clock.measure_left(150.0) == pytest.approx(0.0)
    assert clock.measure_left(140.0) == 0.0
    clock.start(1000.0, run_seconds=50.0, seconds=4.0)
    assert clock.measure_share(1000.0) == pytest.approx(0.08)
    assert clock.measure_left(1000.0) == pytest.approx(7.5)  # 11.5 of 57.5
    assert TrainingClock(max_share=1.0, began=0.0, seconds=9.0).measure_left(1.0) == float("inf")


class SlowTime:
    """A clock on which training takes 10 seconds a step and each row takes one to answer; nobody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.num_asked: list[int] = []
        monkeypatch.setattr(callbacks_gap, "perf_counter", lambda: self.now)
        ask = BlindGapCallback._ask

        def ask_slowly(callback: BlindGapCallback, rows: range) -> list[Asked]:
            self.now += len(rows)
            self.num_asked.append(len(rows))
            return ask(callback, rows)

        monkeypatch.setattr(BlindGapCallback, "_ask", ask_slowly)

    def train(self, trainer: Trainer, step_seconds: float, **settings: Any) -> list[dict[str, Any]]:
        clock = self

        class Step(TrainerCallback):
            def on_step_begin(self, *arguments: Any, **settings: Any) -> None:
                clock.now += step_seconds

        trainer.add_callback(Step())
        trainer.train(**settings)
        return [line for line in trainer.state.log_history if "eval_gap_num_rows" in line]


def test_no_evaluation_but_the_first_goes_over_its_share(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first takes 16 of 56 seconds, where 10 % are allowed; so the next ones wait until 16 rows fit again."""
    time = SlowTime(monkeypatch)
    trainer = make_trainer(model_folder, tmp_path, max_steps=12, eval_steps=1, learning_rate=0.01)
    follow(trainer, rows, max_time_share=0.1)
    lines = time.train(trainer, 40.0)
    shares = [line["eval_gap_time_share"] for line in lines]
    asked = [line["eval_gap_num_rows"] for line in lines]
    assert asked == [16, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 16]
    assert shares[0] == pytest.approx(16 / 56)
    assert shares[8] == pytest.approx(32 / 392)
    assert all(share <= 0.1 for share in shares[3:])
    assert all(("eval_gap" in line) == (line["eval_gap_num_rows"] > 0) for line in lines)


def test_all_rows_are_asked_where_they_fit(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = SlowTime(monkeypatch)
    trainer = make_trainer(model_folder, tmp_path, max_steps=2, eval_steps=1, learning_rate=0.01)
    follow(trainer, rows, max_time_share=0.1)
    assert [line["eval_gap_num_rows"] for line in time.train(trainer, 300.0)] == [24, 24]
    assert time.num_asked == [16, 8, 16, 8]


def test_a_run_that_chooses_its_best_model_by_the_gap_always_has_one(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = SlowTime(monkeypatch)
    settings = {"metric_for_best_model": "vg_gap", "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(model_folder, tmp_path, max_steps=3, eval_steps=1, learning_rate=0.1, **settings)
    callback = follow(trainer, rows, max_time_share=1e-6)
    assert [line["eval_gap_num_rows"] for line in time.train(trainer, 10.0)] == [16, 16, 16]

    # Resumed, the clock goes on from the checkpoint, and answers of the same weights are not asked again.
    callback.clock.began = None
    time.num_asked.clear()
    again = make_trainer(model_folder, tmp_path, max_steps=3, eval_steps=1, learning_rate=0.1, **settings)
    follow(again, rows, max_time_share=1e-6)
    lines = time.train(again, 10.0, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [line["eval_gap_num_rows"] for line in lines] == [16, 16, 16]
    assert time.num_asked == []
    first = [line for line in trainer.state.log_history if "eval_gap" in line]
    assert lines[2]["eval_gap"] == first[2]["eval_gap"]
    assert lines[2]["eval_gap_time_share"] == pytest.approx(32 / 62)


def test_a_model_whose_evaluation_was_left_out_is_asked_for_its_card(
    model_folder: Path, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = SlowTime(monkeypatch)
    trainer = make_trainer(model_folder, tmp_path, max_steps=2, eval_steps=1, learning_rate=0.01)
    callback = follow(trainer, rows, max_time_share=0.01)
    time.train(trainer, 10.0)
    assert callback.asked == []
    assert callback.report()["evaluation rows"]["num_examples"] == 24


def test_answers_are_kept_by_weights_rows_and_prompts(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(model_folder, tmp_path)
    callback = follow(trainer, rows, num_rows=2)
    callback.measure()
    kept = tmp_path / RECORD_NAME
    (line,) = kept.read_text().splitlines()
    with kept.open("a") as file:
        file.write(line[:40])  # by a crash

    def count(**settings: Any) -> int:
        """How many rows another process asks."""
        asked: list[Any] = []
        other = follow(trainer, rows, **{"num_rows": 2, **settings})
        ask = other._ask
        other._ask = lambda rows: asked.extend(rows) or ask(rows)  # type: ignore[method-assign, func-returns-value]
        other.measure()
        assert other.asked[:2] == callback.asked or asked
        return len(asked)

    assert count() == 0
    assert kept.read_text() == line + "\n"
    assert (count(num_rows=3), count(seed=1), count(num_rows=3)) == (3, 2, 0)
    with torch.no_grad():
        next(trainer.model.parameters()).view(-1)[7] += 1e-4
    assert (count(), count()) == (2, 0)
    assert len(kept.read_text().splitlines()) == 4


def test_rows_are_drawn_by_the_seed(model_folder: Path, rows: Dataset, toy: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model_folder, tmp_path, eval_dataset=rows)

    def draw(found: Dataset | None = None, **settings: Any) -> list[str]:
        callback = BlindGapCallback(trainer, found, num_workers=0, **settings)
        return [row.example.id for row in callback.rows]

    assert draw(num_rows=6) == draw()[:6]
    assert draw(seed=1) != draw()
    assert draw(open_dataset(toy), media_root=str(toy.parent)) == draw()


def test_rows_say_whether_they_need_the_video() -> None:
    rows = Dataset.from_dict(
        {
            "needs": ["text", "options", "video", "unanswered", None],
            "is_visually_grounded": [True, False, None, True, True],
        }
    )
    assert read_verdicts(rows, None) == [True, False, None, True, True]
    assert read_verdicts(rows, "needs") == [False, False, True, True, None]
    assert read_verdicts(rows.select_columns("needs"), None) == [False, False, True, True, None]
    assert read_verdicts(Dataset.from_dict({"id": ["a", "b"]}), None) == [None, None]
    with pytest.raises(ValueError, match=re.escape("verdict_column = 'id' is not allowed; allowed are those of ")):
        read_verdicts(Dataset.from_dict({"id": ["a"]}), "id")


def test_rows_without_both_answers_are_counted() -> None:
    asked = [Asked(0, 1, 1, 1.0, 1.0, None), Asked(1, 2, 0, 1.0, 0.0, None), Asked(2, None, 1, None, 1.0, "no clip")]
    assert summarize_rows(asked, [None, True, False]) == {
        "eval_visual_accuracy": 1.0,
        "eval_blind_accuracy": 0.5,
        "eval_gap": 0.5,
        "eval_vg_visual_accuracy": 1.0,
        "eval_vg_blind_accuracy": 0.0,
        "eval_vg_gap": 1.0,
        "eval_gap_num_rows": 2,
        "eval_gap_num_unanswered": 1,
    }
    with pytest.raises(RuntimeError, match="none of 1 rows got both answers, the first because: no clip"):
        summarize_rows(asked[2:], [None, None, None])


def test_clips_that_cannot_be_read_are_left_out(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(model_folder, tmp_path)
    gone = rows.map(lambda row, place: {"video": row["video"] if place % 2 else "gone.mp4"}, with_indices=True)
    callback = follow(trainer, gone)
    metrics = callback.measure()
    assert (metrics["eval_gap_num_rows"], metrics["eval_gap_num_unanswered"]) == (12, 12)
    assert callback.report()["evaluation rows"]["num_examples"] == 12
    none = follow(trainer, rows.map(lambda row: {"video": "gone.mp4"}))
    with pytest.raises(RuntimeError, match=r"none of 24 rows got both answers, the first because: .*gone\.mp4"):
        none.measure()


def test_of_several_evaluation_sets_the_first_is_followed(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    sets = {"a": TEXTS[:2], "a_b": TEXTS[2:4]}
    trainer = make_trainer(model_folder, tmp_path, eval_dataset=sets)
    follow(trainer, rows, num_rows=2)
    metrics = trainer.evaluate()
    assert "eval_gap" in metrics
    assert "eval_a_b_loss" in metrics
    assert sum("eval_gap" in line for line in trainer.state.log_history) == 1


def test_the_card_takes_the_last_gap(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(model_folder, tmp_path, max_steps=2)
    callback = follow(trainer, rows)
    card = GapCardCallback(callback.report, base_model="base/model")
    trainer.add_callback(card)
    trainer.train()
    report = card.gap_reports["evaluation rows"]
    line = next(line for line in trainer.state.log_history if "eval_gap" in line)
    assert report["gap"] == pytest.approx(line["eval_gap"])
    assert (report["num_examples"], report["chance"]) == (24, 0.25)
    assert "| evaluation rows | 24 |" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # asked for by peft
def test_adapters_and_autocast_are_part_of_the_model(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="trains adapters; pip install 'vidground-hf[train]'")
    trainer = make_trainer(model_folder, tmp_path, bf16=True, max_steps=2)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer.model = trainer.model_wrapped = peft.get_peft_model(trainer.model, config)
    callback = follow(trainer, rows)
    trainer.train()
    merged = trainer.model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    trainer.processing_class.save_pretrained(tmp_path / "merged")
    scores = score_saved(tmp_path / "merged", callback)
    same = [(one.visual_score, one.blind_score) == pair for one, pair in zip(callback.asked, scores, strict=True)]
    assert sum(same) >= 22  # 16 bits change a choice where two options are as likely
    assert not math.isnan(trainer.state.log_history[-1]["train_loss"])


def test_what_cannot_be_followed_is_refused(model_folder: Path, rows: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(model_folder, tmp_path)
    with pytest.raises(ValueError, match=re.escape("num_rows = 0 or max_time_share = 0.05 is out of range; allowed")):
        BlindGapCallback(trainer, rows, num_rows=0)
    with pytest.raises(ValueError, match=re.escape("num_rows = 8 or max_time_share = 0 is out of range; allowed")):
        BlindGapCallback(trainer, rows, num_rows=8, max_time_share=0)
    with pytest.raises(ValueError, match="prepares no videos; pass the model's own as processor=, from AutoProc"):
        BlindGapCallback(trainer, rows, processor=trainer.processing_class.tokenizer)
    with pytest.raises(ValueError, match="the rows to ask are a list; pass one Dataset, not streamed, as dataset="):
        BlindGapCallback(trainer)
    with pytest.raises(
        ValueError, match="none of the 24 rows is multiple choice with a gold answer and a video; pass"
    ):
        BlindGapCallback(trainer, rows.remove_columns("video"))
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=re.escape("spread over processes (FSDP or ZeRO stage 3), and BlindGapCall")):
        BlindGapCallback(trainer, rows)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(model_folder: Path, toy: Path, rows: Dataset, tmp_path: Path) -> None:
    rows.save_to_disk(str(tmp_path / "rows"))
    script = tmp_path / "two.py"
    script.write_text(
        "import json, sys\nfrom pathlib import Path\nfrom datasets import load_from_disk\n"
        "from tests.test_callbacks_gap import follow, make_trainer\n"
        f"model, rows, out = Path({str(model_folder)!r}), load_from_disk({str(tmp_path / 'rows')!r}), "
        f"Path({str(tmp_path)!r})\n"
        "trainer = make_trainer(model, out / 'out')\ncallback = follow(trainer, rows)\ntrainer.train()\n"
        "(out / f'{trainer.accelerator.process_index}.json').write_text(json.dumps([callback.asked, "
        "trainer.accelerator.num_processes, [line for line in trainer.state.log_history if 'eval_gap' in line]]))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{k}.json").read_text(encoding="utf-8")) for k in (0, 1))
    assert (first[1], first[0]) == (2, second[0])
    trainer = make_trainer(model_folder, tmp_path / "one")
    callback = follow(trainer, rows)
    trainer.train()
    assert first[0] == [list(one) for one in callback.asked]
    names = ("eval_gap", "eval_vg_gap", "eval_ta_gap", "eval_gap_num_rows")
    alone = [line for line in trainer.state.log_history if "eval_gap" in line]
    for line, other, lone in zip(first[2], second[2], alone, strict=True):
        assert [line[name] for name in names] == [other[name] for name in names] == [lone[name] for name in names]
