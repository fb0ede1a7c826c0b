from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from tests.task_preference_models import make_fresh_model  # noqa: E402
from tests.task_preference_rows import make_collator, make_task_rows  # noqa: E402
from tests.test_task_preference_sam import SIZE, make_sam  # noqa: E402
from tests.test_task_preference_trainer import make_arguments  # noqa: E402
from vidground_hf.task_preference import collating  # noqa: E402
from vidground_hf.task_preference.trainer import COUNTED, TaskPreferenceTrainer, count_labels  # noqa: E402


def make_sam_trainer(folder: Path, mask_loss: str, **settings: Any) -> tuple[Any, Any]:
    from transformers import Sam2ImageProcessor

    model, processor = make_fresh_model("internvl", sam=make_sam(), mask_loss=mask_loss)
    sam = Sam2ImageProcessor(size={"height": SIZE, "width": SIZE}, mask_size={"height": 16, "width": 16})
    mask = next(row for row in make_task_rows() if row.task == "mask")
    seen = next(filter(None, mask.masks))
    # One row has a mask in the first frame, the other in the last second only.
    rows = [
        replace(mask, id=str(k), masks=(seen,) * len(seconds), mask_seconds=seconds)
        for k, seconds in enumerate(((0.0, 3.5), (3.5,)))
    ]
    collator = make_collator(processor, sam_processor=sam, needs_object=mask_loss == "prompts")
    trainer = TaskPreferenceTrainer(
        model, make_arguments(folder, **settings), train_dataset=rows, processing_class=processor,
        data_collator=collator,
    )  # fmt: skip
    return trainer, rows


@pytest.mark.parametrize(("mask_loss", "term"), [("bce", "mask_bce"), ("prompts", "prompt_l1")])
def test_a_row_that_a_sam_is_not_graded_on_does_not_count(
    mask_loss: str, term: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collating, "draw_sam_frame", lambda row, shown, seed, **_: 0)
    trainer, rows = make_sam_trainer(tmp_path, mask_loss, per_device_train_batch_size=1, gradient_accumulation_steps=2)
    both = trainer.data_collator(rows)
    assert both["targets"].counts["mask"] == 2
    assert count_labels(both, mask_loss)[COUNTED.index("mask")] == 1
    assert count_labels(both)[COUNTED.index("mask")] == 2
    with torch.no_grad():
        alone = trainer.model(**trainer.data_collator(rows[:1])).losses[term].item()
    assert alone > 0
    trainer.train()
    assert trainer.state.log_history[0][f"loss_{term}"] == pytest.approx(alone, rel=1e-4)
    assert trainer._step_counts.tolist()[COUNTED.index("mask")] == 1


@pytest.mark.parametrize("mask_loss", ["bce", "prompts"])
def test_a_sam_is_graded_on_rows_whose_object_comes_late(mask_loss: str, tmp_path: Path) -> None:
    trainer, rows = make_sam_trainer(tmp_path, mask_loss)
    batch = trainer.data_collator(rows[1:])
    assert count_labels(batch, mask_loss)[COUNTED.index("mask")] == 1
    with torch.no_grad():
        losses = trainer.model(**batch).losses
    assert losses["prompt_l1" if mask_loss == "prompts" else "mask_dice"] > 0


def test_distillation_needs_frames_that_show_the_object(tmp_path: Path) -> None:
    trainer, rows = make_sam_trainer(tmp_path, "prompts")
    absent = [replace(rows[0], id=str(k), masks=(None, rows[0].masks[0]), mask_seconds=(0.5, 3.5)) for k in range(8)]
    assert count_labels(trainer.data_collator(absent), "prompts")[COUNTED.index("mask")] == 8
    trainer.data_collator.needs_object = False
    assert count_labels(trainer.data_collator(absent), "prompts")[COUNTED.index("mask")] < 8
    with pytest.raises(ValueError, match=re.escape("learns from frames that show the object, and the collator draws")):
        TaskPreferenceTrainer(
            trainer.model,
            make_arguments(tmp_path),
            train_dataset=rows,
            processing_class=trainer.processing_class,
            data_collator=trainer.data_collator,
        )
