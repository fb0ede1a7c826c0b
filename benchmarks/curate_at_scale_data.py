"""A synthetic training set with Video-R1-260K's columns, of any number of rows, written to parquet shard by shard.

`python benchmarks/curate_at_scale_data.py rows.parquet [NUM_ROWS] [SEED]`; no word of it comes from a real set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VIDEO_R1_ROWS = 263_071  # as VidGround counts them (arXiv 2604.05117)
_ROWS_PER_BLOCK = 10_000
_WORDS = 30_000
_SHORTCUT_SHARE = 0.25
# The set's own shares are published as a figure only; these are our guess at it.
_TYPES = {"multiple_choice": 0.62, "numerical": 0.16, "free_form": 0.13, "ocr": 0.05, "regression": 0.04}
# Source, media type and questions a clip: our guess too.
_SOURCES = [
    ("LLaVA-Video-178K", "video", 4), ("NeXT-QA", "video", 6), ("PerceptionTest", "video", 4), ("CLEVRER", "video", 6),
    ("STAR", "video", 5), ("General", "image", 1), ("Math", "image", 1), ("Chart", "image", 2), ("OCR", "image", 1),
    ("Knowledge", "image", 1), ("Spatial", "image", 2),
]  # fmt: skip
_TEMPLATES = (
    "Why does the {} {} near the {}?",
    "What did the {} do after the {} {}?",
    "How many {} are beside the {} {}?",
    "Where is the {} when the {} {}?",
    "Which {} belongs to the {} and the {}?",
)
SCHEMA = pa.schema(
    [
        ("problem_id", pa.int64()),
        ("problem", pa.string()),
        ("data_type", pa.string()),
        ("problem_type", pa.string()),
        ("options", pa.list_(pa.string())),
        ("process", pa.string()),
        ("solution", pa.string()),
        ("path", pa.string()),
        ("data_source", pa.string()),
    ]
)


def make_blocks(num_rows: int, *, seed: int = 0) -> Iterator[pa.Table]:
    """Yields the rows, 10,000 at a time; a block depends on the seed and its number alone, so sets of any size agree.

    In a quarter of the multiple-choice rows the gold option alone has a word of a small list; in a quarter of the
    open-ended ones the opening words of the question go with the answer.

    Args:
        num_rows (`int`): 1 or more.
        seed (`int`, *optional*, defaults to 0): of everything.
    """
    words = np.array([_spell(k) for k in range(_WORDS)])
    frequency = 1.0 / np.arange(1, _WORDS + 1)
    cumulated = np.cumsum(frequency / frequency.sum())
    for block, start in enumerate(range(0, num_rows, _ROWS_PER_BLOCK)):
        rng = np.random.default_rng([seed, block])
        drawn = words[np.searchsorted(cumulated, rng.random((_ROWS_PER_BLOCK, 64))).clip(max=_WORDS - 1)]
        rows = _fill(rng, drawn, start)
        yield pa.Table.from_pydict(rows, schema=SCHEMA).slice(0, min(_ROWS_PER_BLOCK, num_rows - start))


def _spell(number: int) -> str:
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    letters = ""
    number += 14 * 5
    while number:
        number, rest = divmod(number, len(consonants) * len(vowels))
        letters += consonants[rest // len(vowels)] + vowels[rest % len(vowels)]
    return letters


def _fill(rng: np.random.Generator, drawn: Any, start: int) -> dict[str, list[Any]]:
    number = len(drawn)
    kinds = rng.choice(list(_TYPES), size=number, p=list(_TYPES.values()))
    origins = rng.integers(len(_SOURCES), size=number)
    templates = rng.integers(len(_TEMPLATES), size=number)
    num_options = rng.choice([2, 3, 4, 5], size=number, p=[0.1, 0.1, 0.6, 0.2])
    gold, figure = rng.integers(60, size=number), rng.integers(1, 40, size=number)
    is_short = rng.random(number) < _SHORTCUT_SHARE
    rows: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for k in range(number):
        line, kind = drawn[k].tolist(), str(kinds[k])
        source, media, per_clip = _SOURCES[origins[k]]
        options: list[str] = []
        opening = ""
        if kind == "multiple_choice":
            answer = "ABCDE"[gold[k] % num_options[k]]
            options = [" ".join(line[8 + 6 * n : 9 + 6 * n + (k + n) % 6]) for n in range(num_options[k])]
            if is_short[k]:
                place = gold[k] % num_options[k]
                options[place] = f"{('carefully', 'together', 'gradually')[k % 3]} {options[place]}"
            options = [f"{letter}. {text}" for letter, text in zip("ABCDE", options, strict=False)]
        elif kind in ("numerical", "regression"):
            answer = str(figure[k] if not is_short[k] else 7)
            opening = "Count with care. " if is_short[k] else ""
        else:
            answer = " ".join(line[8:11]) if not is_short[k] else "no visible text"
            opening = "Read the sign. " if is_short[k] else ""
        asked = _TEMPLATES[templates[k]].format(*line[:3])
        clip = (start + k) // per_clip
        rows["problem_id"].append(start + k)
        rows["problem"].append(f"{opening}{asked} {' '.join(line[3:8])}")
        rows["data_type"].append(media)
        rows["problem_type"].append({"free_form": "free-form", "ocr": "OCR"}.get(kind, kind.replace("_", " ")))
        rows["options"].append(options)
        rows["process"].append(f"<think>{' '.join(line[40:60])}</think>")
        rows["solution"].append(f"<answer>{answer}</answer>")
        rows["path"].append(f"./{source}/{clip:07d}.{'mp4' if media == 'video' else 'jpg'}")
        rows["data_source"].append(source)
    return rows


def write_rows(path: Path, num_rows: int, *, seed: int = 0) -> None:
    """Writes the rows to one parquet file, one row group a block."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for table in make_blocks(num_rows, seed=seed):
            writer.write_table(table)


if __name__ == "__main__":
    write_rows(
        Path(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else VIDEO_R1_ROWS,
        seed=int(sys.argv[3]) if len(sys.argv) > 3 else 0,
    )
