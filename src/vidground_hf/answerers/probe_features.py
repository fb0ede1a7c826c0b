"""What can be measured on questions and options without knowing an answer: lengths, overlaps, numbers, associations.

Counts over the set leave out the group of the row they are used for. Nothing is fitted here.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from vidground_hf.answerers.probe_text import (
    NUM_BUCKETS,
    Hashes,
    Ints,
    PromptBatch,
    find_buckets,
    rank_within,
)

Floats = NDArray[np.float64]

# fmt: off
_NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]
_NEGATIONS = {
    "no", "not", "never", "none", "nothing", "nobody", "without", "cannot", "don't", "doesn't", "didn't", "isn't",
    "aren't", "wasn't", "weren't", "can't", "won't",
}
# fmt: on
ASSOCIATION = "goes with the question's words"
MEASURES = (
    "length",
    "length rank",
    "words shared with the question",
    "like the other options",
    "rare words",
    "option used nowhere else",
    "capital letters",
    "rank among numbers",
    "far from the middle number",
    "negation",
    "ends with a period",
    "words said in the subtitles",
    ASSOCIATION,
    ASSOCIATION,
)


class TextCounts:
    """How often words, pairs of words and whole options occur over the choices of a set, in hashed buckets.

    Attributes:
        table (`int32[NUM_BUCKETS]`): occurrences.
        num_choices (`int`): choices counted.
    """

    def __init__(self) -> None:
        self.table = np.zeros(NUM_BUCKETS, np.int32)
        self.num_choices = 0

    def add(self, batch: PromptBatch) -> None:
        """Counts a batch in."""
        asked, weights = _find_asked(batch)
        _, pairs = batch.find_clues("pair")
        _, words = batch.find_clues("word")
        parts = [np.repeat(asked, weights), pairs, words, _find_texts(batch)]
        self.table += np.bincount(np.concatenate(parts), minlength=NUM_BUCKETS).astype(np.int32)
        self.num_choices += len(batch.rows)

    def count_elsewhere(self, buckets: NDArray[np.int32], groups: Ints | None, weights: Ints | None = None) -> Floats:
        """Occurrences outside the group of each entry; all of the group's entries must be given together.

        Args:
            buckets (`int32[E]`): what to look up.
            groups (`int64[E]`, *optional*): the group of each; `None` when nothing of the batch was counted in.
            weights (`int64[E]`, *optional*): how often each entry was counted in; once by default.
        """
        counts = self.table[buckets].astype(np.float64)
        if groups is None or not len(buckets):
            return counts
        _, inverse = np.unique(groups * NUM_BUCKETS + buckets, return_inverse=True)
        return counts - np.bincount(inverse, weights)[inverse]


def measure_choices(batch: PromptBatch, counts: TextCounts, groups: Ints | None) -> NDArray[np.float32]:
    """Measures every choice of a batch, relative to the other choices of its question.

    Args:
        batch (`PromptBatch`): C choices of P prompts.
        counts (`TextCounts`): over the set.
        groups (`int64[P]`, *optional*): the group of each prompt, if the batch is part of `counts`; then whole groups
            must be in the batch, and each row is measured by what the other groups say.

    Returns:
        `float32[C, len(MEASURES)]`: with mean 0 over the choices of each question.
    """
    total = np.full(len(batch.rows), float(counts.num_choices))
    of_choice = None
    if groups is not None:
        of_choice = groups[batch.rows]
        total -= np.bincount(of_choice)[of_choice]
    words = batch.find_atoms("words", "option")
    word_choice = np.repeat(np.arange(len(batch.rows)), words.counts)
    _, word_buckets = batch.find_clues("word")
    word_counts = counts.count_elsewhere(word_buckets, None if of_choice is None else of_choice[word_choice])
    rarity = _find_rarity(word_counts, total[word_choice])
    uses = counts.count_elsewhere(_find_texts(batch), of_choice)
    columns = [
        *_measure_length(batch),
        *_measure_likeness(batch, words.hashes, word_choice, rarity),
        (uses <= 0).astype(np.float64),
        *_measure_tokens(batch),
        _measure_subtitles(batch, words.hashes, word_choice, rarity),
        *_measure_association(batch, counts, groups, word_counts, rarity, total),
    ]
    values = np.column_stack(columns)
    return center_within(values, batch.starts).astype(np.float32)


def center_within(values: Floats, starts: Ints) -> Floats:
    """Subtracts from each column its mean over the choices of a question."""
    if not len(values):
        return values
    sizes = np.diff(starts)
    return values - np.repeat(np.add.reduceat(values, starts[:-1]) / sizes[:, None], sizes, axis=0)


def _find_asked(batch: PromptBatch) -> tuple[NDArray[np.int32], Ints]:
    """Buckets of the question words, and for each the number of choices that stand beside it."""
    asked = batch.find_atoms("words", "question")
    sizes = np.repeat(np.diff(batch.starts), asked.counts)
    return find_buckets("asked", asked.hashes, asked.hashes), sizes


def _find_texts(batch: PromptBatch) -> NDArray[np.int32]:
    wholes = batch.find_atoms("whole", "option").hashes
    return find_buckets("text", wholes, wholes)


def _measure_length(batch: PromptBatch) -> list[Floats]:
    return [np.log1p(batch.lengths), rank_within(batch.lengths, batch.starts)]


def _measure_likeness(batch: PromptBatch, words: Hashes, word_choice: Ints, rarity: Floats) -> list[Floats]:
    """Cosines over words weighted by rarity, with the question and with the other options; and the mean rarity."""
    num_choices = len(batch.rows)
    asked = batch.find_atoms("words", "question")
    asked_keys = _key(np.repeat(np.arange(len(asked.counts)), asked.counts), asked.hashes)
    is_shared = np.isin(_key(batch.rows[word_choice], words), asked_keys)
    length = np.sqrt(np.maximum(np.bincount(word_choice, rarity**2, minlength=num_choices), 1e-12))
    shared = np.bincount(word_choice, rarity**2 * is_shared, minlength=num_choices)
    _, columns = np.unique(words, return_inverse=True)
    shape = (num_choices, int(columns.max(initial=0)) + 1)
    matrix = sp.csr_array((rarity / length[word_choice], (word_choice, columns)), shape=shape)
    sizes = np.diff(batch.starts)
    likeness = np.zeros(num_choices)
    for shift in range(1, int(sizes.max(initial=1))):
        first = np.flatnonzero(batch.rows[shift:] == batch.rows[:-shift])
        cosine = np.asarray(matrix[first].multiply(matrix[first + shift]).sum(axis=1)).ravel()
        likeness[first] += cosine
        likeness[first + shift] += cosine
    return [
        shared / length,
        likeness / np.maximum(np.repeat(sizes, sizes) - 1, 1),
        np.bincount(word_choice, rarity, minlength=num_choices) / np.bincount(word_choice, minlength=num_choices),
    ]


def _measure_tokens(batch: PromptBatch) -> list[Floats]:
    """Capital letters behind the first word, numbers, negation, a period at the end."""
    ids, ends = batch.options.ids, np.cumsum(batch.options.counts)
    begins = ends - batch.options.counts
    is_capital = np.array([token[:1].isupper() for token in batch.vocabulary])[ids]
    is_negation = np.array([token.casefold() in _NEGATIONS for token in batch.vocabulary])[ids]
    is_period = np.array([token == "." for token in batch.vocabulary])[ids]
    number = np.fmin.reduceat(np.array([_read_number(token) for token in batch.vocabulary])[ids], begins)
    has_numbers = np.logical_and.reduceat(~np.isnan(number), batch.starts[:-1])
    ranks = np.where(has_numbers[batch.rows], rank_within(number, batch.starts), 0.0)
    return [
        np.add.reduceat(is_capital, begins, dtype=np.float64) - is_capital[begins],
        ranks,
        np.abs(ranks),
        np.logical_or.reduceat(is_negation, begins).astype(np.float64),
        is_period[np.maximum(ends - 2, begins)].astype(np.float64),
    ]


def _read_number(token: str) -> float:
    if token.isdecimal():
        return float(token)
    return float(_NUMBERS.index(token.casefold())) if token.casefold() in _NUMBERS else np.nan


def _measure_subtitles(batch: PromptBatch, words: Hashes, word_choice: Ints, rarity: Floats) -> Floats:
    """The share of an option's words, by rarity, that the subtitles say; 0 without subtitles."""
    if batch.subtitles is None:
        return np.zeros(len(batch.rows))
    rows = np.repeat(np.arange(len(batch.subtitles.counts)), batch.subtitles.counts)
    is_said = np.isin(_key(batch.rows[word_choice], words), _key(rows, batch.hashes[batch.subtitles.ids]))
    said = np.bincount(word_choice, rarity * is_said, minlength=len(batch.rows))
    return said / np.maximum(np.bincount(word_choice, rarity, minlength=len(batch.rows)), 1e-12)


def _measure_association(
    batch: PromptBatch, counts: TextCounts, groups: Ints | None, word_counts: Floats, rarity: Floats, total: Floats
) -> list[Floats]:
    """How much oftener than by chance an option's words stand beside the question's words, right option or wrong.

    The logarithm of observed over expected co-occurrence (pointwise mutual information; Church and Hanks 1990), each
    with one occurrence added, as mean over pairs of words and as mean weighted by the rarity of both.
    """
    clues, pair_buckets = batch.find_clues("pair")
    choice = np.repeat(np.arange(len(batch.rows)), clues.counts)
    asked_buckets, weights = _find_asked(batch)
    asked_row = np.repeat(np.arange(len(batch.classes)), batch.find_atoms("words", "question").counts)
    asked_counts = counts.count_elsewhere(asked_buckets, None if groups is None else groups[asked_row], weights)
    asked_rarity = _find_rarity(asked_counts, total[batch.starts[:-1]][asked_row])
    observed = counts.count_elsewhere(pair_buckets, None if groups is None else groups[batch.rows[choice]])
    expected = asked_counts[clues.left] * word_counts[clues.right] / np.maximum(total[choice], 1)
    information = np.log((observed + 1) / (expected + 1))
    importance = asked_rarity[clues.left] * rarity[clues.right]
    columns = []
    for weight in (np.ones(len(choice)), importance):
        summed = np.bincount(choice, information * weight, minlength=len(batch.rows))
        columns.append(summed / np.maximum(np.bincount(choice, weight, minlength=len(batch.rows)), 1e-12))
    return columns


def _find_rarity(counts: Floats, total: Floats) -> Floats:
    """Inverse document frequency (Sparck Jones 1972), never below 0."""
    return np.log((1 + np.maximum(total, counts)) / (1 + counts))


def _key(rows: Ints, hashes: Hashes) -> Hashes:
    return (rows.astype(np.uint64) << np.uint64(32)) | hashes


def make_cuts(groups: Ints, size: int) -> list[int]:
    """Where to cut rows sorted by group into batches of about `size` rows, never within a group."""
    cuts = [0]
    for index in range(1, len(groups)):
        if index - cuts[-1] >= size and groups[index] != groups[index - 1]:
            cuts.append(index)
    return [*cuts, len(groups)]
