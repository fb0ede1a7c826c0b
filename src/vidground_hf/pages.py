"""A curation report for readers: one HTML page, and the Markdown card of the curated dataset.

Computes no figure, draws no picture and writes no file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

from datasets import DatasetInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData
from markupsafe import Markup

from vidground_hf.rendering import clean_text, render_html_page, render_markdown
from vidground_hf.wording import (
    describe_figures,
    describe_rule,
    describe_split,
    list_facts,
    list_groupings,
    list_limits,
    list_provenance,
)

# How much is shown before the rest is only counted: our guesses at what a reader still scans.
MAX_PAGE_GROUPS = 50
MAX_CARD_GROUPS = 12
MAX_CARD_EXAMPLES = 3
_MAX_COMMAND_CHARACTERS = 2000

SPLITS = {
    "grounded": "kept: text alone was not shown to answer it",
    "text_answerable": "dropped: text alone answers it",
    "not_kept": "judged, and not among what was to be kept",
    "undecided": "could not be judged",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_html(report: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """Writes the report as one HTML page that loads nothing and runs no script.

    Args:
        report (`dict`): a curation report, as in `report.json`. Its texts are shown as they are, made inert.
        figures (`dict[str, bytes]`): PNG pictures by name, as `figures.draw_figures` gives them.

    Returns:
        `str`: the page.
    """
    described = describe_figures(report)
    pictures = {
        name: {
            "uri": Markup("data:image/png;base64," + base64.b64encode(content).decode("ascii")),
            "alt": described[name].alt,
            "caption": described[name].caption,
        }
        for name, content in figures.items()
    }
    return render_html_page("report.html.j2", _describe(report, MAX_PAGE_GROUPS) | {"figures": pictures})


def render_card(
    report: Mapping[str, Any],
    figures: Collection[str],
    *,
    command: str | None = None,
    load_path: str = "path/to/this/folder",
    dataset_info: DatasetInfo | None = None,
) -> str:
    """Writes the `README.md` of a curated dataset: front matter that `load_dataset` reads, and a Markdown body.

    Args:
        report (`dict`): a curation report, as in `report.json`. Its texts are shown as they are, made inert.
        figures (`Collection[str]`): names of the pictures that lie beside the card as `figures/<name>.png`.
        command (`str`, *optional*): the command line that made the dataset; left out, the one that the report holds.
        load_path (`str`, *optional*, defaults to `"path/to/this/folder"`): what a reader passes to `load_dataset`.
        dataset_info (`DatasetInfo`, *optional*): columns, splits and sizes, for the front matter.

    Returns:
        `str`: the card.
    """
    described = describe_figures(report)
    command = report.get("command") if command is None else command
    values = _describe(report, MAX_CARD_GROUPS) | {
        "figures": {name: described[name] for name in figures},
        "examples": report["samples"]["text_answerable"][:MAX_CARD_EXAMPLES],
        # These stand in code, where an escape would be shown as written; none of them can end its line.
        "splits": {Markup(name): meaning for name, meaning in list_splits(report).items()},
        "command": None if command is None else Markup(clean_text(command, _MAX_COMMAND_CHARACTERS)),
        "load_path": Markup(json.dumps(clean_text(load_path), ensure_ascii=False)),
        "ids_only": report.get("ids_only"),
        "is_on_hub": report["source"]["revision"] is not None,
    }
    metadata = describe_metadata(report, dataset_info).to_yaml()
    return f"---\n{metadata}\n---\n\n{render_markdown('card.md.j2', values)}"


def describe_metadata(report: Mapping[str, Any], dataset_info: DatasetInfo | None = None) -> DatasetCardData:
    """Describes a curated dataset to the Hub and to `load_dataset`.

    The source is named in `source_datasets` when its revision is known, which only a dataset on the Hub has.

    Args:
        report (`dict`): a curation report, as in `report.json`.
        dataset_info (`DatasetInfo`, *optional*): columns, splits and sizes.

    Returns:
        `DatasetCardData`: the front matter of its card.
    """
    source = report["source"]
    metadata = DatasetCardData(
        language=[clean_text(language) for language in report.get("languages") or ()] or None,
        pretty_name=clean_text(f"{source['id']}, curated") if source["id"] else None,
        license=clean_text(report["license"]) if report["license"] else None,
        task_categories=["visual-question-answering", "video-text-to-text"],
        size_categories=next((name for limit, name in _SIZES if report["num_rows"] < limit), "1M<n<10M"),
        source_datasets=[clean_text(source["id"])] if source["id"] and source["revision"] else None,
        tags=["video", "video-question-answering", "vidground-hf"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"data/{name}-*.parquet"} for name in list_splits(report)],
            }
        ],
    )
    if dataset_info is not None:
        DatasetInfosDict({"default": dataset_info}).to_dataset_card_data(metadata)
    return metadata


def list_splits(report: Mapping[str, Any]) -> dict[str, str]:
    """The splits that have rows, with what they hold; an empty one is not written."""
    return {name: meaning for name, meaning in SPLITS.items() if report.get(f"num_{name}")}


def _describe(report: Mapping[str, Any], max_groups: int) -> dict[str, Any]:
    """What both templates name."""
    return {
        "report": report,
        "name": report["source"]["id"] or "unnamed dataset",
        "headline": describe_split(report),
        "facts": list_facts(report),
        "rule": describe_rule(report),
        "groupings": list_groupings(report, max_groups),
        "provenance": list_provenance(report),
        "limits": list_limits(report),
    }
