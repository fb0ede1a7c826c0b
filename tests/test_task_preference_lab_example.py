from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab trains models; pip install 'vidground-hf[models]'")
pytest.importorskip("torchvision", reason="the models' processor needs it; pip install 'vidground-hf[models]'")

from vidground_hf.stats.boxes import box_iou  # noqa: E402
from vidground_hf.stats.temporal import temporal_iou  # noqa: E402
from vidground_hf.task_preference.evaluation_baselines import find_constants  # noqa: E402
from vidground_hf.task_preference.row_masks import read_mask  # noqa: E402
from vidground_hf.toy_world import COLOURS, DIRECTIONS, PLACES, SHAPES, render_clip  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _examples_can_be_imported() -> Any:
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def load(name: str) -> Any:
    return importlib.import_module(f"task_preference_lab_{name}" if name else "task_preference_lab")


@pytest.fixture(scope="module")
def clips() -> Any:
    return load("world").generate_lab_clips(seed=4, num_clips=150)


@pytest.fixture(scope="module")
def rows(clips: Any) -> Any:
    return [row for clip in clips for row in load("world").make_rows(clip, Path("clips"))]


def test_things_stand_off_the_grid_and_never_overlap(clips: Any) -> None:
    offsets = {tuple(k % 16 for k in at) for clip in clips for thing in clip.objects for at in thing.corners if at}
    assert offsets == {(across, down) for across in (0, 2, 4, 6) for down in (0, 2, 4, 6)}
    for clip in clips[:20]:
        pixels = render_clip(clip)
        drawn = np.sum([np.stack(load("world").draw_masks(thing, range(16))) for thing in clip.objects], axis=0)
        assert drawn.max() == 1
        np.testing.assert_array_equal(pixels[load("world").SHOWN].any(-1), drawn == 1)


def test_the_mover_goes_once_through_each_quarter_as_its_moves_say(clips: Any) -> None:
    steps = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
    assert set(steps) == set(DIRECTIONS)
    for clip in clips:
        at = [clip.mover.corners[start] for start in clip.phase_starts[:4]]
        quarters = [(y // 32, x // 32) for x, y in at]
        assert len(set(quarters)) == 4
        moved = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(quarters)]
        assert moved == [steps[move] for move in clip.moves]


def test_phases_are_short_and_every_cutting_comes(clips: Any) -> None:
    lengths = np.array([np.diff(clip.phase_starts) for clip in clips])
    assert lengths.sum(1).tolist() == [16] * len(clips)
    assert (lengths.min(), lengths.max()) == (3, 7)
    assert len({tuple(row) for row in lengths.tolist()}) > 25  # of 35


def test_no_constant_span_is_right_for_three_tenths_whatever_the_place(rows: Any) -> None:
    baselines = load("baselines")
    moments = [row for row in rows if row.task == "moment"]
    for place in ("", *PLACES, None):
        own = [row for row in moments if place is None or baselines.read_cue(row) == place]
        spans = np.array([row.spans[0] for row in own])
        constant = find_constants(own).span
        assert constant is not None
        best = 4 * constant
        share = (temporal_iou(best[None], spans) >= 0.5).mean()
        assert share < (0.3 if place is None else 0.4), place  # of 150 moments a place


def test_a_cell_does_not_give_its_box() -> None:
    corners = np.array([(x, y) for x in (0, 2, 4, 6) for y in (0, 2, 4, 6)], float)
    boxes = np.concatenate([corners, corners + 10], axis=1)
    whole = box_iou(np.array([[0.0, 0.0, 16.0, 16.0]]), boxes)
    np.testing.assert_allclose(whole, 100 / 256)
    tried = np.array([[x, y, x + 10, y + 10] for x in range(7) for y in range(7)], float)
    shares = np.array([(box_iou(one[None], boxes) >= 0.5).mean() for one in tried])
    assert shares.max() == 0.5
    best = load("baselines").BEST_IN_CELL_PX
    assert shares[[tuple(one[:2]) == best for one in tried]] == 0.5


def test_every_task_asks_for_the_same_extent(clips: Any, rows: Any) -> None:
    world = load("world")
    clip = clips[0]
    own = {(row.task, row.question): row for row in rows if row.id.startswith("clip_0000-") and row.task != "dialogue"}
    *single, mover = world.list_references(clip)
    assert len({reference.name for reference in single}) == 9
    for reference in single:
        box, mask = own["box", reference.name], own["mask", reference.name]
        seconds = [time for time, drawn in zip(mask.mask_seconds, mask.masks, strict=True) if drawn]
        first = read_mask(next(filter(None, mask.masks)), 64, 64)
        assert first is not None
        down, across = np.nonzero(first)
        assert (across.min(), down.min(), across.max() + 1, down.max() + 1) == box.box
        if reference.thing is not clip.still:
            ((start, end),) = own["moment", reference.name].spans
            assert (start, end) == (reference.frames.start / 4, reference.frames.stop / 4)
            assert seconds == [time for time in np.arange(1, 16, 2) / 4 if start <= time < end]
    assert all(own["mask", mover.name].masks)
    assert ("moment", mover.name) not in own


def test_dialogue_answers_are_true(clips: Any, rows: Any) -> None:
    for row in (row for row in rows[:400] if row.task == "dialogue"):
        clip = clips[int(row.id[5:9])]
        kind, words = row.id.split("-")[2], row.question.split()
        if kind in ("colour", "shape"):
            (thing,) = [one for one in clip.objects if words[-1] in (one.colour, one.shape)]
            assert row.answer == getattr(thing, kind)
        else:
            (thing,) = [one for one in clip.objects if words[-2:] == [one.colour, one.shape]]
            if kind == "turn":
                assert clip.visitors[["first", "second", "third", "fourth"].index(row.answer)] is thing
            else:
                x, y = next(filter(None, thing.corners))
                assert row.answer == f"{'top' if y < 32 else 'bottom'} {'left' if x < 32 else 'right'}"


def test_all_that_is_written_and_asked_is_in_the_vocabulary_and_comes_back(tmp_path: Path) -> None:
    world, text = load("world"), importlib.import_module("vidground_hf.task_preference.row_text")
    generation = importlib.import_module("vidground_hf.task_preference.generation")
    processor = load("model").make_lab_processor()
    clips = world.write_clips(tmp_path, seed=7, num_clips=2)
    rows = [row for clip in clips for row in world.make_rows(clip, tmp_path)]
    for wording in ("train", "held_out"):
        batch = load("scores").LabCollator(processor, "text", wording=wording)(rows)
        assert (batch["input_ids"] != processor.tokenizer.unk_token_id).all()
    assert tuple(batch["video_grid_thw"][0].tolist()) == (8, 4, 4)
    answers = []
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        said = processor.tokenizer.decode(ids[labels != -100], skip_special_tokens=True)
        found = generation.TaskPreferenceAnswer(text=said)
        answers.append(text.read_written_labels(row, found))
    figures = load("scores").score(rows, answers)["figures"]
    assert figures["moments"]["r1@0.7"] == figures["boxes"]["acc@0.5"] == figures["dialogue"]["accuracy"] == 1
    assert figures["routing"]["accuracy"] == 1
    assert figures["masks"]["j_present"] > 0.5  # boxes for shapes


def test_baselines_answer_what_they_are_said_to(clips: Any, rows: Any) -> None:
    baselines, scores = load("baselines"), load("scores")
    held_out = rows[: len(rows) // 3]
    by_id = {clip.id: clip for clip in clips}
    found = {
        name: scores.score(held_out, answers)
        for name, answers in baselines.list_baselines(rows, held_out, by_id).items()
    }
    assert found["constant"]["figures"]["moments"]["r1@0.5"] < 0.35
    assert found["constant"]["figures"]["boxes"]["acc@0.5"] < 0.1
    assert found["words"]["figures"]["dialogue"]["accuracy"] < 0.35
    assert set(found["all objects"]["values"]) == {"moment", "box", "mask"}
    assert found["all objects"]["figures"]["moments"]["r1@0.5"] == 0  # half of the clip is longer than any span
    assert 0.1 < found["all objects"]["figures"]["masks"]["j_present"] < 0.5
    assert set(found["its cell"]["values"]) == {"box", "mask"}
    assert found["its cell"]["figures"]["boxes"]["acc@0.5"] == pytest.approx(0.5, abs=0.06)
    one = next(row for row in held_out if row.task == "mask")
    drawn = baselines.show_all(one, by_id[baselines.find_clip(one)]).masks[0].numpy()
    for mask, shown in zip(one.masks, drawn, strict=True):
        truth = None if mask is None else read_mask(mask, 64, 64)
        assert truth is None or not (truth & ~shown).any()


def test_lessons_tell_what_the_pixels_show(tmp_path: Path) -> None:
    world, warmup = load("world"), load("warmup")
    clips = world.write_clips(tmp_path, seed=3, num_clips=3)
    lessons = warmup.read_lessons(tmp_path, clips)
    drawn = np.stack([render_clip(clip)[list(world.SHOWN)] for clip in clips])
    assert np.abs(lessons.frames.astype(int) - drawn).mean() < 2
    for clip, frame, row, column in np.ndindex(3, 8, 4, 4):
        cell = drawn[clip, frame, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].any(-1)
        name = int(lessons.cells[clip, frame, row, column])
        assert (name > 0) == cell.any()
        offset = lessons.offsets[clip, frame, row, column].tolist()
        if name:
            down, across = np.nonzero(cell)
            assert offset == [across.min() // 2, down.min() // 2]
            assert max(across.min(), down.min()) <= world.CELL_PX - 10
        else:
            assert offset == [-100, -100]


def test_questions_about_a_frame_can_be_answered_from_it(tmp_path: Path) -> None:
    world, warmup, learner = load("world"), load("warmup"), load("learner")
    clips = world.write_clips(tmp_path, seed=3, num_clips=3)
    lessons = warmup.read_lessons(tmp_path, clips)
    for frame in range(8):
        view = learner.View([0, 1, 2], [frame])
        asked = warmup.draw_questions(lessons, view, random.Random(frame))
        for place, one in enumerate(asked):
            clip = clips[place // (len(asked) // 3)]
            if one.traits[0] != learner.UNKNOWN:
                place_, colour, shape, _ = one.traits
                assert one.question.endswith(f"{COLOURS[colour]} {SHAPES[shape]}")
                assert place_ == 0 or PLACES[place_ - 1] in one.question
                continue
            words = one.question.split()
            shown = [thing for thing in clip.objects if thing.corners[world.SHOWN[frame]] is not None]
            assert any({thing.colour, thing.shape} & set(words[-2:]) for thing in shown), one
            assert "turn" not in one.question
            assert "visitor" not in one.question


def test_questions_behind_a_shared_clip_are_as_whole_prompts(tmp_path: Path) -> None:
    world, warmup, learner, model = load("world"), load("warmup"), load("learner"), load("model")
    clips = world.write_clips(tmp_path, seed=3, num_clips=2)
    lessons = warmup.read_lessons(tmp_path, clips)
    processor = model.make_lab_processor()
    torch.manual_seed(0)
    taught = learner.Learner(model.make_lab_model(processor), processor).eval()
    rows = [lessons.rows[0][0], lessons.rows[0][4], lessons.rows[1][1], lessons.rows[1][10]]
    asked = [learner.Asked(row.question, row.answer) for row in rows]
    with torch.no_grad():
        losses, _ = taught.talk(lessons, learner.View([0, 1], range(8)), asked)
        batch = load("scores").LabCollator(processor, "text")(rows)
        names = ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values_videos", "video_grid_thw")
        logits = taught.model(
            **{name: batch[name] for name in names}, second_per_grid_ts=batch["second_per_grid_ts"]
        ).logits
    labels = batch["labels"][:, 1:]
    whole = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels)
    torch.testing.assert_close(losses["answers"], whole, rtol=1e-4, atol=1e-4)


def test_words_behind_a_request_are_read_and_not_learned(tmp_path: Path) -> None:
    world, warmup, learner, model = load("world"), load("warmup"), load("learner"), load("model")
    clips = world.write_clips(tmp_path, seed=3, num_clips=1)
    lessons = warmup.read_lessons(tmp_path, clips)
    processor = model.make_lab_processor()
    torch.manual_seed(0)
    taught = learner.Learner(model.make_lab_model(processor), processor).eval()
    row = lessons.rows[0][0]
    request = warmup.draw_questions(lessons, learner.View([0], range(8)), random.Random(0))[-1]
    found = []
    for words in ("Give the", "Over which"):
        asked = [learner.Asked(row.question, row.answer), request._replace(answer=words)]
        with torch.no_grad():
            found.append(taught.talk(lessons, learner.View([0], range(8)), asked)[0])
    assert found[0]["answers"] == found[1]["answers"]
    assert found[0]["reference"] != found[1]["reference"]


def test_differences_are_paired_by_row_or_by_seed() -> None:
    table = load("table")

    def run(*values: float) -> dict[str, Any]:
        return {"values": {"box": {f"clip_{k}-box-0": value for k, value in enumerate(values)}}}

    scores = {"heads": {0: run(1, 1, 0, 1)}, "text": {0: run(0, 1, 0, 1)}}
    found = table.compare(scores, "box", "heads", "text")
    assert (found["difference"], found["interval"], found["num_seeds"]) == (25.0, "clips", 1)
    assert found["low"] == 0.0
    scores = {"heads": {0: run(1, 1), 1: run(1, 0)}, "text": {0: run(0, 1), 1: run(1, 0), 2: run(1, 1)}}
    found = table.compare(scores, "box", "heads", "text")
    assert (found["difference"], found["interval"], found["num_seeds"]) == (25.0, "seeds", 2)
    assert found["high"] == pytest.approx(25 + 12.706 * 25, abs=0.1)
    assert table.compare(scores, "box", "heads", "none")["difference"] is None


def test_arms_differ_in_what_they_are_said_to() -> None:
    arms = load("arms")
    dialogue = ("dialogue, equal dialogue", "dialogue, equal steps")
    assert ("heads", "text, twice as long", "text", *dialogue) == arms.STANDARD_ARMS
    heads = arms.ARMS["heads"]
    assert arms.ARMS["text"] == replace(heads, answers="text")
    assert arms.ARMS["text, twice as long"] == replace(heads, answers="text", steps_factor=2)
    equal = arms.ARMS["dialogue, equal dialogue"]
    assert equal.num_rows * len(heads.tasks) == heads.num_rows
    assert arms.ARMS["dialogue, equal steps"] == replace(equal, num_rows=heads.num_rows)
    assert "dialogue" not in arms.ARMS["no dialogue in stage 2"].shares[2]
    assert set(arms.STAGES[1].rates) == {"language"}
    assert "vision" not in arms.STAGES[2].rates


def test_a_row_is_about_another_clip_after_swapping(rows: Any) -> None:
    swapped = load("scores").swap_clips(rows[:200])
    for row, other in zip(rows, swapped, strict=False):
        assert other.video != row.video
        assert replace(other, video=row.video) == row


def test_heads_taught_alone_are_all_that_moves(tmp_path: Path) -> None:
    world, model, detector, arms = load("world"), load("model"), load("detector"), load("arms")
    clips = world.write_clips(tmp_path, seed=3, num_clips=2)
    rows = [row for row in world.make_rows(clips[0], tmp_path) if row.task != "dialogue"]
    processor = model.make_lab_processor()
    torch.manual_seed(0)
    model.save(tmp_path / "base", model.make_lab_model(processor), processor)
    for name, num_steps in (("fresh", 0), ("taught", 2)):
        detector.start_arm(arms.ARMS["heads"], tmp_path / "base", tmp_path / name, rows, num_steps=num_steps, seed=0)
    (fresh, processor), (taught, _) = (arms.load_trained(tmp_path / name) for name in ("fresh", "taught"))
    for (name, before), after in zip(fresh.named_parameters(), taught.parameters(), strict=True):
        assert torch.equal(before, after) != name.startswith("heads."), name
    seen = detector.read_once(taught, processor, rows)
    assert {task: len(states) for task, states in seen.states.items()} == {"moment": 8, "box": 9, "mask": 10}
    assert set(detector.score_heads(taught, processor, rows)["values"]) == {"moment", "box", "mask"}


def test_traits_are_read_from_references() -> None:
    row = SimpleNamespace(task="box", question="top left red circle")
    found = [load("scores").read_trait(row, name) for name in ("colour", "shape", "place")]
    assert found == ["red", "circle", "top left"]


def kill_when(command: list[str], path: Path) -> None:
    """Starts a run, and kills it and its processes as soon as a file is there."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        while not path.exists() and started.poll() is None:
            time.sleep(0.05)
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        errors = started.communicate()[1]
    assert started.returncode == -signal.SIGKILL, errors[-2000:]


@pytest.mark.slow
def test_a_lab_that_was_killed_goes_on_to_what_an_unbroken_one_finds(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "task_preference_lab.py"), "--output", str(tmp_path), "--quick"]
    folder = tmp_path / "quick"
    kept = [folder / "base_0" / "config.json", folder / "runs" / "heads-0" / "stage_1" / "log.json"]
    kill_when(command, kept[-1])
    assert not (folder / "runs" / "heads-0.json").exists()
    before = [path.stat().st_mtime_ns for path in kept]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert "differences in points" in done.stdout
    assert (folder / "scores.png").stat().st_size > 0
    result = json.loads((folder / "result.json").read_text())
    others = {"heads alone", "constant", "words", "all objects", "its cell", "blind", "other clip", "new wordings"}
    arms = {name for name, arm in load("arms").ARMS.items() if arm.steps_factor == 1}
    assert set(result["scores"]) == {*arms, *others}

    (folder / "runs" / "heads-0.json").unlink()
    shutil.rmtree(folder / "runs" / "heads-0")  # the arm that was cut off, now in one go
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    after = json.loads((folder / "result.json").read_text())
    for key in ("sizes", "contrasts", "scores", "probes"):
        assert after[key] == result[key], key
