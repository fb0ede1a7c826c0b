"""What must hold of an output folder whatever happened on the way to it.

Starts and disturbs nothing. A failed check is an `AssertionError`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.soak.runs import Ended, Place

# What a run says of itself and not of the data: how long it took, and how many of the answers it found.
_OWN = [
    (re.compile(r"[\d,.]+ seconds"), "N seconds"),
    (re.compile(r"[\d,]+ more were known"), "N more were known"),
    (re.compile(r"\| Answers asked for \| [\d,]+"), "| Answers asked for | N"),
    (re.compile(r'(Answers asked for.{0,600}?<td class="number">)[\d,]+', re.DOTALL), r"\1N"),
]
_KINDS_OF_KEPT = {"answers.sqlite", "answers.sqlite-wal", "answers.sqlite-shm"}


def read_output(output: Path) -> dict[str, Any]:
    """Every file of a folder by its path, without what a run says of itself; of all else each byte counts."""
    return {
        path.relative_to(output).as_posix(): _read_file(path) for path in sorted(output.rglob("*")) if path.is_file()
    }


def _read_file(path: Path) -> Any:
    if path.name == "report.json":
        report = json.loads(path.read_text(encoding="utf-8"))
        del report["seconds"]
        if report["calls"] is not None:
            report["calls"]["asked"] += report["calls"].pop("cached")
        return list(report.items()), report["calls"]
    if path.suffix in (".html", ".md"):
        text = path.read_text(encoding="utf-8")
        for pattern, shown in _OWN:
            text = pattern.sub(shown, text)
        return text
    return path.read_bytes()


def check_output(output: Path, reference: dict[str, Any], num_rows: int) -> None:
    """The folder holds the reference's files with its bytes, and each input row once."""
    found = read_output(output)
    assert sorted(found) == sorted(reference)
    differing = [name for name, content in found.items() if content != reference[name]]
    assert not differing, f"these files are not the reference's: {', '.join(differing)}"
    rows = [row for path in output.glob("data/*.parquet") for row in pq.read_table(path, columns=["row"])["row"]]
    assert sorted(row.as_py() for row in rows) == list(range(num_rows)), "a row is missing or doubled"


def check_untouched(place: Place, reference: dict[str, Any], num_rows: int) -> None:
    """What a run left that did not end: no output yet, or a whole one."""
    if (place.output / "report.json").exists():
        check_output(place.output, reference, num_rows)


def check_tidy(place: Place) -> None:
    """A run that succeeded leaves its output and nothing beside it, whatever earlier runs had left there."""
    assert [path.name for path in place.parent.iterdir()] == [place.output.name]
    assert not list(place.scratch.iterdir())
    kept = {path.name for path in place.cache.iterdir()}
    assert kept <= _KINDS_OF_KEPT, f"the cache folder holds {sorted(kept)}"


def check_message(ended: Ended) -> str:
    """A run that failed says so in one last line, without a traceback; returns the line."""
    assert "Traceback" not in ended.said, ended.said
    last = ended.said.rstrip("\n").rpartition("\n")[2]
    assert last.startswith("error: "), f"status {ended.status} and no message: {ended.said[-400:]!r}"
    assert ended.status in (1, 2), f"status {ended.status}: {last}"
    assert "; " in last, f"the message does not say what to do: {last}"
    return last
