"""Where a dataset came from: the Hub repository and commit it was read from, and what its card says of the licence.

Asks nobody: it reads what `datasets` recorded and cached while loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard, constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

_COMMIT = re.compile(r"[0-9a-f]{40}")  # folders of local files have 64 digits


def describe_source(rows: Dataset, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a report says of where its rows came from.

    Args:
        rows (`Dataset`): as loaded.
        source (`Mapping`, *optional*): what the caller says of it, for example `id` and `revision`.

    Returns:
        `dict`: `id`, `revision` and `fingerprint`, and whatever else `source` has. Of a path two parts are left, which
        do not tell whose disk it was on.
    """
    named = {"id": None, "revision": None, **(source or {})}
    if named["id"] is not None and Path(named["id"]).exists():
        named["id"] = "/".join(Path(named["id"]).parts[-2:])
    return {**named, **find_origin(rows), "fingerprint": rows._fingerprint}


def find_origin(rows: Dataset) -> dict[str, str]:
    """Finds the Hub dataset that rows were loaded from, by the folders of the caches they lie in.

    Args:
        rows (`Dataset`): as loaded, or what `map`, `filter` and `select` made of it.

    Returns:
        `dict[str, str]`: `id` and `revision`, the commit; empty for rows that are not from the Hub.

    Example:
        >>> find_origin(Dataset.from_list([{"question": "why?"}]))
        {}
    """
    folders = {Path(file["filename"]).parent.name for file in rows.cache_files}
    commits = [name for name in folders if _COMMIT.fullmatch(name)]
    if len(commits) != 1:
        return {}
    found = [path.parts[-3] for path in Path(constants.HF_HUB_CACHE).glob(f"datasets--*/snapshots/{commits[0]}")]
    return {"id": found[0].removeprefix("datasets--").replace("--", "/"), "revision": commits[0]} if found else {}


def read_card_metadata(source: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the licence and the languages off the cached card of a Hub dataset.

    Args:
        source (`Mapping`): `id` and `revision` of it.

    Returns:
        `dict`: `license` (str or None) and `languages` (list of str); without a cached card, `None` and none.
    """
    path = None
    if source["id"] and source["revision"]:
        with suppress(HFValidationError):  # a name of the user's own that is no repository has no card
            path = try_to_load_from_cache(source["id"], "README.md", repo_type="dataset", revision=source["revision"])
    if not isinstance(path, str):
        return {"license": None, "languages": []}
    data = DatasetCard.load(path, ignore_metadata_errors=True).data
    named, spoken = data.license, data.language
    # Several licences hold for several parts; which part a row is from is not known here.
    licenses = [named] if isinstance(named, str) else list(named or ())
    languages = [spoken] if isinstance(spoken, str) else list(spoken or ())
    return {"license": licenses[0] if len(licenses) == 1 else None, "languages": [str(one) for one in languages]}
