"""What a reduce over a whole set has to know of each row beside its trials, as columns of numbers: no text is held.

About a hundred bytes a row. Trials are in `shards.py`, verdicts in `judgement.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from vidground_hf.numbering import hash_values, number_values
from vidground_hf.reading import RowSource
from vidground_hf.rows import hash_rows
from vidground_hf.schema import Example, normalize_text
from vidground_hf.shards import count_shards, find_bounds
from vidground_hf.stats.floors import FloorScores, score_floors

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Names:
    """One name a row, or none: `codes` (`int32[N]`, -1: none) into `names` (`list[str]`)."""

    codes: NDArray[np.int32]
    names: list[str]

    def get(self, index: int) -> str | None:
        """The name of a row."""
        code = int(self.codes[index])
        return None if code < 0 else self.names[code]


class NameCoder:
    """Turns names into codes, some rows at a time."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._parts: list[NDArray[np.int32]] = []

    def add(self, names: Sequence[str | None]) -> None:
        """Codes the names of the next rows."""
        codes = self._codes
        self._parts.append(
            np.array([-1 if name is None else codes.setdefault(name, len(codes)) for name in names], np.int32)
        )

    def finish(self) -> Names:
        """The codes of all rows."""
        return Names(np.concatenate(self._parts), list(self._codes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The light columns of N rows.

    Attributes:
        fingerprint (`str`): of the cells of all rows in their order.
        keys (`uint8[N, 16]`): the key of each row, made from the cells that were read.
        is_first (`bool[N]`): whether no row with the same key came before.
        clusters (`int64[N]`): the group of each row as a number; a row without a group is its own.
        num_before (`int32[N]`): how many rows with the same question and options came before.
        asked (`uint64[N]`): equal for rows with the same question about the same clip.
        has_video (`bool[N]`): whether a row names a clip.
        problem_types, sources, categories, defects (`Names`): of each row.
        flags (`dict[str, int]`): how many rows are odd in which way.
        floors (`FloorScores`): of all rows.
    """

    fingerprint: str
    keys: NDArray[np.uint8]
    is_first: NDArray[np.bool_]
    clusters: Ints
    num_before: NDArray[np.int32]
    asked: NDArray[np.uint64]
    has_video: NDArray[np.bool_]
    problem_types: Names
    sources: Names
    categories: Names
    defects: Names
    flags: dict[str, int]
    floors: FloorScores


def gather_facts(source: RowSource) -> Facts:
    """Reads a set once and keeps what is light.

    Example:
        >>> from datasets import Dataset
        >>> rows = [{"question": "Sky?", "options": ["red", "blue"], "answer": "B"}] * 2
        >>> facts = gather_facts(RowSource(Dataset.from_list(rows), Path("unused")))
        >>> facts.is_first.tolist(), facts.num_before.tolist()
        ([True, False], [0, 1])
    """
    coders = {name: NameCoder() for name in ("problem_type", "source", "category", "defect")}
    parts: dict[str, list[Any]] = {name: [] for name in ("keys", "groups", "words", "asked", "has_video")}
    floors: list[FloorScores] = []
    flags: Counter[str] = Counter()
    num_missing = 0
    for shard in range(count_shards(len(source))):
        cells = source.read_cells(*find_bounds(shard, len(source)))
        examples = source.convert(cells)
        parts["keys"].append(np.frombuffer(b"".join(hash_rows(cells)), np.uint8).reshape(-1, 16))
        parts["groups"].append(_hash([(e.group,) if e.group else (None, shard, k) for k, e in enumerate(examples)]))
        parts["words"].append(_hash([(e.question, *e.options) for e in examples]))
        asked, has_video = hash_questions(examples)
        parts["asked"].append(asked)
        parts["has_video"].append(has_video)
        for name, coder in coders.items():
            coder.add([getattr(example, name) for example in examples])
        floors.append(score_floors([e.options for e in examples], [e.answer_index for e in examples]))
        flags.update(flag for example in examples for flag in example.flags)
        num_missing += sum(_is_missing(example) for example in examples)
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    flags.update({"repeated_question": len(source) - len(np.unique(joined["asked"])), "missing_media": num_missing})
    return Facts(
        fingerprint=xxhash.xxh3_128_hexdigest(joined["keys"].tobytes()),
        keys=joined["keys"],
        is_first=_count_before(_hash_keys(joined["keys"])) == 0,
        clusters=number_values(joined["groups"]),
        num_before=_count_before(joined["words"]),
        asked=joined["asked"],
        has_video=joined["has_video"],
        problem_types=coders["problem_type"].finish(),
        sources=coders["source"].finish(),
        categories=coders["category"].finish(),
        defects=coders["defect"].finish(),
        flags={name: count for name, count in flags.most_common() if count},
        floors=_join_floors(floors),
    )


def hash_questions(examples: Sequence[Example]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """What is equal for rows with the same question about the same clip, and whether a row names a clip."""
    asked = _hash([(normalize_text(e.question), e.video or e.id) for e in examples])
    return asked, np.array([e.video is not None for e in examples], bool)


def _hash(rows: Sequence[tuple[Any, ...]]) -> NDArray[np.uint64]:
    return np.array([hash_values(row) for row in rows], np.uint64)


def _hash_keys(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    halves = keys.view(np.uint64)
    return np.asarray(halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15)))


def _is_missing(example: Example) -> bool:
    if example.media_root is None or example.video is None:
        return False
    return not Path(example.media_root, example.video).exists()


def _join_floors(parts: Sequence[FloorScores]) -> FloorScores:
    return FloorScores(
        **{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(FloorScores)}
    )


def _count_before(hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
    """For each value how often it came before."""
    order = np.argsort(hashes, kind="stable")
    is_new = np.concatenate([[True], hashes[order][1:] != hashes[order][:-1]])
    starts = np.flatnonzero(is_new)
    before = np.empty(len(hashes), np.int32)
    before[order] = np.arange(len(hashes)) - np.repeat(starts, np.diff(np.append(starts, len(hashes))))
    return before
