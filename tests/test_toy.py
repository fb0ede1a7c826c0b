"""The toy set: files, determinism, and that every question needs exactly what it says it needs."""

import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, chisquare
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from vidground_hf import toy
from vidground_hf.toy import describe_clip, make_toy_set
from vidground_hf.toy_questions import (
    MISLEADING_SHARE,
    SHORTCUT_KINDS,
    VISUAL_ANSWERS,
    ToyQuestion,
    generate_questions,
)
from vidground_hf.toy_world import (
    CELL_NAMES,
    COLOURS,
    DIRECTIONS,
    NUM_PHASES,
    NUMBERS,
    PALETTE,
    PLACES,
    SHAPES,
    TOY_STYLES,
    Clip,
    ToyStyle,
    draw_shape,
    generate_clips,
    label_cells,
    render_clip,
)

Frames = NDArray[np.uint8]
Labels = NDArray[np.int64]
STEPS = {(-1, 0): "up", (0, 1): "right", (1, 0): "down", (0, -1): "left"}


@pytest.fixture(scope="module")
def toy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small grid set on disk."""
    return make_toy_set(tmp_path_factory.mktemp("toy"), num_questions=200, num_clips=40, seed=5).parent


@pytest.fixture(scope="module")
def questions() -> list[ToyQuestion]:
    """The questions of the default set."""
    return generate_questions(generate_clips(0, 200), num_questions=1000, seed=0)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def decode(path: Path) -> Frames:
    with av.open(str(path)) as container:
        frames = [frame.reformat(format="rgb24", threads=1) for frame in container.decode(video=0)]
        return np.stack([frame.to_ndarray() for frame in frames])


def read_cells(frames: Frames) -> Labels:
    """Names each 14-pixel cell of decoded grid frames from its mean colour and its lit pixels alone."""
    palette = np.array(list(PALETTE.values()), float)
    palette /= np.linalg.norm(palette, axis=1, keepdims=True)
    shapes = np.stack([np.pad(draw_shape(shape, 10), 2) for shape in SHAPES])
    cells = frames.reshape(len(frames), 4, 14, 4, 14, 3).swapaxes(2, 3).astype(float)
    colours = (cells.mean(axis=(3, 4)) @ palette.T).argmax(axis=-1)
    lit = cells.max(axis=-1) > 100
    overlap = np.stack([(lit & shape).sum((3, 4)) / np.maximum((lit | shape).sum((3, 4)), 1) for shape in shapes], -1)
    return np.where(lit.any(axis=(3, 4)), 1 + overlap.argmax(axis=-1) * len(COLOURS) + colours, 0)


def list_objects(labels: Labels) -> dict[str, list[tuple[int, int] | None]]:
    """Per frame the cell of each thing that is ever seen; no two look the same."""
    found: dict[str, list[tuple[int, int] | None]] = {}
    for value in sorted(set(labels.flat) - {0}):
        at = [np.argwhere(frame == value) for frame in labels]
        assert all(len(places) <= 1 for places in at)
        found[CELL_NAMES[value]] = [(int(places[0][0]), int(places[0][1])) if len(places) else None for places in at]
    return found


def find_word(text: str, words: tuple[str, ...]) -> str:
    found = [word for word in words if re.search(rf"\b{word}s?\b", text)]
    assert len(found) == 1, (text, found)
    return found[0]


def find_thing(text: str, things: dict[str, Any]) -> str:
    """The only thing whose shape or colour, or both, the text names."""
    named = {word for word in (*COLOURS, *SHAPES) if re.search(rf"\b{word}\b", text)}
    found = [name for name in things if named <= set(name.split())]
    assert len(found) == 1, (text, found)
    return found[0]


def answer_from_labels(category: str, text: str, labels: Labels) -> str:
    """Answers a question from what stands where, as a person who watches would."""
    things = list_objects(labels)
    if category in ("colour", "shape"):
        return find_thing(text, things).split()[category == "shape"]
    if category in ("place", "direction"):
        cells = [cell for cell in things[find_thing(text, things)] if cell is not None]
        if category == "place":
            return PLACES[2 * (cells[0][0] >= 2) + (cells[0][1] >= 2)]
        moves = [STEPS[b[0] - a[0], b[1] - a[1]] for a, b in pairwise(cells) if a != b]
        return moves[0 if find_word(text, ("first", "last")) == "first" else -1]
    trait = ("colour", "shape").index(find_word(text, ("colour", "shape")))
    passing = {name: cells for name, cells in things.items() if None in cells}
    if category == "count":
        return NUMBERS[len({name.split()[trait] for name in passing}) - 1]
    frame = 0 if find_word(text, ("first", "last")) == "first" else -1
    (name,) = (name for name, cells in passing.items() if cells[frame] is not None)
    return name.split()[trait]


def find_option(value: str, options: list[str]) -> str:
    """The option that says the value, however wordily."""
    (option,) = (option for option in options if re.search(rf"\b{value}\b", option))
    return option


def check_answer(row: dict[str, Any], labels: Labels) -> None:
    assert find_option(answer_from_labels(row["category"], row["question"], labels), row["options"]) == row["answer"]


def test_every_answer_can_be_read_off_the_decoded_videos(toy_set: Path) -> None:
    labels = {f"videos/{path.name}": read_cells(decode(path)) for path in (toy_set / "videos").iterdir()}
    rows = read_rows(toy_set / "questions.jsonl")
    assert len(rows) == 200
    assert len(labels) == 40
    for row in rows:
        check_answer(row, labels[row["video"]])


def test_every_answer_is_true_in_free_style() -> None:
    clips = generate_clips(1, 40, "free")
    labels = {clip.video: label_cells(clip) for clip in clips}
    for question in generate_questions(clips, num_questions=200, seed=1):
        row = vars_of(question)
        check_answer(row, labels[row["video"]])


def vars_of(question: ToyQuestion) -> dict[str, Any]:
    return {name: getattr(question, name) for name in question.__slots__}


def test_any_single_frame_answers_single_frame_questions(questions: list[ToyQuestion]) -> None:
    labels = {clip.video: label_cells(clip) for clip in generate_clips(0, 200)}
    rows = [vars_of(question) for question in questions if question.needs == "single_frame"]
    assert {row["category"] for row in rows} == {"colour", "shape", "place"}
    for row in rows:
        for frame in range(8):
            check_answer(row, labels[row["video"]][frame : frame + 1])


def test_the_spans_of_the_evidence_answer_the_question(questions: list[ToyQuestion]) -> None:
    clips = {clip.video: clip for clip in generate_clips(0, 200)}
    for question in questions:
        clip = clips[question.video]
        labels = label_cells(clip)
        ((start, end),) = question.evidence_spans
        shown = labels[int(start * clip.fps) : int(end * clip.fps)]
        if question.category == "visitor":
            passing = {CELL_NAMES[k] for k in shown.flat} & {f"{v.colour} {v.shape}" for v in clip.visitors}
            assert len(passing) == 1
            assert set(re.findall(r"\w+", question.answer)) & set(passing.pop().split())
        else:
            check_answer(vars_of(question), shown)


def reorder(labels: Labels, order: tuple[int, ...]) -> Labels:
    """A grid clip with its four phases of two frames in another order."""
    return labels.reshape(NUM_PHASES, 2, 4, 4)[list(order)].reshape(labels.shape)


def is_walk(labels: Labels, clip: Clip) -> bool:
    cells = list_objects(labels)[f"{clip.mover.colour} {clip.mover.shape}"]
    seen = [cell for cell in cells if cell is not None]
    return all(abs(a[0] - b[0]) + abs(a[1] - b[1]) <= 1 for a, b in pairwise(seen))


def test_unordered_frames_leave_all_options_of_an_order_question_equally_right(questions: list[ToyQuestion]) -> None:
    clips = {clip.video: clip for clip in generate_clips(0, 200)}
    asked = [question for question in questions if question.needs == "order"]
    assert {question.category for question in asked} == {"visitor", "direction"}
    for question in asked[:60]:
        orders = [reorder(label_cells(clips[question.video]), order) for order in permutations(range(NUM_PHASES))]
        # The same frames, in every order in which the mover still takes one step at a time.
        possible = [
            labels for labels in orders if question.category == "visitor" or is_walk(labels, clips[question.video])
        ]
        answers = Counter(answer_from_labels(question.category, question.question, labels) for labels in possible)
        assert len(answers) == 4
        assert len(set(answers.values())) == 1


def test_the_order_of_frames_does_not_matter_to_a_video_question(questions: list[ToyQuestion]) -> None:
    labels = {clip.video: label_cells(clip) for clip in generate_clips(0, 200)}
    asked = [question for question in questions if question.needs == "video"]
    plain = [question.video for question in asked if not question.is_misleading]
    assert len(plain) == len(set(plain)) > 100
    for question in asked:
        check_answer(vars_of(question), labels[question.video][::-1])


def test_one_frame_says_nothing_about_a_count() -> None:
    clips = generate_clips(3, 2000)
    assert all(
        sum(visitor.corners[frame] is not None for visitor in clip.visitors) == 1
        for clip in clips
        for frame in range(8)
    )
    counts = Counter(len({getattr(visitor, clip.shared_trait) for visitor in clip.visitors}) for clip in clips)
    assert sorted(counts) == [1, 2, 3, 4]
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_the_default_set_has_the_planned_shares(questions: list[ToyQuestion]) -> None:
    needs = Counter(question.needs for question in questions)
    assert needs["text"] == 309
    assert min(needs["single_frame"], needs["order"]) >= 268 > needs["video"] >= 134
    assert Counter(q.shortcut_kind for q in questions if q.needs == "text") == dict(
        zip(SHORTCUT_KINDS, (78, 77, 77, 77), strict=True)
    )
    assert sum(question.is_misleading for question in questions) == round(MISLEADING_SHARE * 691) == 28
    for question in questions:
        assert question.answer in question.options
        assert len({option.casefold() for option in question.options}) == 4
        assert (question.shortcut_kind is not None) == (question.needs == "text")
        assert (question.cued_option is not None) == (question.needs == "text" or question.is_misleading)
        if question.cued_option is not None:
            assert question.cued_option in question.options
            assert (question.cued_option == question.answer) == (question.needs == "text")
        if question.needs != "text":
            assert question.answer in VISUAL_ANSWERS


@pytest.mark.parametrize(
    ("text_share", "misleading_share", "num_text", "num_misleading"),
    [(0, 0, 0, 0), (1, 0, 200, 0), (0, 1, 0, 200), (0.5, 0.25, 100, 25)],
)
def test_shares_are_kept(text_share: float, misleading_share: float, num_text: int, num_misleading: int) -> None:
    asked = generate_questions(
        generate_clips(0, 40), num_questions=200, seed=0, text_share=text_share, misleading_share=misleading_share
    )
    assert sum(question.needs == "text" for question in asked) == num_text
    assert sum(question.is_misleading for question in asked) == num_misleading


def test_no_question_recurs_verbatim(questions: list[ToyQuestion]) -> None:
    assert len({(question.question, *sorted(question.options)) for question in questions}) == 1000
    assert len({(question.video, question.question) for question in questions}) == 1000
    assert len({question.question for question in questions}) > 900
    assert not any(re.search(r"[(){}|]", question.question + "".join(question.options)) for question in questions)


def count_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def guess_from_text(questions: list[ToyQuestion]) -> NDArray[np.intp]:
    """A hashed linear model on words of option and question, folds grouped by video: the option it picks."""
    rows = [
        [f"o={b}" for b in count_words(option)]
        + [f"{a}|{b}" for a in set(count_words(question.question)) for b in set(count_words(option))]
        + [f"longer={sum(len(option) > len(other) for other in question.options)}", f"position={position}"]
        for question in questions
        for position, option in enumerate(question.options)
    ]
    features = FeatureHasher(2**17, input_type="string", alternate_sign=False).transform(rows)
    gold = np.array([option == question.answer for question in questions for option in question.options])
    picked = np.zeros(len(questions), np.intp)
    folds = GroupKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(questions, groups=[question.video for question in questions]):
        train, test = ((4 * rows[:, None] + np.arange(4)).ravel() for rows in (train, test))
        model = LogisticRegression(C=0.3, solver="liblinear").fit(features[train], gold[train])
        picked[test[::4] // 4] = model.decision_function(features[test]).reshape(-1, 4).argmax(axis=1)
    return picked


@pytest.mark.parametrize("seed", [0, 1])
def test_text_questions_can_be_learned_from_text_and_visual_ones_cannot(seed: int) -> None:
    asked = generate_questions(generate_clips(seed, 200), num_questions=1000, seed=seed)
    is_right = guess_from_text(asked) == [question.options.index(question.answer) for question in asked]
    is_text = np.array([question.needs == "text" for question in asked])
    assert is_right[is_text].mean() >= 0.95
    for kind in SHORTCUT_KINDS:
        assert is_right[[question.shortcut_kind == kind for question in asked]].mean() >= 0.9
    low, high = binom.interval(0.999, 691, 0.25)
    assert low <= is_right[~is_text].sum() <= high


def test_misleading_cues_are_the_cues_of_text_questions(questions: list[ToyQuestion]) -> None:
    picked = guess_from_text(questions)
    followed = [q.options[k] == q.cued_option for q, k in zip(questions, picked, strict=True) if q.is_misleading]
    assert np.mean(followed) >= 0.75


def test_position_length_and_the_commonest_answer_give_visual_questions_not_away() -> None:
    asked = generate_questions(generate_clips(7, 800), num_questions=4000, seed=7, text_share=0, misleading_share=0)
    positions = Counter(question.options.index(question.answer) for question in asked)
    assert chisquare(list(positions.values())).pvalue > 0.001
    low, high = binom.interval(0.999, len(asked), 0.25)
    longest = [max(question.options, key=len) == question.answer for question in asked]
    shortest = [min(question.options, key=len) == question.answer for question in asked]
    assert low <= sum(longest) <= high
    assert low <= sum(shortest) <= high
    for category, values in (
        ("colour", COLOURS),
        ("shape", SHAPES),
        ("place", PLACES),
        ("direction", DIRECTIONS),
        ("count", NUMBERS),
    ):
        answers = Counter(question.answer for question in asked if question.category == category)
        assert set(answers) == set(values)
        assert chisquare(list(answers.values())).pvalue > 0.001


@given(st.integers(0, 2**32), st.sampled_from(TOY_STYLES))
@settings(max_examples=40, deadline=None)
def test_objects_never_overlap_nor_leave_the_frame(seed: int, style: ToyStyle) -> None:
    (clip,) = generate_clips(seed, 1, style)
    assert len({(thing.shape, thing.colour) for thing in clip.objects}) == 6
    assert clip.phase_starts[0] == 0
    assert clip.phase_starts[-1] == clip.num_frames
    assert max(b - a for a, b in pairwise(clip.phase_starts)) <= clip.num_frames // 2
    filled = np.zeros((clip.num_frames, clip.height_px, clip.width_px), int)
    for thing in clip.objects:
        for frame, box in enumerate(thing.boxes):
            if box is not None:
                assert min(box) >= 0
                assert max(box) <= clip.height_px
                filled[frame, box[1] : box[3], box[0] : box[2]] += 1
    assert filled.max() == 1


def test_a_clip_does_not_depend_on_how_many_there_are() -> None:
    assert generate_clips(4, 3) == generate_clips(4, 9)[:3]
    assert generate_clips(4, 3) != generate_clips(5, 3)


@pytest.mark.parametrize("size_px", [10, 14, 18, 22])
def test_shapes_fill_their_box_and_differ(size_px: int) -> None:
    masks = [draw_shape(shape, size_px) for shape in SHAPES]
    for mask in masks:
        assert mask.shape == (size_px, size_px)
        assert all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    assert min((a != b).sum() for k, a in enumerate(masks) for b in masks[:k]) >= 16


def fill_runs(rle: dict[str, Any]) -> NDArray[np.bool_]:
    flat = np.repeat(np.arange(len(rle["counts"])) % 2 == 1, rle["counts"])
    return flat.reshape(rle["size"], order="F")


@pytest.mark.parametrize("style", TOY_STYLES)
def test_labels_describe_the_pixels(style: ToyStyle) -> None:
    for clip in generate_clips(2, 5, style):
        row = json.loads(json.dumps(describe_clip(clip)))
        frames = render_clip(clip)
        assert frames.shape == (row["num_frames"], row["height_px"], row["width_px"], 3)
        painted = np.zeros(frames.shape[:3], bool)
        for thing in row["objects"]:
            for frame, (box, rle) in enumerate(zip(thing["boxes"], thing["masks"], strict=True)):
                if box is None:
                    assert rle is None
                    continue
                mask = fill_runs(rle)
                rows, columns = np.nonzero(mask)
                assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert (frames[frame][mask] == PALETTE[thing["colour"]]).all()
                painted[frame] |= mask
        ground = [(frames == colour).all(axis=-1) for colour in PALETTE.values()]
        assert (np.any(ground, axis=0) == painted).all()
        assert row["cells"] == label_cells(clip).tolist()


def test_events_say_what_happens_when() -> None:
    (clip,) = generate_clips(0, 1)
    row = describe_clip(clip)
    visits = [event for event in row["events"] if event["name"] == "visible"]
    assert [event["span_seconds"] for event in visits] == [[0, 4], [0, 4], [0, 1], [1, 2], [2, 3], [3, 4]]
    moves = [event for event in row["events"] if event["name"] == "move"]
    assert [event["direction"] for event in moves] == list(clip.moves)
    assert [event["span_seconds"] for event in moves] == [[0, 2], [1, 3], [2, 4]]


def test_the_codec_keeps_every_cell_of_the_grid(toy_set: Path) -> None:
    for clip in generate_clips(5, 40):
        frames = decode(toy_set / clip.video)
        drawn = render_clip(clip)
        assert frames.shape == drawn.shape
        assert np.abs(frames.astype(int) - drawn).mean() < 4
        assert (read_cells(frames) == label_cells(clip)).all()


def test_free_videos_decode_to_what_was_drawn(tmp_path: Path) -> None:
    make_toy_set(tmp_path, num_questions=4, num_clips=2, style="free")
    for clip in generate_clips(0, 2, "free"):
        frames = decode(tmp_path / clip.video)
        assert frames.shape == (32, 112, 112, 3)
        assert np.abs(frames.astype(int) - render_clip(clip)).mean() < 8


def test_videos_have_the_stated_times(toy_set: Path) -> None:
    with av.open(str(toy_set / "videos" / "clip_0000.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 8)
        assert [frame.time for frame in container.decode(stream)] == [k / 2 for k in range(8)]


@pytest.mark.parametrize("style", TOY_STYLES)
def test_the_same_seed_gives_the_same_set(tmp_path: Path, style: ToyStyle) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_toy_set(tmp_path / name, num_questions=40, num_clips=8, seed=seed, style=style)
    for part in ("questions.jsonl", "labels/clips.jsonl"):
        assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes()
        assert (tmp_path / "a" / part).read_bytes() != (tmp_path / "c" / part).read_bytes()
    for path in (tmp_path / "a" / "videos").iterdir():
        assert (decode(path) == decode(tmp_path / "b" / "videos" / path.name)).all()


def test_datasets_opens_the_questions_and_the_labels(toy_set: Path, tmp_path: Path) -> None:
    def load(path: Path) -> Any:
        return load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))

    rows = load(toy_set / "questions.jsonl")
    assert rows.num_rows == 200
    types = {name: str(feature) for name, feature in rows.features.items()}
    assert types["options"] == "List(Value('string'))"
    assert types["evidence_spans"] == "List(List(Value('float64')))"
    assert types["is_misleading"] == "Value('bool')"
    assert {name for name, kind in types.items() if kind == "Value('string')"} == {
        "id", "question", "answer", "video", "problem_type", "category", "needs", "shortcut_kind", "cued_option",
    }  # fmt: skip
    assert load(toy_set / "labels" / "clips.jsonl").num_rows == 40


def test_an_interrupted_run_leaves_no_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_toy_set(tmp_path, num_questions=20, num_clips=4)
    whole = path.read_bytes()
    write: Callable[..., None] = toy._write_video

    def fail_on_third(path: Path, frames: Frames, fps: int) -> None:
        if path.stem == "clip_0002":
            raise KeyboardInterrupt
        write(path, frames, fps)

    monkeypatch.setattr(toy, "_write_video", fail_on_third)
    with pytest.raises(KeyboardInterrupt):
        make_toy_set(tmp_path, num_questions=20, num_clips=4)
    assert not path.exists()
    monkeypatch.undo()
    assert make_toy_set(tmp_path, num_questions=20, num_clips=4).read_bytes() == whole
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_questions": 0}, "num_questions = 0 is too small; pass an integer of at least 1"),
        ({"num_clips": -2}, "num_clips = -2 is too small; pass an integer of at least 1"),
        ({"seed": -1}, "seed = -1 is too small; pass an integer of at least 0"),
        ({"text_share": 1.5}, "text_share = 1.5 is no share; pass a number from 0 to 1"),
        ({"misleading_share": float("nan")}, "misleading_share = nan is no share; pass a number from 0 to 1"),
        ({"style": "blob"}, "style = 'blob' is unknown; pass one of grid, free"),
        ({"num_questions": 9000, "num_clips": 1}, "num_questions = 9000 is more than there are wordings for"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_toy_set(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()
