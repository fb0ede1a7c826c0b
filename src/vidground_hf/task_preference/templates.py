"""How a row is put into words: the question that a user asks, in several wordings for each task.

The answer is written by `collating.py`. No wording names its head: the same nouns serve every task, so that a model
must read what is asked about them.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from vidground_hf.schema import LETTERS
from vidground_hf.task_preference.task_rows import TaskRow

Wording = Literal["train", "held_out"]

# What is looked for comes last, where a small model binds it best (our own trial: .98 instead of .57 of colours).
TEMPLATES: dict[str, tuple[str, ...]] = {
    "moment": (
        "Give the part of the {media}, from start to end, for this: {query}",
        "Over which stretch of the {media} does this go on? {query}",
        "Between which two points, sooner and later, does this happen? {query}",
        "Where does it begin and where does it end in this {media}? {query}",
        "Say how far into the {media} the edges of this part are: {query}",
        "Find the place in the {media} while this is so: {query}",
    ),
    "box": (
        "Give the part of the {media}, from left to right and top to bottom, for this: {query}",
        "Over which stretch of the view, across and down, does this reach? {query}",
        "Between which two points, upper left and lower right, is this? {query}",
        "Where are the four edges of this part in the {media}? {query}",
        "Say how far across and down the edges of this are: {query}",
        "Find the place in the {media} that just holds this: {query}",
    ),
    "mask": (
        "Give the part of the {media}, exactly as far as it goes, for this: {query}",
        "Over which stretch of the view, part by part, does this spread? {query}",
        "Between which points all along its edges is this? {query}",
        "Where does it leave off and the rest begin in this {media}? {query}",
        "Say which points belong to this part and which do not: {query}",
        "Find the place in the {media} and follow its edges all round: {query}",
    ),
    "reasoning": (
        "Give the part of the {media} that shows the answer, from start to end, then the answer: {query}",
        "Over which stretch of the {media} can the answer be seen? Then answer. {query}",
        "Between which two points, sooner and later, is the answer to be seen? Answer after that. {query}",
        "Find the place in the {media} while the answer shows, and then answer: {query}",
    ),
}
"""Wordings to train with, by kind of row. Our own."""

HELD_OUT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "moment": (
        "Which part of the {media} would you keep, sooner to later, to show this? {query}",
        "Point to the place where this starts and the place where it is over: {query}",
    ),
    "box": (
        "Which part of the view would you keep, side to side and up to down, to show this? {query}",
        "Point to the place where its upper left and lower right edges meet: {query}",
    ),
    "mask": (
        "Which part of the view would you keep, and no more of it, to show this? {query}",
        "Point to the place it covers and keep to its edges: {query}",
    ),
    "reasoning": (
        "Which part of the {media} would you keep, sooner to later, to show the answer? Then give it. {query}",
    ),
}
"""Wordings for evaluation, never trained on."""


def name_kind(row: TaskRow) -> str:
    """Which wordings a row takes: its task, or `"reasoning"` for a moment with an answer.

    Example:
        >>> name_kind(TaskRow(id="1", task="moment", question="q", answer="a", video="v.mp4", spans=((0.0, 1.0),)))
        'reasoning'
    """
    return "reasoning" if row.task == "moment" and row.answer is not None else row.task


def ask_question(row: TaskRow, *, wording: Wording = "train", seed: int = 0) -> str:
    """Words what a row asks.

    Args:
        row (`TaskRow`): dialogue is asked in its own words.
        wording (`str`, *optional*, defaults to `"train"`): or `"held_out"`.
        seed (`int`, *optional*, defaults to 0): with the row's id it draws the wording, the same in every process.

    Returns:
        `str`: with lettered options where the row has some.

    Example:
        >>> ask_question(TaskRow(id="1", task="dialogue", question="Which?", options=("red", "blue"), answer="red"))
        'Which?\\nA. red\\nB. blue\\nAnswer with the letter of one option.'
    """
    query = row.question
    if row.options:
        lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, row.options, strict=False)]
        query = "\n".join([query, *lettered, "Answer with the letter of one option."])
    if row.task == "dialogue":
        return query
    templates = (TEMPLATES if wording == "train" else HELD_OUT_TEMPLATES)[name_kind(row)]
    digest = hashlib.blake2b(f"{seed}\x1f{row.id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    template = templates[int.from_bytes(digest, "big") % len(templates)]
    return template.format(media="video" if row.video is not None else "picture", query=query)


def word_answer(row: TaskRow) -> str | None:
    """The words of the right answer: the letter of an option, the answer itself, or `None` where nothing is said.

    Example:
        >>> word_answer(TaskRow(id="1", task="dialogue", question="Which?", options=("red", "blue"), answer="blue"))
        'B'
    """
    if row.answer is None or not row.options:
        return row.answer
    return LETTERS[row.options.index(row.answer)]
