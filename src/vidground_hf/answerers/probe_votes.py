"""The probe's open-ended half: the answers of training questions, weighted by how much a question is like theirs.

Two questions are as alike as the squared rarity of the words, neighbouring words and whole questions they share. Every
training question of the same problem type has a vote; options are for `probe_choices.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from vidground_hf.answerers.probe_scratch import take
from vidground_hf.answerers.probe_text import Ints, PromptBatch, find_buckets
from vidground_hf.prompts import Prompt
from vidground_hf.schema import normalize_text

_PARTS = ("words", "bigrams", "whole")
_MAX_ANSWERS = 50  # the commonest answers that a part of a question votes for; our guess, it bounds time and size
_ROWS_PER_BATCH = 2048
MAX_VOTERS = 250_000
"""Open-ended rows that may have a vote; of a larger set a seeded sample has. Our guess: what is held of them takes
some hundred megabytes, and another hundred thousand questions change few answers."""


class Vote(NamedTuple):
    """The answer with most votes, and the logarithm of its share of them; both `None` where nobody voted."""

    text: str | None
    confidence: float | None


class VoteModel:
    """Answers unseen open-ended prompts.

    Attributes:
        keys (`int32[F]`): buckets of parts of questions, sorted; a problem type has its own.
        votes (`float64[F, A]`): by the training questions that have a part, for each answer; the commonest only.
        totals (`float64[F]`): votes by all training questions that have it.
        answers (`list[str]`): the A answers.
    """

    def __init__(
        self, keys: NDArray[np.int32], votes: sp.csr_array, totals: NDArray[np.float64], answers: list[str]
    ) -> None:
        self.keys, self.votes, self.totals, self.answers = keys, votes, totals, answers

    def vote(self, prompts: Sequence[Prompt]) -> list[Vote]:
        """One vote per prompt, in order."""
        found: list[Vote] = []
        for start in range(0, len(prompts), _ROWS_PER_BATCH):
            some = prompts[start : start + _ROWS_PER_BATCH]
            found += self.count(_make_matrix(*_find_parts(PromptBatch(some), some), self.keys))
        return found

    def count(self, parts: sp.csr_array) -> list[Vote]:
        """Counts the votes for rows given by their parts (`[R, F]` of 0 and 1)."""
        found: list[Vote] = []
        for start in range(0, parts.shape[0], _ROWS_PER_BATCH):
            some = parts[start : start + _ROWS_PER_BATCH]
            scores = some @ self.votes
            best, ids = scores.max(axis=1).toarray().ravel(), np.asarray(scores.argmax(axis=1)).ravel()
            for score, index, total in zip(best, ids, some @ self.totals, strict=True):
                if score > 0:
                    found.append(Vote(self.answers[index], float(np.log(score / total))))
                else:
                    found.append(Vote(None, None))
        return found

    def explain(self, prompt: Prompt, text: str) -> list[tuple[str, float]]:
        """The parts of the question whose training questions had this answer, with their shares of all votes."""
        if text not in self.answers:
            return []
        column = self.answers.index(text)
        batch = PromptBatch([prompt])
        _, buckets = _find_parts(batch, [prompt])
        names = [name for part in _PARTS for name in batch.name_parts(part)]
        index = {int(key): k for k, key in enumerate(self.keys)}
        shares: dict[str, float] = {}
        total = 0.0
        for bucket, name in dict(zip(buckets.tolist(), names, strict=True)).items():
            k = index.get(bucket)
            if k is not None:
                total += float(self.totals[k])
                shares[name] = shares.get(name, 0.0) + float(self.votes[k, column])
        clues = [(name, share / total) for name, share in shares.items() if share > 0]
        return sorted(clues, key=lambda clue: (-clue[1], clue[0]))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` needs beside the answers, as plain arrays."""
        return {
            "keys": self.keys,
            "totals": self.totals,
            "vote_counts": self.votes.data,
            "vote_answers": self.votes.indices.astype(np.int32),
            "vote_starts": self.votes.indptr.astype(np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], answers: list[str]) -> VoteModel:
        parts = (arrays["vote_counts"], arrays["vote_answers"], arrays["vote_starts"])
        votes = sp.csr_array(parts, shape=(len(arrays["keys"]), len(answers)))
        return cls(arrays["keys"], votes, arrays["totals"], answers)


class VoteRows:
    """The open-ended rows of a set, read once; fitted as often as there are folds and refits.

    Args:
        prompts (`Sequence[Prompt]`): R prompts.

    Attributes:
        voters (`int64[P]`): the rows that may have a vote: all, or a sample of `MAX_VOTERS`.
        parts (`csr[P, F]`): the parts of their questions.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts = prompts
        self.voters = np.arange(len(prompts))
        if len(prompts) > MAX_VOTERS:
            self.voters = np.sort(np.random.default_rng(0).choice(len(prompts), MAX_VOTERS, replace=False))
        found = []
        for start in range(0, len(self.voters), _ROWS_PER_BATCH):
            some = take(prompts, self.voters[start : start + _ROWS_PER_BATCH])
            found.append(_find_parts(PromptBatch(some), some))
        counts, buckets = (np.concatenate(parts) for parts in zip(*found, strict=True))
        self.keys = np.unique(buckets)
        self.parts = _make_matrix(counts, buckets, self.keys)
        # Never 0: where all ask the same, the commonest answer is still the best.
        self.weights = np.log((2 + len(self.voters)) / (1 + self.parts.sum(axis=0))) ** 2

    def count(self, model: VoteModel, rows: Ints) -> list[Vote]:
        """Counts the votes for some rows."""
        if len(self.voters) == len(self._prompts):
            return model.count(self.parts[rows])
        starts = range(0, len(rows), _ROWS_PER_BATCH)
        return [vote for k in starts for vote in model.vote(take(self._prompts, rows[k : k + _ROWS_PER_BATCH]))]

    def can_fit(self, answers: Sequence[str | None], is_training: NDArray[np.bool_]) -> bool:
        """Whether a row that may have a vote is among those to train on."""
        return any(is_training[place] and answers[place] is not None for place in self.voters.tolist())

    def fit(self, answers: Sequence[str | None], is_training: NDArray[np.bool_]) -> VoteModel:
        """Counts the answers of the training rows.

        Args:
            answers (`Sequence[str | None]`): the gold answer of each of the R rows.
            is_training (`bool[R]`): the rows to count; those without an answer, or a vote, are left out.
        """
        given_by = [None if answers[k] is None or not is_training[k] else answers[k] for k in self.voters.tolist()]
        rows = [k for k, text in enumerate(given_by) if text is not None]
        ids: dict[str, int] = {}
        texts: list[str] = []
        columns = []
        for k in rows:
            text = given_by[k] or ""
            columns.append(ids.setdefault(normalize_text(text), len(ids)))
            if len(ids) > len(texts):
                texts.append(text)
        given = sp.csr_array((np.ones(len(rows)), (np.arange(len(rows)), columns)), shape=(len(rows), len(ids)))
        trained = self.parts[rows]
        votes = _keep_commonest((trained.T @ given).tocsr())
        votes.data *= np.repeat(self.weights, np.diff(votes.indptr))
        return VoteModel(self.keys, votes, self.weights * trained.sum(axis=0), texts)


def _find_parts(batch: PromptBatch, prompts: Sequence[Prompt]) -> tuple[Ints, NDArray[np.int32]]:
    """The parts of the questions: how many each prompt has, and the bucket of each, prompts one after the other."""
    types = np.array([zlib.crc32(prompt.problem_type.encode()) for prompt in prompts], np.uint64)
    rows, buckets = [], []
    for part in _PARTS:
        atoms = batch.find_atoms(part, "question")
        rows.append(np.repeat(np.arange(len(prompts)), atoms.counts))
        buckets.append(find_buckets(part, atoms.hashes, types[rows[-1]]))
    row = np.concatenate(rows)
    return np.bincount(row, minlength=len(prompts)), np.concatenate(buckets)[np.argsort(row, kind="stable")]


def _make_matrix(counts: Ints, buckets: NDArray[np.int32], keys: NDArray[np.int32]) -> sp.csr_array:
    """Which known parts each row has (`[R, F]` of 0 and 1)."""
    columns = np.minimum(np.searchsorted(keys, buckets), len(keys) - 1)
    is_known = keys[columns] == buckets
    ends = np.concatenate([[0], np.cumsum(is_known)])[np.concatenate([[0], np.cumsum(counts)])]
    matrix = sp.csr_array((np.ones(int(ends[-1])), columns[is_known], ends), shape=(len(counts), len(keys)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _keep_commonest(votes: sp.csr_array) -> sp.csr_array:
    """Keeps of each row the `_MAX_ANSWERS` largest values, of equal ones those of the lower columns."""
    votes.sort_indices()
    rows = np.repeat(np.arange(votes.shape[0]), np.diff(votes.indptr))
    order = np.lexsort((-votes.data, rows))
    place = np.arange(len(order)) - votes.indptr[rows]
    kept = np.sort(order[place < _MAX_ANSWERS])
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=votes.shape[0]))])
    return sp.csr_array((votes.data[kept], votes.indices[kept], starts), shape=votes.shape)
