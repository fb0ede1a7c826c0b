"""`run_benchmark`: one model, one set of questions, several views and frame budgets, to one table.

How benchmarks are asked is in `benchmark_settings.py`, the figures in `benchmark_table.py`, the files in
`benchmark_report.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from vidground_hf.answerers.base import Answerer, describe_answerer
from vidground_hf.benchmark_asking import Showing, Wordings, ask_benchmark, list_showings
from vidground_hf.benchmark_data import add_subtitles, locate_clips, refuse_question_only
from vidground_hf.benchmark_report import list_predictions, write_benchmark
from vidground_hf.benchmark_settings import DEFAULT_NUM_FRAMES, BenchmarkSettings, find_benchmark, get_benchmark
from vidground_hf.benchmark_table import BenchmarkTable
from vidground_hf.benchmark_verdicts import StoredVerdicts, read_verdicts
from vidground_hf.command_line import hide_places
from vidground_hf.environment import BASE_PACKAGES, OPTIONAL_PACKAGES, read_version
from vidground_hf.media import FrameBudget
from vidground_hf.origin import find_origin
from vidground_hf.prompts import Wording
from vidground_hf.reading import read_examples
from vidground_hf.schema import BLIND_VIEWS, Example, View

_NUM_LISTED = 20  # errors in the table; all of them are in the predictions
_OWN_VERDICTS = (
    "VG and TA are by this model's own blind answers, as in VidGround: right blind is TA, whatever was luck. Compare "
    "models on one set of stored verdicts instead (--verdicts)"
)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A finished run.

    Attributes:
        table (`dict`): every figure and setting, as `table.json` holds it.
        predictions (`dict[str, list[dict]]`): for each showing, a row for every question that was asked.
    """

    table: dict[str, Any]
    predictions: dict[str, list[dict[str, Any]]]

    def save(self, output_dir: str | Path) -> Path:
        """Writes `table.json`, `README.md`, `accuracy.png` and `predictions/*.jsonl`.

        The same answers give the same bytes: neither dates nor times but those kept with the answers are written.

        Args:
            output_dir (`str` or `Path`): where to; must not exist, be empty, or hold an earlier run.

        Returns:
            `Path`: the folder.

        Raises:
            `DataError`: when the folder holds something else.
        """
        return write_benchmark(self.table, self.predictions, Path(output_dir))


def run_benchmark(
    dataset: Dataset,
    answerer: Answerer,
    *,
    name: str | None = None,
    budgets: Sequence[FrameBudget] | None = None,
    views: Sequence[View] = ("text", "video"),
    with_subtitles: bool = False,
    verdicts: str | Path | None = None,
    wording: Wording | None = None,
    adapter: str | None = None,
    columns: Mapping[str, str] | None = None,
    media_root: str | None = None,
    on_error: Literal["raise", "undecided"] = "raise",
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Benchmark:
    """Asks a model every question through several views, and says how much better it answers when it may look.

    Options are shown in the data's own order, as the benchmarks do.

    Args:
        dataset (`Dataset`): the questions; those of a benchmark are opened by `open_benchmark`.
        answerer (`Answerer`): the model; to be shown frames, it must take them.
        name (`str`, *optional*): a benchmark with ready settings; found by the Hub id of the data when left out.
        budgets (`Sequence[FrameBudget]`, *optional*): for the views with pixels; 16, 32 and 64 frames when left out.
        views (`Sequence[str]`, *optional*, defaults to `("text", "video")`): of `schema.VIEWS`.
        with_subtitles (`bool`, *optional*, defaults to `False`): show a row's subtitles beside the frames, too.
        verdicts (`str` or `Path`, *optional*): a folder that `vidground curate` wrote, for which rows are visually
            grounded; the model's own blind answers when left out.
        wording (`Wording`, *optional*): how questions are put; the benchmark's published prompt when left out, ours
            for other data.
        adapter, columns: as in `find_adapter`.
        media_root (`str`, *optional*): the folder that clips start from.
        on_error (`str`, *optional*, defaults to `"raise"`): what becomes of a question without an answer: an exception
            after all have been asked, or, with `"undecided"`, a row that is counted and left out of the figures.
        seed (`int`, *optional*, defaults to 0): of intervals, shuffled frames and wrong videos.
        source (`Mapping`, *optional*): `id`, `revision` and the like, to be written down.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

    Returns:
        `Benchmark`: the table and the answers.

    Raises:
        `ValueError`: for an unknown benchmark, view or layout, or when a text-only model is to look.
        `AnswerError`: when questions got no answer and `on_error` is `"raise"`; what was answered is in the cache.

    Example:
        >>> from vidground_hf.answerers.base import ConstantAnswerer
        >>> rows = [{"question": f"Which, {k}?", "options": ["this", "that"], "answer": "AB"[k % 2]} for k in range(4)]
        >>> table = run_benchmark(Dataset.from_list(rows), ConstantAnswerer("A"), views=("text",)).table
        >>> table["rows"][0]["accuracy"]["value"]
        0.5
    """
    origin = {"id": None, "revision": None, **(source or {}), **find_origin(dataset)}
    settings = get_benchmark(name) if name is not None else find_benchmark(origin["id"] or "")
    examples, read = _read(dataset, settings, adapter, columns, media_root, views, with_subtitles)
    usual = [FrameBudget(num_frames=number) for number in DEFAULT_NUM_FRAMES]
    showings = list_showings(views, usual if budgets is None else budgets)
    stored = None if verdicts is None else read_verdicts(verdicts, dataset)
    wordings = Wordings(settings=settings, wording=wording, with_subtitles=with_subtitles)
    outcomes = ask_benchmark(examples, answerer, showings, wordings, on_error=on_error, seed=seed, progress=progress)
    judged = None if stored is None else stored.is_visually_grounded
    table = BenchmarkTable(
        examples, showings, outcomes, settings=settings, verdicts=judged, with_subtitles=with_subtitles, seed=seed
    )
    predictions = list_predictions(examples, showings, outcomes)
    asked = {"views": list(dict.fromkeys(views)), "with_subtitles": with_subtitles, "seed": seed, "on_error": on_error}
    described = {
        "benchmark": None if settings is None else _describe_settings(settings),
        "source": origin,
        **read,
        **_describe_answerer(answerer, showings),
        **asked,
        "wordings": _describe_wordings(examples, wordings, showings),
        "verdicts": _describe_verdicts(table, stored, verdicts),
        **_describe_rows(settings, table, predictions),
    }
    return Benchmark(described, predictions)


def _read(
    dataset: Dataset,
    settings: BenchmarkSettings | None,
    adapter: str | None,
    columns: Mapping[str, str] | None,
    media_root: str | None,
    views: Sequence[View],
    with_subtitles: bool,
) -> tuple[list[Example], dict[str, Any]]:
    if settings is not None and adapter is None and not columns:
        adapter = settings.adapter
    looks = any(view not in BLIND_VIEWS for view in views)
    found, keys, examples = read_examples(
        dataset, adapter=adapter, columns=columns, media_root=media_root, with_media=looks
    )
    refuse_question_only(examples)
    if settings is not None and found.name == settings.adapter:
        examples = locate_clips(settings, examples)
        if with_subtitles or "subtitles" in views:
            examples = add_subtitles(settings, dataset, examples)
    return examples, {
        "adapter": found.name,
        "columns": dict(columns) if columns else None,
        "rows_sha256": hashlib.sha256(b"".join(keys)).hexdigest(),
        "num_with_subtitles": sum(example.subtitles is not None for example in examples),
    }


def _describe_settings(settings: BenchmarkSettings) -> dict[str, Any]:
    names = ("name", "hub_id", "split", "configs", "adapter", "average", "only_choices", "notes")
    return {name: list(value) if isinstance(value := getattr(settings, name), tuple) else value for name in names}


def _describe_answerer(answerer: Answerer, showings: Sequence[Showing]) -> dict[str, Any]:
    return {
        "answerer": answerer.id,
        "answerer_settings": describe_answerer(answerer, looks=any(one.budget is not None for one in showings)),
        "versions": {package: read_version(package) for package in BASE_PACKAGES + OPTIONAL_PACKAGES},
    }


def _describe_wordings(
    examples: Sequence[Example], wordings: Wordings, showings: Sequence[Showing]
) -> list[dict[str, Any]]:
    used = (wordings.find(example, showing.view) for showing in showings for example in examples)
    found = {id(one): one for one in used}
    return [{**asdict(one), "instructions": dict(one.instructions)} for one in found.values()]


def _describe_verdicts(
    table: BenchmarkTable, stored: StoredVerdicts | None, folder: str | Path | None
) -> dict[str, Any]:
    counted = {"num_vg": int(table.is_vg.sum()), "num_ta": int(table.is_ta.sum())}
    if stored is not None:
        named = {name: stored.report.get(name) for name in ("answerer", "rule", "view")}
        return {"from": hide_places(str(folder)), **named, **counted, "num_unmatched": stored.num_unmatched}
    own = None if table.blind is None else f"own answers, {table.showings[table.blind].name}"
    return {"from": own, **counted, "num_unmatched": 0}


def _describe_rows(
    settings: BenchmarkSettings | None, table: BenchmarkTable, predictions: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    rows = table.list_rows()
    errors = [
        {"name": name, "id": row["id"], "error": row["error"]}
        for name, answered in predictions.items()
        for row in answered
        if row["error"] is not None
    ]
    return {
        "num_rows": len(table.chance),
        "rows": rows,
        "num_errors": len(errors),
        "errors": errors[:_NUM_LISTED],
        "decoders": sorted({decoder for row in rows for decoder in row["decoders"]}),
        "notes": _list_notes(settings, table, rows),
    }


def _list_notes(
    settings: BenchmarkSettings | None, table: BenchmarkTable, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    notes = list(settings.notes) if settings is not None else []
    if table.is_own and table.blind is not None:
        notes.append(_OWN_VERDICTS)
    for row in rows:
        left_out = {
            "skipped": row["num_skipped"],
            "unanswered": row["num_unanswered"],
            "unscored": row["num_unscored"],
        }
        if any(left_out.values()):
            counted = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
            notes.append(f"{row['name']}: of {row['num_rows']:,} questions, left out are {counted}")
    return notes
