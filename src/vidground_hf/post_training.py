"""`to_trl`: curated rows as the columns that `VideoGRPOTrainer`, the rewards and the callbacks read.

Nothing is trained here, and no video is opened.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value, Video, concatenate_datasets

from vidground_hf.adapters import GENERIC_COLUMNS, Adapter
from vidground_hf.options import find_gold
from vidground_hf.prompts import make_prompt
from vidground_hf.reading import read_examples
from vidground_hf.schema import LETTERS, Example

ROW_FEATURES = Features(
    {
        "id": Value("string"),
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "question": Value("string"),
        "options": List(Value("string")),
        "solution": Value("string"),
        "problem_type": Value("string"),
    }
)
"""What every row has, besides `video`."""

SPAN_COLUMNS = ("start_seconds", "end_seconds")
"""What rows about a part of a video have besides: the half-open part that is shown."""

ROW_COLUMNS = {"id": "id", "question": "question", "options": "options", "answer": "solution", "type": "problem_type"}
"""How `adapters.find_adapter` reads such rows again, where there is no `video`."""

_log = logging.getLogger(__name__)


def to_trl(
    dataset: Dataset,
    *,
    adapter: str | None = None,
    columns: Mapping[str, str] | None = None,
    media_root: str | None = None,
    reasoning: bool = False,
    seed: int | None = 0,
) -> Dataset:
    """Turns rows into what a GRPO trainer reads: `prompt`, `video`, `solution`, `problem_type`, `options` and `id`.

    Options are shown in a new order, drawn from the seed and the row's id, so that it does not depend on where a row
    stands. Rows that cannot be scored are left out, and a log line counts them. Other columns are passed through,
    without those that held the gold or the options in their old order.

    Args:
        dataset (`Dataset`): rows of one split, for example `curate(...).splits["grounded"]`.
        adapter, columns, media_root: as in `curate`.
        reasoning (`bool`, *optional*, defaults to `False`): ask for thinking and answer in tags, as Video-R1 does
            (arXiv 2503.21776; the words are ours).
        seed (`int`, *optional*, defaults to 0): of the orders; `None` keeps the data's own.

    Returns:
        `Dataset`: `prompt` (`list[dict]`, one message of the user), `question` (`str`), `options` (`list[str]`, as
        shown; empty for open-ended questions), `solution` (`str`: a letter, or the text where a letter would mean
        another option), `problem_type` (`str`), `id` (`str`, each once), and `video`: a path, an undecoded
        `datasets.Video` cell, or `None`; `start_seconds` and `end_seconds` where rows are about parts of videos.

    Raises:
        `TypeError`: for several splits or a streamed dataset.
        `ValueError`: when no row can be scored, or videos are folders of images.

    Example:
        >>> rows = Dataset.from_list([{"id": "7", "question": "Sky?", "options": ["red", "blue"], "answer": "B"}])
        >>> row = to_trl(rows)[0]
        >>> row["options"], row["solution"], row["video"]
        (['blue', 'red'], 'A', None)
        >>> print(row["prompt"][0]["content"])
        Question: Sky?
        A. blue
        B. red
        Answer with the letter of one option.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"to_trl takes one split as a Dataset, got {type(dataset).__name__}; pass for example splits['grounded']"
        )
    found, keys, examples = read_examples(dataset, adapter=adapter, columns=columns, media_root=media_root)
    _check_clips(examples)
    kept = [index for index, example in enumerate(examples) if example.defect is None]
    left_out = Counter(example.defect for example in examples if example.defect is not None)
    if left_out:
        reasons = ", ".join(f"{defect} {count}" for defect, count in left_out.most_common())
        if not kept:
            raise ValueError(f"none of the {len(examples)} rows can be scored ({reasons}); see columns or adapter")
        _log.warning(
            "left out %d of %d rows that cannot be scored: %s", sum(left_out.values()), len(examples), reasons
        )
    names = _name_rows(examples, keys)
    rows = [_make_row(examples[index], names[index], reasoning, seed) for index in kept]
    base = _show_videos(dataset if len(kept) == len(dataset) else dataset.select(kept), found)
    if "video" not in base.features or not _is_media(base.features["video"]):
        paths = [_find_path(examples[index]) for index in kept]
        base = base.remove_columns([name for name in base.column_names if name == "video"])
        base = base.add_column("video", paths, feature=Value("string"))
    base = base.remove_columns(_list_stale(base.column_names, found, columns or {}))
    for name in SPAN_COLUMNS:
        seconds = [getattr(examples[index], name) for index in kept]
        if any(second is not None for second in seconds):
            base = base.remove_columns([other for other in base.column_names if other == name])
            base = base.add_column(name, seconds, feature=Value("float64"))
    added = Dataset.from_dict({name: [row[name] for row in rows] for name in ROW_FEATURES}, ROW_FEATURES)
    return concatenate_datasets([added, base], axis=1)


def name_gold(options: Sequence[str], position: int) -> str:
    """A word for one of the options that is read back as that option: its letter, or its text.

    Example:
        >>> name_gold(["red", "blue"], 1), name_gold(["B", "A"], 1)
        ('B', 'A')
    """
    letter = LETTERS[position]
    return letter if find_gold(letter, options, options) == position else options[position]


def is_trl(dataset: Dataset) -> bool:
    """Whether rows are as `to_trl` makes them."""
    return {*ROW_FEATURES} <= set(dataset.column_names)


def read_trl(dataset: Dataset, *, with_media: bool = False) -> list[Example]:
    """Reads rows that `to_trl` made as examples, whose options stand as they are shown.

    Args:
        dataset (`Dataset`): N rows.
        with_media (`bool`, *optional*, defaults to `False`): point at the bytes of videos that the rows hold.

    Returns:
        `list[Example]`: N.
    """
    names = [name for name in ("video", *SPAN_COLUMNS) if name in dataset.column_names]
    rows = dataset.select_columns([*ROW_FEATURES, *names])
    mapping = ROW_COLUMNS | ({"video": "video"} if "video" in names else {})
    _, _, examples = read_examples(rows, columns=mapping, with_media=with_media)
    for name in SPAN_COLUMNS:
        if name in names:
            pairs = zip(examples, rows[name], strict=True)
            examples = [replace(example, **{name: seconds}) for example, seconds in pairs]
    return examples


def _make_row(example: Example, name: str, reasoning: bool, seed: int | None) -> dict[str, Any]:
    order = tuple(range(len(example.options)))
    if seed is not None:
        digest = hashlib.sha256(f"{seed}\x1f{name}".encode("utf-8", "surrogatepass")).digest()
        order = tuple(random.Random(digest).sample(order, len(order)))
    prompt = make_prompt(example, order=order)
    solution = example.answer
    if example.answer_index is not None:
        solution = name_gold(prompt.options, order.index(example.answer_index))
    return {
        "id": name,
        "prompt": [{"role": "user", "content": prompt.render(reasoning=reasoning)}],
        "question": example.question,
        "options": list(prompt.options),
        "solution": solution,
        "problem_type": example.problem_type,
    }


def _name_rows(examples: Sequence[Example], keys: Sequence[bytes]) -> list[str]:
    """Names each row by its id, or by its content; of rows with one name, those behind the first get a number."""
    counts: Counter[str] = Counter()
    names = []
    for example, key in zip(examples, keys, strict=True):
        name = example.id or key.hex()
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return names


def _check_clips(examples: Sequence[Example]) -> None:
    folders = [example.id for example in examples if example.frame_rate is not None]
    if folders:
        raise ValueError(
            f"the videos of {len(folders)} rows are folders of images, that of {folders[0]!r} first; trainers read "
            "video files, so make some of them"
        )


def _show_videos(rows: Dataset, adapter: Adapter) -> Dataset:
    """Calls the column of videos that the rows hold `video`, and keeps it closed."""
    media = next((name for name in adapter.columns if _is_media(rows.features[name])), None)
    if media is None:
        return rows
    if media != "video":
        rows = rows.remove_columns([name for name in rows.column_names if name == "video"])
        rows = rows.rename_column(media, "video")
    return rows.cast_column("video", Video(decode=False))


def _is_media(feature: Any) -> bool:
    """Whether cells are videos, or files as a path and bytes; pictures stay where trainers look for them."""
    is_file = isinstance(feature, dict) and feature.keys() == {"bytes", "path"}
    return is_file or (hasattr(feature, "embed_storage") and not isinstance(feature, Image))


def _find_path(example: Example) -> str | None:
    if not example.video:
        return None
    if example.media_root is None or "://" in example.video:
        return example.video
    return str(Path(example.media_root, example.video))


def _list_stale(names: Sequence[str], adapter: Adapter, mapping: Mapping[str, str]) -> list[str]:
    """Columns that are made anew, and those whose letter or place of the gold was that of the old order."""
    told = {*GENERIC_COLUMNS["options"], *GENERIC_COLUMNS["answer"]} & set(adapter.columns)
    mapped = {part.strip() for key in ("options", "answer") for part in mapping.get(key, "").split(",")}
    return [name for name in names if name in told | mapped | set(ROW_FEATURES)]
