from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidground_hf.toy_world import CELL_NAMES

torch = pytest.importorskip("torch", reason="the example trains a model; pip install 'vidground-hf[models]'")
pytest.importorskip("torchvision", reason="the model's processor needs it; pip install 'vidground-hf[models]'")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
VIEWS = ["options_only", "text", "single_frame", "shuffled_frames", "video", "wrong_video"]
COUNT = {
    "id": "q_0",
    "question": "How many colours do the visitors have, not counting the red ring?",
    "options": ["one", "two", "three", "four"],
    "answer": "three",
    "needs": "video",
    "shortcut_kind": None,
    "cued_option": None,
}
PLACE = COUNT | {
    "question": "In which quarter of the frame is the cross?",
    "options": ["top left", "top right", "bottom left", "bottom right"],
    "answer": "top right",
    "needs": "single_frame",
}
TEXT = COUNT | {
    "question": "What colour is the ring?",
    "options": ["a bank loan", "green", "a quiet song", "an old promise"],
    "answer": "green",
    "needs": "text",
    "shortcut_kind": "inferential_elimination",
    "cued_option": "green",
}


@pytest.fixture(scope="module", autouse=True)
def _examples_can_be_imported() -> Any:
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def load(name: str) -> Any:
    return importlib.import_module(name)


def make_small_set() -> Any:
    """Two clips of noise with a red ring and a blue cross, and three questions each."""
    cells = np.zeros((2, 8, 4, 4), np.int64)
    cells[:, :, 0, 0], cells[:, :, 1, 3] = CELL_NAMES.index("red ring"), CELL_NAMES.index("blue cross")
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 56, 56, 3)).astype(np.uint8)
    visitors = np.array([[1, 2, 3, 4], [7, 1, 13, 1]])
    return load("toy_vlm_data").ToySet(frames, cells, visitors, [[COUNT, PLACE, TEXT], [TEXT, PLACE, COUNT]])


def make_small_model() -> tuple[Any, Any]:
    data, parts = load("toy_vlm_data"), load("toy_vlm_model")
    processor = parts.make_processor(data.show(row, range(4)) for row in (COUNT, PLACE, TEXT))
    torch.manual_seed(0)
    return parts.make_model(processor.tokenizer).eval(), processor


@pytest.mark.parametrize("view", ["text", "single_frame", "shuffled_frames", "video"])
def test_questions_behind_one_pass_over_the_video_get_the_logits_of_whole_prompts(view: str) -> None:
    data, training = load("toy_vlm_data"), load("toy_vlm_training")
    model, processor = make_small_model()
    asker = data.Asker(make_small_set(), processor, questions_per_clip=3, seed=0)
    learner = training.Learner(model, processor, training.Hints(96))
    heads: list[Any] = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: heads.append(output.detach()))
    group = asker.draw([view, view], "all")
    learner(group)
    for k, (ids, end) in enumerate(zip(group.asked.ids, group.asked.ends, strict=True)):
        text = processor.tokenizer.decode(ids[: int(end) + 1])
        assert text.endswith("Answer with the letter of one option . <|im_end|> <|im_start|> assistant")
        frames = group.frames[k // 3]
        content: list[dict[str, str]] = [{"type": "text", "text": text.split(" <|im_end|>")[0]}]
        media: dict[str, Any] = {}
        if len(frames):
            content.insert(0, {"type": "video"})
            metadata = {"fps": 2, "total_num_frames": len(frames), "frames_indices": list(range(len(frames)))}
            media = {"videos": [frames], "video_metadata": [metadata], "do_sample_frames": False}
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(text=[prompt], return_tensors="pt", **media)
        with torch.no_grad():
            whole = model(**inputs).logits[0, -1]
        torch.testing.assert_close(heads[0][k], whole, rtol=1e-4, atol=1e-4)


def test_what_a_view_answers() -> None:
    data = load("toy_vlm_data")
    order = COUNT | {"needs": "order"}
    rows = {"count": COUNT, "place": PLACE, "text": TEXT, "order": order}
    views = VIEWS[:-1]
    found = {name: [view for view in views if data.is_answerable(row, view)] for name, row in rows.items()}
    assert found == {"count": views[3:], "place": views[2:], "text": views, "order": ["video"]}
    assert not data.is_answerable(TEXT | {"shortcut_kind": "external_knowledge"}, "options_only")


def test_what_is_to_be_known_of_a_group() -> None:
    data = load("toy_vlm_data")
    _, processor = make_small_model()
    asker = data.Asker(make_small_set(), processor, questions_per_clip=3, seed=0)
    group = asker.draw(["single_frame", "single_frame"], "all")
    assert group.frames.shape == (2, 1, 56, 56, 3)
    assert group.cells.shape == (2, 1, 4, 4)
    assert (group.sights == data.UNKNOWN).all()
    asked = group.asked
    assert asked.ids.shape[0] == 6
    tokens = [processor.tokenizer.convert_ids_to_tokens(row) for row in asked.ids]
    counts = [row for row in range(6) if "many" in tokens[row]]
    places = [row for row in range(6) if "quarter" in tokens[row]]
    assert asked.gold[counts].tolist() == [data.UNKNOWN] * 2
    assert asked.answers[counts].tolist() == [data.UNKNOWN] * 2
    for row in places:
        gold = tokens[row].index("ABCD"[asked.gold[row]])
        assert tokens[row][gold + 2 : gold + 4] == ["top", "right"]
        assert asked.answers[row] == data.VISUAL_ANSWERS.index("top right")
        assert [tokens[row][end] for end in asked.option_ends[row]].count("left") == 2
        assert tokens[row][asked.question_ends[row]] == "?"
        assert tokens[row][asked.ends[row]] == "assistant"
    mentioned = [(int(row), tokens[row][place]) for row, place, _ in asked.mentions]
    assert [word for row, word in mentioned if row in places] == ["cross"] * 2
    assert [word for row, word in mentioned if row in counts] == ["red", "ring"] * 2


@pytest.mark.parametrize(
    ("category", "question", "topic"),
    [
        ("colour", "Which colour is the ring?", "colour"),
        ("place", "Locate the first ring.", "place"),
        ("direction", "Which way does the red thing move first?", "direction first"),
        ("direction", "In what direction is the last jump of the ring?", "direction last"),
        ("visitor", "Of the visitors, what colour comes first?", "visitor first colour"),
        ("visitor", "What shape has the last of the visitors?", "visitor last shape"),
        ("count", "How many colours do the visitors have, not counting the ring?", "count colour"),
        ("count", "Count the shapes of the visitors.", "count shape"),
    ],
)
def test_what_a_question_asks_for(category: str, question: str, topic: str) -> None:
    data = load("toy_vlm_data")
    row = COUNT | {"category": category, "question": question}
    assert data.TOPICS[data.find_topic(row)] == topic
    assert data.find_topic(row | {"cued_option": "red"}) == data.UNKNOWN


def test_a_question_without_a_category_has_no_topic() -> None:
    data = load("toy_vlm_data")
    assert data.find_topic(COUNT) == data.UNKNOWN


def test_a_whole_clip_tells_its_visitors_and_a_shuffled_one_their_number() -> None:
    data = load("toy_vlm_data")
    _, processor = make_small_model()
    asker = data.Asker(make_small_set(), processor, questions_per_clip=1, seed=0)
    unknown = data.UNKNOWN
    # Red, green, blue and yellow squares; a red circle, a red square, a red triangle and the red square again.
    names = (("red", "square", "yellow", "square", "four", "one"), ("red", "circle", "red", "square", "one", "three"))
    whole = [[data.VISUAL_ANSWERS.index(name) for name in clip] for clip in names]
    assert sorted(asker.draw(["video"] * 2, "all").sights.tolist()) == sorted(whole)
    shuffled = [[unknown] * 4 + sights[4:] for sights in whole]
    assert sorted(asker.draw(["shuffled_frames"] * 2, "all").sights.tolist()) == sorted(shuffled)


def make_walk(last: str = "green circle") -> Any:
    """A red ring that goes right, down and left; a blue cross that stays; green things that come and go."""
    cells = torch.zeros((1, 8, 4, 4), dtype=torch.long)
    ring, cross, *visitors = (
        CELL_NAMES.index(name)
        for name in ("red ring", "blue cross", "green circle", "green square", "green diamond", last)
    )
    for frame in range(8):
        phase = frame // 2
        cells[0, frame, (1, 1, 2, 2)[phase], (0, 1, 1, 0)[phase]] = ring
        cells[0, frame, 3, 3] = cross
        cells[0, frame, 0, phase] = visitors[phase]
    return cells


def test_the_colours_and_shapes_seen_so_far_are_marked() -> None:
    marks = load("toy_vlm_hints").mark_traits(make_walk())[0]
    red, green, blue, square, circle, cross, diamond, ring = 0, 1, 2, 6, 7, 9, 10, 11

    def seen(frame: int, cell: int) -> list[list[int]]:
        return [kind.nonzero().flatten().tolist() for kind in marks[16 * frame + cell]]

    assert marks.shape == (128, 3, 12)
    assert seen(0, 3) == [[green, circle], [], []]
    first = [red, green, blue, circle, cross, ring]
    assert seen(0, 15) == seen(1, 15) == [first, [], []]
    assert seen(2, 1) == [first, [green, square], []]
    assert seen(2, 15) == [first, [green, square], [red, blue, cross, ring]]
    assert seen(7, 15) == [first, [green, square, diamond], first]  # the circle that comes last was there first


def test_steps_turns_and_returns_of_things() -> None:
    hints, unknown = load("toy_vlm_hints"), load("toy_vlm_data").UNKNOWN
    cells = make_walk()
    steps, returns = hints.find_steps(cells), hints.find_returns(cells)
    turns = hints.find_turns(steps, returns)
    way = [(frame, (1, 1, 2, 2)[frame // 2], (0, 1, 1, 0)[frame // 2]) for frame in range(8)]
    right, down, left, nowhere, comes_last, neither = 1, 2, 3, 4, 8, 9
    assert [int(steps[0][at]) for at in way] == [unknown, unknown, right, right, down, down, left, left]
    assert [int(turns[0][at]) for at in way] == [unknown] * 2 + [right] * 2 + [neither] * 2 + [4 + left] * 2
    assert [int(returns[0][at]) for at in way] == [unknown] * 2 + [1] * 6
    assert steps[0, 2:, 3, 3].tolist() == [nowhere] * 6
    assert turns[0, 2:, 3, 3].tolist() == [neither] * 6
    visits = [(frame, 0, frame // 2) for frame in range(2, 8)]
    assert [int(steps[0][at]) for at in visits] == [unknown] * 6
    assert [int(returns[0][at]) for at in visits] == [0, 0, 0, 0, 1, 1]
    assert [int(turns[0][at]) for at in visits] == [neither] * 6  # the circle that comes last was there first
    other = make_walk(last="green triangle")
    other_turns = hints.find_turns(hints.find_steps(other), hints.find_returns(other))
    assert [int(other_turns[0][at]) for at in visits] == [neither] * 4 + [comes_last] * 2
    empty = cells == 0
    assert {int(value) for labels in (steps, turns, returns) for value in labels[empty]} == {unknown}


def test_what_is_mentioned_is_found_where_it_stands_and_goes() -> None:
    hints, data = load("toy_vlm_hints"), load("toy_vlm_data")
    _, processor = make_small_model()
    asker = data.Asker(make_small_set(), processor, questions_per_clip=3, seed=0)
    group = asker.draw(["video"], "all")._replace(cells=make_walk())
    readers = hints.Hints(12)
    with torch.no_grad():
        for reader in (readers.quarter, readers.heading):
            reader.weight.zero_()
        readers.quarter.bias.copy_(torch.tensor([0.0, 0, 0, 50]))  # what stays is at the bottom right
        readers.heading.bias.copy_(
            torch.tensor([0.0, 50, 0, 0, 0, 0, 0, 50])
        )  # first to the right, at last to the left
    states = torch.zeros((*group.asked.ids.shape, 12))
    # The words are "red ring" and "cross": read what is right, the shape for the colour and the other way round.
    for row, place, word in group.asked.mentions.tolist():
        states[row, place, {0: 11, 11: 0, 9: 2}[word]] = 50

    def name(read: Any) -> Any:
        return torch.nn.functional.pad(read, (0, 14))  # of the 26 answers these are colours and shapes

    with torch.no_grad():
        losses = readers.grade_mentions(group, states, states, name)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {"mentions": 0, "quarters": 0, "headings": 0}, abs=1e-6
    )
    wrong = readers.grade_mentions(group, -states, states, name)
    assert float(wrong["mentions"]) > 50
    shuffled = group._replace(sights=torch.full_like(group.sights, data.UNKNOWN))
    assert "headings" not in readers.grade_mentions(shuffled, states, states, name)
    assert readers.grade_mentions(group._replace(cells=torch.zeros_like(group.cells)), states, states, name) == {}


def test_lessons_follow_one_another() -> None:
    script = load("train_toy_vlm")
    sizes = script.Sizes(
        num_watching_steps=6,
        num_naming_steps=6,
        num_choosing_steps=6,
        num_mixed_steps=6,
        num_look_up_steps=12,
        num_clips=1,
        num_held_out=1,
    )
    plan = [script.plan_step(step, sizes, random.Random(0)) for step in range(sizes.num_steps)]
    assert [[lesson for _, lesson in step] for step in plan[:6]] == [["watch", "look_up"]] * 6
    assert [[lesson for _, lesson in step] for step in plan[6:12]] == [["name", "look_up"]] * 6
    assert [step[0][1] for step in plan[12:18]] == ["name", *["choose"] * 5]
    assert [[lesson for _, lesson in step] for step in plan[18:]] == [["all", "all"], ["all"]] * 3
    single = [k for k, step in enumerate(plan) if step[0][0][0] == "single_frame"]
    assert single == [5, 8, 11, 17, 20, 23]
    assert [len(step[0][0]) for step in plan[4:9]] == [8, 4, 8, 8, 4]
    assert {view for step in plan[18::2] for view in step[1][0]} <= {"text", "options_only"}
    long = replace(sizes, num_naming_steps=100)
    late = [script.plan_step(12 + k, long, random.Random(0))[1][1] for k in range(6)]
    assert sorted(late) == ["choose"] * 4 + ["look_up"] * 2


def test_frames_of_a_view() -> None:
    pick_frames = load("toy_vlm_table").pick_frames
    frames = np.arange(3 * 8).reshape(3, 8)
    rng = np.random.default_rng(0)
    assert pick_frames(frames, 1, "text", rng) is None
    single, places = pick_frames(frames, 1, "single_frame", rng)
    assert (single.tolist(), places) == ([12], [4])
    whole, places = pick_frames(frames, 1, "video", rng)
    assert (whole.tolist(), places) == (list(range(8, 16)), list(range(8)))
    shuffled, places = pick_frames(frames, 1, "shuffled_frames", rng)
    assert shuffled.tolist() == [8 + place for place in places] != whole.tolist()
    assert sorted(places) == list(range(8))
    assert {int(pick_frames(frames, 1, "wrong_video", rng)[0][0]) for _ in range(20)} == {0, 16}


def test_accuracies_are_a_line_a_need() -> None:
    cells = dict.fromkeys(VIEWS, 0.5)
    lines = load("toy_vlm_table").format_accuracies({"text": cells | {"video": None}}, {"text": 3}).split("\n")
    assert [line.split() for line in lines] == [
        ["needs", "questions", *VIEWS],
        ["text", "3", *["0.500"] * 4, "-", "0.500"],
    ]


@pytest.mark.slow
def test_a_quick_run_ends_with_a_model_that_loads_and_a_table_of_all_views(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    command = [sys.executable, str(EXAMPLES / "train_toy_vlm.py"), "--quick", "--output", str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *table, line = done.stdout.splitlines()
    assert [row.split()[0] for row in table] == ["needs", "text", "single_frame", "order", "video", "visual"]
    assert table[0].split() == ["needs", "questions", *VIEWS]
    result = json.loads(line)
    assert list(result) == ["accuracy", "num_questions", "seed", "num_steps", "num_processes", "seconds"]
    assert {need: list(cells) for need, cells in result["accuracy"].items()} == dict.fromkeys(
        ["text", "single_frame", "order", "video", "visual"], VIEWS
    )
    assert result["num_questions"]["text"] + result["num_questions"]["visual"] == 30
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert (type(processor).__name__, type(model).__name__) == (
        "Qwen2_5_VLProcessor",
        "Qwen2_5_VLForConditionalGeneration",
    )
