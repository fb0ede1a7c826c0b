"""Toy sets as a model in training sees them: questions behind a view of their clip, and what is right of each.

No model is run here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray

from vidground_hf.prompts import make_prompt
from vidground_hf.schema import LETTERS, Example
from vidground_hf.toy_questions import NUM_OPTIONS, VISUAL_ANSWERS
from vidground_hf.toy_world import CELL_NAMES, COLOURS, DIRECTIONS, NUMBERS, PLACES, SHAPES

FPS, MAX_FRAMES = 2, 8  # of a toy clip in grid style
VIEWS = ("options_only", "text", "single_frame", "shuffled_frames", "video", "wrong_video")
# What each planted need can be answered from. Cues in the options are read without the question too.
ENOUGH = {
    "text": ("text", "single_frame", "shuffled_frames", "video"),
    "single_frame": ("single_frame", "shuffled_frames", "video"),
    "video": ("shuffled_frames", "video"),
    "order": ("video",),
}
CUES_IN_OPTIONS = ("textual_shortcut", "inferential_elimination")
Lesson = Literal["watch", "look_up", "name", "choose", "all"]
UNKNOWN = -100  # as PyTorch's cross entropy leaves a target out
# What a question may ask for: a trait or the place of a thing, a move of it, a trait of a visitor, a number of traits.
TOPICS = (
    *("colour", "shape", "place", "direction first", "direction last", "count colour", "count shape"),
    *(f"visitor {end} {trait}" for end in ("first", "last") for trait in ("colour", "shape")),
)


@dataclass(frozen=True, slots=True)
class ToySet:
    """A toy set in memory.

    Attributes:
        frames (`uint8[N, 8, 56, 56, 3]`): decoded.
        cells (`int64[N, 8, 4, 4]`): what each cell shows, see `toy_world.label_cells`.
        visitors (`int64[N, 4]`): the visitors in turn, as `cells` has them.
        rows (`list[list[dict]]`): per clip its questions, as in `questions.jsonl`.
    """

    frames: NDArray[np.uint8]
    cells: NDArray[np.int64]
    visitors: NDArray[np.int64]
    rows: list[list[dict[str, Any]]]


class Asked(NamedTuple):
    """Questions of one group of clips, tokenised, and where in them what is to be known.

    Attributes:
        ids (`int64[R, T]`): what follows the video, padded on the right.
        question_ends (`int64[R]`), ends (`int64[R]`): positions of last tokens; the same without options.
        option_ends (`int64[R, 4]`, *optional*): `None` where no options are shown.
        right (`int64[R]`): position of the right option as shown; `UNKNOWN` without options.
        gold (`int64[R]`): the same where the view tells, else `UNKNOWN`.
        answers (`int64[R]`): the answer's position in `VISUAL_ANSWERS`, `UNKNOWN` where it cannot be seen.
        topics (`int64[R]`): a position in `TOPICS`; `UNKNOWN` where the question is none of a clip's.
        orders (`list[list[int]]`): of the options, as shown; empty without options.
        mentions (`int64[M, 3]`): of each colour and shape in a question its row, its position in the row and its
            position in `VISUAL_ANSWERS`.
    """

    ids: torch.Tensor
    question_ends: torch.Tensor
    option_ends: torch.Tensor | None
    ends: torch.Tensor
    right: torch.Tensor
    gold: torch.Tensor
    answers: torch.Tensor
    topics: torch.Tensor
    orders: list[list[int]]
    mentions: torch.Tensor


class Group(NamedTuple):
    """Clips under views of one length, each with the same number of questions.

    Attributes:
        frames (`uint8[G, F, 56, 56, 3]`), cells (`int64[G, F, 4, 4]`): F is 0 without a clip.
        sights (`int64[G, 6]`): first visitor's colour and shape, last visitor's, numbers of different colours and
            shapes of visitors, as positions in `VISUAL_ANSWERS`; `UNKNOWN` where the view does not tell.
        asked (`Asked`, *optional*): `None` where nothing is asked; else the same number of rows for each clip, those
            of a clip together.
    """

    frames: NDArray[np.uint8]
    cells: torch.Tensor
    sights: torch.Tensor
    asked: Asked | None


def read_toy_set(folder: Path) -> ToySet:
    """Reads a folder that `make_toy_set` wrote."""
    clips = [json.loads(line) for line in (folder / "labels" / "clips.jsonl").read_text().splitlines()]
    rows: dict[str, list[dict[str, Any]]] = {clip["video"]: [] for clip in clips}
    for line in (folder / "questions.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["video"]].append(row)
    return ToySet(
        frames=np.stack([_read_frames(folder / video) for video in rows]),
        cells=np.array([clip["cells"] for clip in clips]),
        visitors=np.array(
            [
                [CELL_NAMES.index(f"{thing['colour']} {thing['shape']}") for thing in clip["objects"][2:]]
                for clip in clips
            ]
        ),
        rows=list(rows.values()),
    )


def _read_frames(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def make_example(row: dict[str, Any]) -> Example:
    """A row of `questions.jsonl` without its answer."""
    return Example(
        id=row["id"], question=row["question"], problem_type="multiple_choice", options=tuple(row["options"])
    )


def show(row: dict[str, Any], order: Sequence[int], *, with_question: bool = True) -> str:
    """A question as the library words it, its options in an order."""
    return make_prompt(make_example(row), "text" if with_question else "options_only", tuple(order)).text


def is_answerable(row: dict[str, Any], view: str) -> bool:
    """Whether a view has the evidence that a question needs."""
    if view == "options_only":
        return row["shortcut_kind"] in CUES_IN_OPTIONS
    return view in ENOUGH[row["needs"]]


def find_topic(row: dict[str, Any]) -> int:
    """What a question asks for, as a position in `TOPICS`; `UNKNOWN` where a cue adds other words to it."""
    if row["cued_option"] is not None or "category" not in row:
        return UNKNOWN
    words = row["question"].replace(",", " ").replace("?", " ").replace(".", " ").lower().split()
    parts = [row["category"]]
    if parts[0] in ("direction", "visitor"):
        parts.append("first" if "first" in words else "last")
    if parts[0] in ("visitor", "count"):
        parts.append("colour" if {"colour", "colours"} & {*words} else "shape")
    return TOPICS.index(" ".join(parts))


class Asker:
    """Draws groups of clips and questions for ever.

    Args:
        toy_set (`ToySet`): to draw from.
        processor (`Qwen2_5_VLProcessor`): its tokenizer and chat template are used.
        questions_per_clip (`int`): asked of a clip at once.
        seed (`int` or `str`): the same seed, the same groups.
    """

    def __init__(self, toy_set: ToySet, processor: Any, *, questions_per_clip: int, seed: int | str) -> None:
        self.toy_set = toy_set
        self.questions_per_clip = questions_per_clip
        self.tokenizer = processor.tokenizer.backend_tokenizer
        self.pad_id = processor.tokenizer.pad_token_id
        self.tail = processor.apply_chat_template(
            [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
        ).split("x", 1)[1]
        self.text_rows = [row for rows in toy_set.rows for row in rows if row["needs"] == "text"]
        self.restart(seed)

    def restart(self, seed: int | str) -> None:
        """Draws from now on as if it were made with this seed."""
        self.rng = random.Random(seed)
        self._clips = self._draw_clips()

    def draw(self, views: Sequence[str], lesson: Lesson) -> Group:
        """A group with one clip a view; the views show equally many frames."""
        clips = [self._draw_clip(view, lesson) for view in views]
        return self._show(clips, views, None if lesson == "watch" else self._draw_asked(clips, views, lesson))

    def show(self, clips: Sequence[int], questions: Sequence[Sequence[dict[str, Any]]], view: str) -> Group:
        """A group of these clips under a view, with equally many questions about each."""
        rows = [(row, view) for part in questions for row in part]
        return self._show(clips, [view] * len(clips), self._ask(rows))

    def _show(self, clips: Sequence[int], views: Sequence[str], asked: Asked | None) -> Group:
        picks = [self._pick_frames(view) for view in views]
        return Group(
            np.stack([self.toy_set.frames[clip][pick] for clip, pick in zip(clips, picks, strict=True)]),
            torch.from_numpy(
                np.stack([self.toy_set.cells[clip][pick] for clip, pick in zip(clips, picks, strict=True)])
            ),
            torch.tensor([self._describe_visitors(clip, view) for clip, view in zip(clips, views, strict=True)]),
            asked,
        )

    def _draw_clip(self, view: str, lesson: Lesson) -> int:
        """The next clip that the lesson has questions about."""
        clip = next(self._clips)
        while not self._list_rows(clip, view, lesson):
            clip = next(self._clips)
        return clip

    def _list_rows(self, clip: int, view: str, lesson: Lesson) -> list[dict[str, Any]]:
        """The questions about a clip that a lesson asks under a view."""
        rows = self.toy_set.rows[clip]
        if lesson == "name":
            return [row for row in rows if is_answerable(row, view) and row["cued_option"] is None]
        if lesson == "choose" and view == "text":
            return self.text_rows
        if lesson == "choose":
            return [row for row in rows if row["needs"] == ("order" if view == "video" else "single_frame")]
        return rows

    def _draw_clips(self) -> Iterator[int]:
        while True:
            yield from self.rng.sample(range(len(self.toy_set.rows)), len(self.toy_set.rows))

    def _pick_frames(self, view: str) -> list[int]:
        order = list(range(self.toy_set.frames.shape[1]))
        if view == "video":
            return order
        self.rng.shuffle(order)
        return order[: {"shuffled_frames": len(order), "single_frame": 1}.get(view, 0)]

    def _draw_asked(self, clips: list[int], views: Sequence[str], lesson: Lesson) -> Asked:
        rows = [
            (row, view) for clip, view in zip(clips, views, strict=True) for row in self._draw_rows(clip, view, lesson)
        ]
        return self._name(rows) if lesson == "name" else self._ask(rows)

    def _describe_visitors(self, clip: int, view: str) -> list[int]:
        shapes, colours = np.divmod(self.toy_set.visitors[clip] - 1, len(COLOURS))
        names = [COLOURS[colours[0]], SHAPES[shapes[0]], COLOURS[colours[-1]], SHAPES[shapes[-1]]]
        names += [NUMBERS[len({*kinds}) - 1] for kinds in (colours.tolist(), shapes.tolist())]
        is_told = [view == "video"] * 4 + [view in ENOUGH["video"]] * 2
        return [VISUAL_ANSWERS.index(name) if told else UNKNOWN for name, told in zip(names, is_told, strict=True)]

    def _draw_rows(self, clip: int, view: str, lesson: Lesson) -> list[dict[str, Any]]:
        """Questions of a lesson; half of those that text answers are other clips', and text still answers them."""
        if lesson == "look_up":
            return [self._make_look_up() for _ in range(self.questions_per_clip)]
        rows = self._list_rows(clip, view, lesson)
        drawn = self.rng.sample(rows, min(len(rows), self.questions_per_clip))
        drawn += self.rng.choices(rows, k=self.questions_per_clip - len(drawn))
        is_swapped = [row["needs"] == "text" and self.rng.random() < 0.5 for row in drawn]
        return [self.rng.choice(self.text_rows) if swap else row for row, swap in zip(drawn, is_swapped, strict=True)]

    def draw_text_row(self, with_cue: bool) -> dict[str, Any]:
        """A question that text answers: by a cue, or because it is the answer itself."""
        return self.rng.choice(self.text_rows) if with_cue else self._make_look_up()

    def _make_look_up(self) -> dict[str, Any]:
        """A question that is the answer itself: only the option has to be found."""
        choices = self.rng.choice((COLOURS, SHAPES, PLACES, DIRECTIONS, NUMBERS))
        options = self.rng.sample(choices, NUM_OPTIONS)
        return {
            "id": "look_up",
            "question": options[0],
            "options": options,
            "answer": options[0],
            "needs": "text",
            "shortcut_kind": None,
            "cued_option": None,
        }

    def _name(self, asked: Sequence[tuple[dict[str, Any], str]]) -> Asked:
        """Questions without options, whose answer is to be named."""
        texts = [show(row, range(NUM_OPTIONS)).split("\n")[0] for row, _ in asked]
        ids, encodings = self._encode(texts)
        ends = torch.tensor([len(encoding) - 1 for encoding in encodings])
        answers = torch.tensor([VISUAL_ANSWERS.index(row["answer"]) for row, _ in asked])
        topics = torch.tensor([find_topic(row) for row, _ in asked])
        gold = torch.full_like(ends, UNKNOWN)
        return Asked(ids, ends, None, ends, gold, gold, answers, topics, [], _find_mentions(encodings, ends))

    def _encode(self, texts: list[str]) -> tuple[torch.Tensor, list[Any]]:
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = torch.full((len(texts), max(map(len, encodings))), self.pad_id)
        for row, encoding in zip(ids, encodings, strict=True):
            row[: len(encoding)] = torch.tensor(encoding.ids)
        return ids, encodings

    def _ask(self, asked: Sequence[tuple[dict[str, Any], str]]) -> Asked:
        orders = [self.rng.sample(range(NUM_OPTIONS), NUM_OPTIONS) for _ in asked]
        texts = [
            show(row, order, with_question=view != "options_only")
            for (row, view), order in zip(asked, orders, strict=True)
        ]
        ids, encodings = self._encode([text + self.tail for text in texts])
        marks = []
        for (row, view), order, text, encoding in zip(asked, orders, texts, encodings, strict=True):
            lines = text.split("\n")
            stops = [len("\n".join(lines[:n])) - 1 for n in range(1, len(lines))]
            option_ends = [encoding.char_to_token(stop) for stop in stops[-NUM_OPTIONS:]]
            question_end = option_ends[0] if view == "options_only" else encoding.char_to_token(stops[0])
            right = [row["options"][j] for j in order].index(row["answer"])
            gold = right if is_answerable(row, view) else UNKNOWN
            is_seen = gold != UNKNOWN and row["cued_option"] is None
            answer = VISUAL_ANSWERS.index(row["answer"]) if is_seen else UNKNOWN
            topic = UNKNOWN if view == "options_only" else find_topic(row)
            marks.append([question_end, *option_ends, len(encoding) - 1, right, gold, answer, topic])
        columns = torch.tensor(marks)
        return Asked(
            ids,
            columns[:, 0],
            columns[:, 1:5],
            columns[:, 5],
            columns[:, 6],
            columns[:, 7],
            columns[:, 8],
            columns[:, 9],
            orders,
            _find_mentions(encodings, columns[:, 0]),
        )


def _find_mentions(encodings: list[Any], question_ends: torch.Tensor) -> torch.Tensor:
    names = {word: k for k, word in enumerate((*COLOURS, *SHAPES))}
    found = [
        (row, place, names[word])
        for row, (encoding, end) in enumerate(zip(encodings, question_ends.tolist(), strict=True))
        for place, word in enumerate(encoding.tokens[: end + 1])
        if word in names
    ]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 3)


def find_letter_ids(processor: Any) -> list[int]:
    """The tokens of the option letters."""
    ids: list[int] = processor.tokenizer.convert_tokens_to_ids(list(LETTERS[:NUM_OPTIONS]))
    return ids
