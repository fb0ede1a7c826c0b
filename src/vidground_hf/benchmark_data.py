"""The questions of a benchmark as examples: configurations joined, clips and subtitles found, wrong clips refused.

What the rows mean is in `benchmark_layouts.py`; nothing is downloaded but the questions, and no clip is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from datasets import Dataset, Value, concatenate_datasets

from vidground_hf.benchmark_settings import BenchmarkSettings
from vidground_hf.loading import DataError, open_dataset
from vidground_hf.schema import Example

# VideoMMMU's clips that show a question instead of the lecture it is about: a folder, or a suffix to one of its ids
# (lmms_eval/tasks/videommmu/utils.py). Public evaluation files of other projects point at them.
_QUESTION_ONLY = re.compile(r"(^|/)question_only(/|$)|(^|/)(dev|validation|test|new)_\w+_\d+_image\.\w+$")
_TAG = re.compile(r"<[^>]*>")
_SRT_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d+) --> ")


def open_benchmark(
    settings: BenchmarkSettings,
    data: str | Path,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Dataset:
    """Opens the questions of a benchmark.

    Args:
        settings (`BenchmarkSettings`): which one.
        data (`str` or `Path`): its Hub id, or a local copy of it: a file of one configuration, or a folder that holds
            one folder or json file for each, itself or in a folder `json`.
        split (`str`, *optional*): of a Hub dataset; the one with answers when left out.
        config (`str`, *optional*): only this configuration.
        revision (`str`, *optional*): branch, tag or commit of a Hub dataset.

    Returns:
        `Dataset`: configurations one after the other; a column that some of them lack is `None` there.

    Raises:
        `DataError`: when a configuration is not there.
    """
    path = Path(data).expanduser()
    names: Sequence[str | None] = (config,) if config is not None else settings.configs or (None,)
    if config is None and path.exists() and (path.is_file() or not _find_configs(path, settings)):
        names = (None,)
    if names == (None,) and settings.config_column is not None:
        raise DataError(
            f"rows of {settings.name} do not say their task, and {str(data)!r} does not either; pass the folder that "
            f"holds one json file a task, or --config, one of {', '.join(settings.configs)}"
        )
    parts = []
    for name in names:
        local = _find_configs(path, settings).get(name) if path.is_dir() and name is not None else None
        if path.is_dir() and name is not None and local is None:
            raise DataError(f"{str(data)!r} has no {name}, one of the configurations of {settings.name}")
        on_hub = not path.exists()
        part = open_dataset(
            local or data,
            split=(split or settings.split) if on_hub else split,
            config=name if on_hub else None,
            revision=revision,
            data_files=(settings.data_files or None) if on_hub else None,
            adapter=None if settings.config_column else settings.adapter,
        )
        if settings.config_column is not None:
            part = part.add_column(settings.config_column, [name] * len(part), feature=Value("string"))
        parts.append(part)
    return concatenate_datasets(_align_numbers(parts))


def _align_numbers(parts: Sequence[Dataset]) -> list[Dataset]:
    """Gives columns of whole numbers in some configurations and fractions in others one type."""
    kinds: dict[str, set[str]] = {}
    for part in parts:
        for name, feature in part.features.items():
            kinds.setdefault(name, set()).add(getattr(feature, "dtype", ""))
    mixed = [name for name, found in kinds.items() if found == {"int64", "float64"}]
    for name in mixed:
        parts = [part.cast_column(name, Value("float64")) if name in part.features else part for part in parts]
    return list(parts)


def _find_configs(folder: Path, settings: BenchmarkSettings) -> dict[str, Path]:
    """The folder or json file of each configuration that a local copy holds."""
    places = {
        name: [folder / name, folder / f"{name}.json", folder / "json" / f"{name}.json"] for name in settings.configs
    }
    return {name: path for name, paths in places.items() for path in paths if path.exists()}


def locate_clips(settings: BenchmarkSettings, examples: Sequence[Example]) -> list[Example]:
    """Gives every example the file of its clip, as the unpacked files of the benchmark call it.

    Args:
        settings (`BenchmarkSettings`): of the benchmark.
        examples (`Sequence[Example]`): N rows. Addresses are kept where there is no `media_root`.

    Returns:
        `list[Example]`: N rows.
    """
    return [replace(example, video=_name_clip(settings, example)) for example in examples]


def _name_clip(settings: BenchmarkSettings, example: Example) -> str | None:
    video = example.video
    if not video or example.media_content is not None:
        return video
    if settings.url is not None and example.media_root is not None:
        video = video.removeprefix(settings.url)
    if settings.video_file is not None and not PurePosixPath(video).suffix:
        video = settings.video_file.format(video)
    folder = settings.folders.get(example.category or "")
    return video if folder is None or "/" in video else f"{folder}/{video}"


def refuse_question_only(examples: Sequence[Example]) -> None:
    """Raises `DataError` for clips of VideoMMMU that show the question alone: nothing can be learnt from them."""
    found = [example.video for example in examples if example.video and _QUESTION_ONLY.search(example.video)]
    if found:
        raise DataError(
            f"{len(found):,} of {len(examples):,} clips are question-only clips of VideoMMMU, such as {found[0]!r}, "
            "which show the question and not the lecture it is about; name the files without question_only and _image"
        )


def list_missing_files(examples: Sequence[Example]) -> dict[int, str]:
    """The path of every clip that is to be on this machine and is not, by the position of its row."""
    missing = {}
    for index, example in enumerate(examples):
        if not example.video or example.media_content is not None or "://" in example.video:
            continue
        path = Path(example.media_root or "", example.video)
        if not path.exists():
            missing[index] = str(path)
    return missing


def add_subtitles(settings: BenchmarkSettings, dataset: Dataset, examples: Sequence[Example]) -> list[Example]:
    """Reads the subtitles of a benchmark that keeps them in files; a row whose file is not there has none.

    Args:
        settings (`BenchmarkSettings`): of the benchmark.
        dataset (`Dataset`): N rows, with the column that names the files.
        examples (`Sequence[Example]`): the N rows as examples; the files are looked for in their `media_root`.

    Returns:
        `list[Example]`: N rows. One that has subtitles already keeps them.
    """
    if settings.subtitle_file is None:
        return list(examples)
    column, pattern = settings.subtitle_file
    names = ("starting_timestamp_for_subtitles", "duration")
    rows = dataset.select_columns([name for name in (column, *names) if name in dataset.column_names])
    texts: dict[str, str | None] = {}
    added = []
    for row, example in zip(rows, examples, strict=True):
        path = Path(example.media_root or "", pattern.format(row[column]))
        start, length = (row.get(name) if isinstance(row.get(name), (int, float)) else None for name in names)
        end = None if start is None or length is None else start + length
        key = f"{path}\x1f{start}\x1f{end}"
        if key not in texts:
            texts[key] = read_subtitles(path, start or 0.0, end) if path.is_file() else None
        added.append(example if example.subtitles else replace(example, subtitles=texts[key]))
    return added


def read_subtitles(path: Path, start_seconds: float = 0.0, end_seconds: float | None = None) -> str | None:
    """Reads what is said in a part of a video, a line each.

    Args:
        path (`Path`): an srt file, or a json list of `{"start", "end", "line"}` or `{"timestamp", "text"}`.
        start_seconds (`float`, *optional*, defaults to 0), end_seconds (`float`, *optional*): lines that begin in
            `[start, end)` are kept.

    Returns:
        `str`, *optional*: the lines without tags; `None` when nothing is said.

    Raises:
        `DataError`: for a file that is neither.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        lines = _list_json_lines(json.loads(text)) if path.suffix == ".json" else _list_srt_lines(text)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"cannot read subtitles from {str(path)!r}: {error}; it is to be srt or a json list"
        ) from error
    end = float("inf") if end_seconds is None else end_seconds
    kept = [_TAG.sub("", said).strip() for seconds, said in lines if start_seconds <= seconds < end]
    return "\n".join(line for line in kept if line) or None


def _list_srt_lines(text: str) -> list[tuple[float, str]]:
    found = []
    for block in re.split(r"\r?\n\s*\r?\n", text):
        times = _SRT_TIMES.search(block)
        if times is not None:
            said = block[times.end() :].splitlines()[1:]
            found.append((_count_seconds(times[1], times[2], f"{times[3]}.{times[4]}"), " ".join(said)))
    return found


def _list_json_lines(lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, str]]:
    return [
        (float(line["timestamp"][0]), line["text"])
        if "timestamp" in line
        else (_count_seconds(*line["start"].split(":")), line["line"])
        for line in lines
    ]


def _count_seconds(hours: str, minutes: str, seconds: str) -> float:
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
