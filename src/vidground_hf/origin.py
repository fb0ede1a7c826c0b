"""Where a dataset came from: the Hub repository and commit it was read from, and what its card says of the licence.

Asks nobody: it reads what `datasets` recorded and cached while loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard, try_to_load_from_cache

_HUB_FILE = re.compile(r"hf://datasets/(?P<id>[^@]+)@(?P<revision>[0-9a-f]{40})/")


def find_origin(rows: Dataset) -> dict[str, str]:
    """Finds the Hub dataset that rows were loaded from.

    Args:
        rows (`Dataset`): as loaded, or what `map`, `filter` and `select` made of it.

    Returns:
        `dict[str, str]`: `id` and `revision`, the commit; empty for rows that are not from the Hub.

    Example:
        >>> find_origin(Dataset.from_list([{"question": "why?"}]))
        {}
    """
    names = rows.info.download_checksums or {}
    return next((found.groupdict() for name in names if (found := _HUB_FILE.match(name))), {})


def read_card_metadata(source: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the licence and the languages off the cached card of a Hub dataset.

    Args:
        source (`Mapping`): `id` and `revision` of it.

    Returns:
        `dict`: `license` (str or None) and `languages` (list of str); without a cached card, `None` and none.
    """
    path = None
    if source["id"] and source["revision"]:
        path = try_to_load_from_cache(source["id"], "README.md", repo_type="dataset", revision=source["revision"])
    if not isinstance(path, str):
        return {"license": None, "languages": []}
    data = DatasetCard.load(path, ignore_metadata_errors=True).data
    named, spoken = data.license, data.language
    # Several licences hold for several parts; which part a row is from is not known here.
    licenses = [named] if isinstance(named, str) else list(named or ())
    languages = [spoken] if isinstance(spoken, str) else list(spoken or ())
    return {"license": licenses[0] if len(licenses) == 1 else None, "languages": [str(one) for one in languages]}
