"""Prompts as numbers: hashed word stems of questions and options, and the clues they make together.

Only what a prompt shows is read; there is no gold answer in it. What clues are worth is learned in `probe.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.prompts import Prompt
from vidground_hf.schema import classify_options

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NUM_BUCKETS = 1 << 22  # our guess: a load below one half at 20,000 questions, and tables of 16 MB
_MAX_TOKENS = 32  # of a longer text the first and last halves are read; our guess
_END = ""  # stands behind the last token of every text, and so before the first one of the next

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+(?:'\w+)?|[^\w\s]")
_SUFFIXES = ("ing", "ed", "es", "s", "ly")
_LENGTHS = ("shortest option", "short option", "option of middle length", "long option", "longest option")
_LENGTH_EDGES = (-0.4, -0.1, 0.1, 0.4)  # between them, of a rank in [-0.5, 0.5]
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)

# Name of a family of clues: the part of the question and the part of the option that make a clue together.
FAMILIES = {
    "word": ("any", "words"),
    "bigram": ("any", "bigrams"),
    "pair": ("words", "words"),
    "opening": ("opening", "words"),
    "layout": ("words", "layout"),
    "whole": ("whole", "whole"),
}


class Texts(NamedTuple):
    """Token ids of many texts, one after the other: `counts` (`int64[T]`) tokens each, `ids` (`int64[sum]`)."""

    counts: Ints
    ids: Ints


class Atoms(NamedTuple):
    """What a clue is made of: `counts` (`int64[T]`) atoms a text; for each a hash and its span of tokens."""

    counts: Ints
    hashes: Hashes
    first: Ints
    last: Ints


class Clues(NamedTuple):
    """Clues of options: `counts` (`int64[C]`) each; for each clue its question atom and its option atom."""

    counts: Ints
    left: Ints
    right: Ints


class PromptBatch:
    """Multiple-choice prompts with at least one option each, read into tokens.

    Attributes:
        starts (`int64[P + 1]`): where each prompt's choices start. A choice is an option that differs from the ones
            before it.
        rows (`int64[C]`): the prompt of each choice.
        positions (`int64[C]`): which of the prompt's options it is.
        classes (`list[tuple[int, ...]]`): for each prompt, `schema.classify_options`.
        vocabulary (`list[str]`): tokens as written; the first one ends every text.
        lengths (`float64[C]`): characters of each choice.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.classes = [classify_options(prompt.options) for prompt in prompts]
        distinct = [sorted(set(classes)) for classes in self.classes]
        sizes = np.array([len(kept) for kept in distinct], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.rows = np.repeat(np.arange(len(prompts)), sizes)
        self.positions = np.array([position for kept in distinct for position in kept], np.int64)
        options = [p.options[position] for p, kept in zip(prompts, distinct, strict=True) for position in kept]
        self.lengths = np.array([len(option) for option in options], np.float64)
        self._ids: dict[str, int] = {_END: 0}
        self.questions = self._read([prompt.question or "" for prompt in prompts])
        self.options = self._read(options)
        subtitles = [prompt.subtitles for prompt in prompts]
        self.subtitles = self._read([text or "" for text in subtitles], max_tokens=None) if any(subtitles) else None
        self.layouts = self._describe_layout(sizes)
        self.vocabulary = list(self._ids)
        self.hashes = np.array([_hash_token(token) for token in self.vocabulary], np.uint64)

    def _read(self, texts: Sequence[str], max_tokens: int | None = _MAX_TOKENS) -> Texts:
        ids, counts = [], []
        for text in texts:
            tokens = _TOKEN.findall(text)
            if max_tokens is not None and len(tokens) > max_tokens:
                tokens = tokens[: max_tokens // 2] + tokens[-max_tokens // 2 :]
            ids += [self._ids.setdefault(token, len(self._ids)) for token in tokens]
            ids.append(0)
            counts.append(len(tokens) + 1)
        return Texts(np.array(counts, np.int64), np.array(ids, np.int64))

    def _describe_layout(self, sizes: Ints) -> Texts:
        """Two labels a choice: how long it is among the others, and where it stands."""
        bins = np.digitize(rank_within(self.lengths, self.starts), _LENGTH_EDGES)
        labels = []
        for k, position, size in zip(bins, self.positions, np.repeat(sizes, sizes), strict=True):
            for label in (_LENGTHS[k], f"option {position + 1} of {size}"):
                labels.append(self._ids.setdefault(label, len(self._ids)))
        return Texts(np.full(len(self.rows), 2, np.int64), np.array(labels, np.int64))

    def find_atoms(self, part: str, of: str) -> Atoms:
        """The atoms of one kind, a key or value of `FAMILIES`, of the `"question"` or the `"option"`."""
        texts = self.questions if of == "question" else self.layouts if part == "layout" else self.options
        hashes = self.hashes[texts.ids]
        ends = np.cumsum(texts.counts)
        begins = ends - texts.counts
        text_of = np.repeat(np.arange(len(texts.counts)), texts.counts)
        index = np.arange(len(texts.ids))
        if part == "layout":
            return Atoms(texts.counts, hashes, index, index + 1)
        if part == "words":
            _, first = np.unique((text_of.astype(np.uint64) << np.uint64(32)) | hashes, return_index=True)
            # The end counts as a word only of an empty text.
            first = first[(texts.ids[first] != 0) | (texts.counts[text_of[first]] == 1)]
            counts = np.bincount(text_of[first], minlength=len(texts.counts))
            return Atoms(counts, hashes[first], first, first + 1)
        if part == "bigrams":
            return Atoms(
                texts.counts, mix(np.roll(hashes, 1), hashes), np.maximum(index - 1, begins[text_of]), index + 1
            )
        ones = np.ones(len(texts.counts), np.int64)
        if part == "any":
            return Atoms(ones, self.hashes[np.zeros_like(ones)], begins, begins)
        if part == "opening":
            return Atoms(ones, hashes[begins], begins, begins + 1)
        wholes = np.add.reduceat(mix(hashes, (index - begins[text_of]).astype(np.uint64)), begins)
        return Atoms(ones, wholes, begins, ends)

    def find_clues(self, family: str) -> tuple[Clues, NDArray[np.int32]]:
        """The clues of a family for every choice, and the bucket of each (`int32`)."""
        question_part, option_part = FAMILIES[family]
        left, right = self.find_atoms(question_part, "question"), self.find_atoms(option_part, "option")
        clues = cross(left.counts[self.rows], right.counts, (np.cumsum(left.counts) - left.counts)[self.rows])
        return clues, find_buckets(family, left.hashes[clues.left], right.hashes[clues.right])

    def name_clues(self, family: str, clues: Clues) -> list[str]:
        """How the clues that `find_clues` gave read: the option's words, behind those of the question."""
        question_part, option_part = FAMILIES[family]
        texts = self.layouts if option_part == "layout" else self.options
        asked = self._read_spans(self.find_atoms(question_part, "question"), self.questions)
        said = self._read_spans(self.find_atoms(option_part, "option"), texts)
        pairs = zip(clues.left, clues.right, strict=True)
        return [f"{asked[a]} → {said[b]}" if asked[a] else said[b] for a, b in pairs]

    def name_parts(self, part: str) -> list[str]:
        """How the atoms that `find_atoms` gave for the questions read."""
        return self._read_spans(self.find_atoms(part, "question"), self.questions)

    def _read_spans(self, atoms: Atoms, texts: Texts) -> list[str]:
        spans = zip(atoms.first, atoms.last, strict=True)
        return [" ".join(self.vocabulary[index] for index in texts.ids[a:b] if index) for a, b in spans]


def cross(left_counts: Ints, right_counts: Ints, left_starts: Ints) -> Clues:
    """Pairs every question atom with every option atom of a choice; those of one option atom are neighbours."""
    counts = left_counts * right_counts
    choice = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(len(choice)) - (np.cumsum(counts) - counts)[choice]
    per_right = left_counts[choice]
    right_starts = np.cumsum(right_counts) - right_counts
    return Clues(counts, left_starts[choice] + nth % per_right, right_starts[choice] + nth // per_right)


def mix(first: Hashes, second: Hashes) -> Hashes:
    """Hashes two hashes into one of 64 bits; the order counts."""
    mixed = (first + _MIXERS[2]) * _MIXERS[0] + (second ^ (second >> np.uint64(29))) * _MIXERS[1]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIXERS[3]
    return mixed ^ (mixed >> np.uint64(29))


def find_buckets(family: str, left: Hashes, right: Hashes) -> NDArray[np.int32]:
    """The bucket in [0, `NUM_BUCKETS`) of each clue."""
    salt = np.uint64(zlib.crc32(family.encode()))
    mixed = mix(left ^ salt, right)
    return (mixed & np.uint64(NUM_BUCKETS - 1)).astype(np.int32)


def rank_within(values: NDArray[np.float64], starts: Ints) -> NDArray[np.float64]:
    """Ranks values within each question, ties averaged, from -0.5 (smallest) to 0.5; 0 where there is one value.

    Example:
        >>> rank_within(np.array([3.0, 1.0, 1.0, 9.0, 7.0]), np.array([0, 3, 5])).tolist()
        [0.5, -0.25, -0.25, 0.5, -0.5]
    """
    sizes = np.diff(starts)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((values, rows))
    ordered = values[order]
    is_new = np.concatenate([[True], (ordered[1:] != ordered[:-1]) | (rows[1:] != rows[:-1])])[: len(values)]
    ties = np.flatnonzero(is_new)
    tie_sizes = np.diff(np.append(ties, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(ties + (tie_sizes - 1) / 2, tie_sizes) - np.repeat(starts[:-1], sizes)
    return ranks / np.maximum(np.repeat(sizes, sizes) - 1, 1) - np.repeat(np.where(sizes > 1, 0.5, 0.0), sizes)


@lru_cache(maxsize=1 << 17)
def _hash_token(token: str) -> int:
    return zlib.crc32(stem(token.casefold()).encode())


def stem(word: str) -> str:
    """Takes common English endings off, so that "plays" and "playing" count as one word.

    Example:
        >>> [stem(word) for word in ("playing", "plays", "stopped", "carries")]
        ['pla', 'pla', 'stop', 'carr']
    """
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lse":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] in "eiy" else word
