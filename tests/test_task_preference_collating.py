from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("accelerate", reason="accelerate is not installed; pip install 'vidground-hf[models]'")
torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from accelerate.utils import send_to_device  # noqa: E402

from tests.task_preference_models import load_vlm  # noqa: E402
from tests.task_preference_rows import BUDGET, make_collator, make_model, make_task_rows  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.media import FrameBudget  # noqa: E402
from vidground_hf.task_preference.collating import TaskPreferenceCollator  # noqa: E402
from vidground_hf.task_preference.heads_targets import pick_sam_masks  # noqa: E402
from vidground_hf.task_preference.media_facts import MediaFacts  # noqa: E402
from vidground_hf.task_preference.row_media import ShownMedia, read_row_media  # noqa: E402
from vidground_hf.task_preference.row_targets import (  # noqa: E402
    draw_sam_frame,
    make_targets,
    normalize_spans,
    read_shown_masks,
)
from vidground_hf.task_preference.task_rows import BadRowError, TaskRow  # noqa: E402
from vidground_hf.task_preference.tokens import add_task_tokens  # noqa: E402

ENDS = {"smolvlm": "<end_of_utterance>"}


def load_collator(family: str, **settings: Any) -> TaskPreferenceCollator:
    _, processor = load_vlm(family)
    add_task_tokens(processor.tokenizer)
    return make_collator(processor, **settings)


def read_answers(collator: TaskPreferenceCollator, batch: dict[str, Any]) -> list[str]:
    return [collator.processor.tokenizer.decode(row[row != -100]).strip() for row in batch["labels"]]


def make_media(num_frames: int, duration: float, size: tuple[int, int] = (4, 6)) -> ShownMedia:
    return ShownMedia(
        data=np.zeros((num_frames, *size, 3), np.uint8),
        frame_seconds=(np.arange(num_frames) + 0.5) * duration / num_frames,
        duration_seconds=duration,
        is_video=True,
        width_px=size[1],
        height_px=size[0],
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_answer_is_learned(family: str) -> None:
    collator, rows, end = load_collator(family), make_task_rows(), ENDS.get(family, "<|im_end|>")
    batch = collator(rows)
    told = ["<|moment|><|moment_state|>", "<|box|><|box_state|>", "<|mask|><|mask_state|>", "B"]
    told += ["<|moment|><|moment_state|> A"]
    assert read_answers(collator, batch) == [answer + end for answer in [*told, *told, "Hi there."]]
    learned = batch["labels"] != -100
    assert torch.equal(batch["labels"][learned], batch["input_ids"][learned])
    for row, mask in zip(learned, batch["attention_mask"], strict=True):
        places = row.nonzero()[:, 0].tolist()
        assert places == list(range(places[0], int(mask.sum())))  # the end of the row, padded on the right
    written = collator(rows[:1] + rows[-1:])["labels"]
    assert [len(row[row != -100]) for row in written] == [int(learned[0].sum()), int(learned[-1].sum())]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_stands_in_the_end_token_is_learned_whole(family: str) -> None:
    collator, end = load_collator(family), ENDS.get(family, "<|im_end|>")
    answers = ["end", "m", "user", "the answer goes here", "end of"]
    rows = [TaskRow(id=answer, task="dialogue", question="What is it?", answer=answer) for answer in answers]
    assert read_answers(collator, collator(rows)) == [answer + end for answer in answers]


def test_a_template_that_changes_the_answer_or_does_not_end_it_is_refused() -> None:
    row = TaskRow(id="x", task="dialogue", question="What is it?", answer="A dog.")
    text = "{{ part['text'] }}"
    for family, change, message in (
        ("internvl", (text, text.replace("]", "] | upper")), "does not write the answer 'A dog.' as it is"),
        ("llava_onevision", ("<|im_end|>", ""), "the chat template ends an answer by '', which is no control token"),
        ("qwen2_5_vl", ("<|im_end|>", "###"), "the chat template ends an answer by '###', which is no control token"),
    ):
        collator = load_collator(family)
        collator.processor.chat_template = collator.processor.chat_template.replace(*change)
        with pytest.raises(ValueError, match=re.escape(message)):
            collator([row])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_the_beginning_of_what_is_trained(family: str) -> None:
    collator, rows = load_collator(family), make_task_rows()
    trained, asked = collator(rows), collator.collate_prompts(rows)
    assert "labels" not in asked
    assert "targets" not in asked
    for place in range(len(rows)):
        prompt = asked["input_ids"][place][asked["attention_mask"][place] == 1]
        told = trained["input_ids"][place][trained["attention_mask"][place] == 1]
        is_learned = trained["labels"][place][trained["attention_mask"][place] == 1] != -100
        assert torch.equal(prompt, told[~is_learned])
    assert asked["attention_mask"][:, -1].all()  # padded on the left
    assert asked["media"] == trained["media"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_gives_each_row_what_it_gets_alone(family: str) -> None:
    model, processor = make_model(family)
    model.eval()
    collator, rows = make_collator(processor), make_task_rows()
    batch = collator(rows)
    together = model(**batch)
    assert together.loss.isfinite()
    for place in (0, 3, 10):
        alone = model(**collator([rows[place]]))
        mask = batch["attention_mask"][place] == 1
        assert torch.allclose(together.logits[place][mask], alone.logits[0], atol=2e-4)


def test_labels_written_out() -> None:
    collator = load_collator("internvl", answers="text")
    batch = collator(make_task_rows()[:5])
    assert "targets" not in batch
    boxes = "[36, 786, 214, 964]"
    assert read_answers(collator, batch) == [
        "2.0 to 4.0 seconds<|im_end|>",
        f"{boxes}<|im_end|>",
        "; ".join(f"{second} s: {boxes}" for second in (0.5, 1.5, 2.5, 3.5)) + "<|im_end|>",
        "B<|im_end|>",
        "2.0 to 4.0 seconds. A<|im_end|>",
    ]


def test_targets_name_their_rows_and_are_normalised() -> None:
    batch = load_collator("internvl")(make_task_rows()[:5])
    targets, facts = batch["targets"], batch["media"]
    assert targets.moment_rows.tolist() == [0, 4]
    assert (targets.box_rows.tolist(), targets.mask_rows.tolist()) == ([1], [2])
    assert targets.spans[0].tolist() == [[0.5, 1.0]]
    assert targets.boxes[0].tolist() == pytest.approx([2 / 56, 44 / 56, 12 / 56, 54 / 56])
    assert targets.masks[0].shape == (4, 56, 56)
    assert targets.mask_seconds[0].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert facts[0].times_seconds == (0.5, 1.5, 2.5, 3.5)
    assert (facts[0].duration_seconds, facts[1].width, facts[1].height) == (4.0, 56, 56)


def test_ratings_become_saliency_of_the_middle_of_each_clip() -> None:
    row = TaskRow(
        id="q", task="moment", question="a dog", video="v.mp4", spans=((2.0, 4.0),), clip_seconds=2.0,
        ratings=((0.0, 0.0), (4.0, 3.0)),
    )  # fmt: skip
    targets = make_targets([row], [make_media(4, 4.0)])
    assert targets.saliency[0] is not None
    assert targets.saliency_seconds[0] is not None
    assert targets.saliency[0].tolist() == [0.0, 3.5]
    assert targets.saliency_seconds[0].tolist() == [1.0, 3.0]


def test_spans_are_held_to_the_decoded_clip() -> None:
    row = TaskRow(id="m", task="moment", question="a dog", video="v.mp4", spans=((-0.2, 5.0), (5.0, 10.4)))
    assert normalize_spans(row, 10.0).tolist() == [[0.0, 0.5], [0.5, 1.0]]
    with pytest.raises(
        BadRowError, match=re.escape("row 'm': the span 5.0 to 10.4 s is not inside the clip of 9.0 s")
    ):
        normalize_spans(row, 9.0)


def make_mask_row(seconds: list[float], seen: list[bool]) -> TaskRow:
    masks = tuple(
        json.dumps({"size": [4, 6], "counts": [place, 1, 23 - place]}) if is_seen else None
        for place, is_seen in enumerate(seen)
    )
    return TaskRow(id="k", task="mask", question="the dog", video="v.mp4", masks=masks, mask_seconds=tuple(seconds))


def test_masks_are_those_of_shown_frames() -> None:
    row = make_mask_row([0.0, 0.5, 1.1, 2.0, 3.0], [True, True, True, False, True])
    masks, seconds = read_shown_masks(row, make_media(2, 4.0))  # shown at 1 and 3 s
    assert seconds.tolist() == [1.1, 3.0]
    assert masks.reshape(2, -1, order="C").sum(axis=1).tolist() == [1, 1]
    masks, seconds = read_shown_masks(row, make_media(40, 4.0))  # more shown than annotated: each once
    assert seconds.tolist() == [0.0, 0.5, 1.1, 2.0, 3.0]
    assert masks.any(axis=(1, 2)).tolist() == [True, True, True, False, True]
    late = make_mask_row([30.0], [True])
    message = "row 'k': none of its 1 annotated frames is near one of the 2 shown"
    with pytest.raises(BadRowError, match=re.escape(message)):
        read_shown_masks(late, make_media(2, 4.0))
    broken = replace(row, masks=(*row.masks[:2], "{", *row.masks[3:]))
    with pytest.raises(BadRowError, match=re.escape("row 'k': a mask cannot be read: ")):
        read_shown_masks(broken, make_media(2, 4.0))
    hidden = replace(row, masks=(*row.masks[:2], None, None, None))  # to be seen, but in no frame that is shown
    assert not read_shown_masks(hidden, make_media(2, 4.0))[0].any()
    empty = replace(row, masks=('{"size": [4, 6], "counts": [24]}',) * 5)
    with pytest.raises(BadRowError, match=re.escape("row 'k': its masks are empty in every frame")):
        read_shown_masks(empty, make_media(2, 4.0))
    mixed = replace(row, masks=(*row.masks[:4], '{"size": [1, 1], "counts": [0, 1]}'))
    with pytest.raises(BadRowError, match=re.escape("row 'k': its masks have different sizes")):
        read_shown_masks(mixed, make_media(2, 4.0))


def test_a_part_of_a_video_has_its_own_clock() -> None:
    row = replace(make_task_rows()[3], start_seconds=1.0, end_seconds=3.0)
    media = read_row_media(row, BUDGET)
    assert media is not None
    assert media.duration_seconds == 2.0
    assert media.frame_seconds.min() >= 0
    assert media.frame_seconds.max() < 2.0


def test_images_and_folders_of_images_are_shown(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((56, 84, 3), 90, np.uint8))
    for place in range(6):
        picture.save(tmp_path / f"{place}.png")
    box = TaskRow(id="i", task="box", question="the dog", image=picture, box=(0, 0, 42, 56), width_px=84, height_px=56)
    frames = TaskRow(id="f", task="moment", question="a dog", video=str(tmp_path), frame_rate=2.0, spans=((0.0, 1.5),))
    batch = load_collator("qwen2_5_vl")([box, replace(box, image=str(tmp_path / "0.png")), frames])
    assert torch.equal(*batch["pixel_values"].chunk(2))
    assert batch["targets"].boxes.tolist() == [[0.0, 0.0, 0.5, 1.0]] * 2
    assert batch["targets"].spans[0].tolist() == [[0.0, 0.5]]
    assert batch["media"][0].is_image
    for row in (replace(box, image="gone.png"), replace(frames, video="gone.mp4")):
        with pytest.raises(BadRowError, match=f"row '{row.id}': its (image|video) cannot be read: "):
            load_collator("qwen2_5_vl")([row])


def test_a_control_token_in_the_words_of_a_row_is_rejected() -> None:
    row = TaskRow(id="x", task="dialogue", question="What is <|box|>?", answer="A box.")
    message = "row 'x': its words hold '<|box|>', which is a control token of the model"
    with pytest.raises(BadRowError, match=re.escape(message)):
        load_collator("internvl")([row])


def test_columns_of_a_dataset_are_rows_too() -> None:
    from dataclasses import asdict

    from datasets import Dataset

    collator, rows = load_collator("internvl"), make_task_rows()
    found = collator([Dataset.from_list([asdict(row) for row in rows])[place] for place in range(3)])
    wanted = collator(rows[:3])
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    assert torch.equal(found["targets"].masks[0], wanted["targets"].masks[0])


def test_wrong_settings_are_named() -> None:
    _, processor = load_vlm("internvl")
    with pytest.raises(ValueError, match=re.escape("answers = 'words' or wording = 'train' is not known")):
        TaskPreferenceCollator(processor, answers="words")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=re.escape("the tokenizer has none of the task tokens, '<|moment|>' and so on;")
    ):
        TaskPreferenceCollator(processor)
    assert TaskPreferenceCollator(processor, answers="text").budget == FrameBudget(num_frames=16)


def test_a_task_without_a_head_is_rejected() -> None:
    _, processor = load_vlm("internvl")
    add_task_tokens(processor.tokenizer, ["box", "mask"])
    collator, rows = make_collator(processor), make_task_rows()
    assert len(collator(rows[1:4])["input_ids"]) == 3
    message = "row 'clip_0000 moment': it asks for a moment, and the model has a head for box, mask only"
    with pytest.raises(BadRowError, match=re.escape(message)):
        collator(rows)


def test_a_sam_gets_one_frame_where_masks_are_asked_for() -> None:
    from transformers import Sam2ImageProcessor

    sam = Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    collator, rows = load_collator("internvl", sam_processor=sam), make_task_rows()
    batch = collator([rows[2], rows[-1]])
    assert batch["sam_pixel_values"].shape == (2, 3, 64, 64)
    media = read_row_media(rows[2], BUDGET)
    assert media is not None
    assert batch["media"][1] is None
    place = batch["media"][0].sam_frame
    wanted = sam(images=[media.data[place], media.data[0]], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["sam_pixel_values"][0], wanted[0])
    assert "sam_pixel_values" not in collator(rows[:2])
    prompts = collator.collate_prompts([rows[0], rows[-1]])  # any head may be called
    assert torch.equal(prompts["sam_pixel_values"][0], wanted[1])  # the first one to answer with
    assert prompts["media"][0].sam_frame == 0
    assert len(prompts["sam_pixel_values"]) == 2
    clip, none = prompts["sam_clips"]
    assert none is None
    assert np.array_equal(clip.frames, media.data)
    assert clip.times_seconds.tolist() == media.frame_seconds.tolist()
    assert "sam_clips" not in load_collator("internvl").collate_prompts(rows[:1])


def test_the_frame_of_a_sam_is_any_that_is_annotated_and_the_same_again() -> None:
    row = next(row for row in make_task_rows() if row.task == "mask")
    seen = next(filter(None, row.masks))
    media = make_media(4, 4.0)  # shown at 0.5, 1.5, 2.5 and 3.5 s
    rows = [replace(row, id=str(k), masks=(seen,) * 3, mask_seconds=(1.4, 2.9, 3.5)) for k in range(60)]
    drawn = [draw_sam_frame(one, media, 0) for one in rows]
    assert set(drawn) == {1, 2, 3}
    assert min(drawn.count(place) for place in (1, 2, 3)) >= 10
    assert drawn == [draw_sam_frame(one, media, 0) for one in rows]
    assert drawn != [draw_sam_frame(one, media, 1) for one in rows]
    for one, place in zip(rows, drawn, strict=True):
        masks, seconds = read_shown_masks(one, media)
        facts = MediaFacts(times_seconds=tuple(media.frame_seconds), duration_seconds=4.0, height=4, width=6)
        given = [torch.from_numpy(masks)], [torch.from_numpy(seconds).float()]
        assert pick_sam_masks(*given, [replace(facts, sam_frame=place)]) != [None]
        assert pick_sam_masks(*given, [facts]) == [None]
    with pytest.raises(BadRowError, match=re.escape("row '0': none of its 1 annotated frames is near one of the 4")):
        draw_sam_frame(replace(rows[0], masks=(seen,), mask_seconds=(9.0,), duration_seconds=None), media, 0)


def test_the_frame_of_a_sam_shows_the_object_where_that_is_needed() -> None:
    row = next(row for row in make_task_rows() if row.task == "mask")
    seen = next(filter(None, row.masks))
    media = make_media(4, 4.0)
    rows = [replace(row, id=str(k), masks=(None, seen, None), mask_seconds=(1.4, 2.9, 3.5)) for k in range(30)]
    assert {draw_sam_frame(one, media, 0) for one in rows} == {1, 2, 3}
    assert {draw_sam_frame(one, media, 0, needs_object=True) for one in rows} == {2}
    late = replace(rows[0], masks=(None, seen), mask_seconds=(1.4, 9.0), duration_seconds=None)
    assert draw_sam_frame(late, media, 0, needs_object=True) == 1  # no frame that is shown has it


def test_a_frame_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("sam_frame = 2 is none of the 2 frames; pass the place of one")):
        MediaFacts(times_seconds=(0.5, 1.5), duration_seconds=2.0, height=4, width=6, sam_frame=2)


def test_clips_of_other_lengths_are_refused_where_the_model_takes_one() -> None:
    collator = load_collator("llava_onevision")
    row = make_task_rows()[3]
    short = replace(row, start_seconds=0.0, end_seconds=0.2)
    with pytest.raises(ValueError, match="this model takes clips of one length in a batch, these have "):
        collator([row, short])


def test_features_of_another_extractor_come_by_column(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "a.npy", values)
    moment, talk = make_task_rows()[0], make_task_rows()[-1]
    rows = [
        replace(moment, features=str(tmp_path / "a.npy")),
        talk,
        replace(moment, features=values[:2], feature_seconds=(0.5, 3.0)),
    ]
    collator = load_collator("internvl")
    for batch in (collator(rows), collator.collate_prompts(rows)):
        features = batch["features"]
        assert torch.equal(features.grid[0, :, 0, 0], torch.from_numpy(values))
        assert features.times_seconds.tolist() == [[0.5, 1.5, 2.5, 3.5], [0.0] * 4, [0.5, 3.0, 0.0, 0.0]]
        assert features.frames_valid().sum(1).tolist() == [4, 0, 2]
        assert features.duration_seconds.tolist() == [4.0, 0.0, 4.0]
        moved = send_to_device(batch, torch.device("meta"))  # as accelerate's loaders and `answer_rows` do
        assert {moved["features"].grid.device.type, moved["input_ids"].device.type} == {"meta"}
    assert send_to_device(collator(rows), torch.device("meta"))["targets"].moment_rows.device.type == "meta"
    assert "features" not in collator([moment])
    for change, reason in (
        ({"features": values[0]}, "its features are of shape (3,); allowed is [T, D]"),
        (
            {"features": values * np.nan},
            "of shape (4, 3); allowed is [T, D], one row or more, all finite",
        ),
        ({"features": "gone.npy"}, "its features cannot be read: "),
        ({"features": [[1.0], [1.0, 2.0]]}, "its features cannot be read: "),
        ({"features": values, "feature_seconds": (1.0,)}, "it has 4 features and 1 times"),
        ({"features": values, "feature_seconds": (0.0, 1.0, 1.0, 2.0)}, "the times of its features do not grow"),
        ({"features": values[:2], "feature_seconds": (0.5, np.nan)}, "the times of its features do not grow"),
        (
            {"features": values[:2], "feature_seconds": (-0.5, 1.0)},
            "features from -0.5 to 1.0 s are not inside the clip of 4.0 s",
        ),
        (
            {"features": values[:2], "feature_seconds": (0.5, 4.6)},
            "features from 0.5 to 4.6 s are not inside the clip of 4.0 s",
        ),
    ):
        with pytest.raises(BadRowError, match=re.escape(reason)):
            collator([replace(moment, **change)])
    with pytest.raises(BadRowError, match="it has features and shows nothing"):
        collator([replace(talk, features=values)])


def test_a_model_reads_them(tmp_path: Path) -> None:
    model, processor = make_model("internvl", moment_feature_width=3)
    rows = [replace(row, features=np.random.default_rng(0).normal(size=(6, 3))) for row in make_task_rows()[:5]]
    output = model(**make_collator(processor)(rows))
    assert output.loss.isfinite()
    assert output.moment.saliency.shape == (2, 6)
