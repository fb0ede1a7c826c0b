"""Which sources must not be copied, and what is known of their licences.

A short list of what was read, no legal advice; sources that are not on it are taken to allow what their card says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Terms(NamedTuple):
    """What a source allows.

    Attributes:
        name (`str`): the source.
        may_share (`bool`): whether its texts may be passed on at all, under its own licence.
        license (`str`, *optional*): that licence, as the Hub names it.
        reason (`str`): why only ids are pushed by default, as the end of a sentence.
    """

    name: str
    may_share: bool
    license: str | None
    reason: str


# Where each was read: Video-MME, MMStar, LongVideoBench: their repositories and cards; MLVU: "Our dataset is under the
# CC-BY-NC-SA-4.0 license" (README of JUNJIE99/MLVU, "research only"); QVHighlights: data/LICENSE of
# jayleicn/moment_detr.
_TERMS = {
    r"video-?mme": Terms("Video-MME", False, None, "Video-MME forbids redistribution"),
    r"mmstar": Terms("MMStar", False, None, "MMStar states no license, so there is none to pass it on under"),
    r"longvideobench": Terms(
        "LongVideoBench", True, None, "LongVideoBench is CC BY-NC-SA, for non-commercial use only"
    ),
    r"mlvu": Terms(
        "MLVU", True, "cc-by-nc-sa-4.0", "MLVU is CC BY-NC-SA 4.0, for research and non-commercial use only"
    ),
    r"qvhighlights": Terms(
        "QVHighlights", True, "cc-by-nc-sa-4.0", "the annotations of QVHighlights are CC BY-NC-SA 4.0, non-commercial"
    ),
}


def find_terms(report: Mapping[str, Any]) -> Terms | None:
    """Looks a source up by its id, or by the layout its rows were read in.

    Args:
        report (`dict`): a curation report, as in `report.json`.

    Returns:
        `Terms`: or `None` for a source that is not on the list.

    Example:
        >>> find_terms({"source": {"id": "lmms-lab/Video-MME"}, "adapter": "generic"}).may_share
        False
    """
    named = f"{report['source']['id'] or ''} {report['adapter']}".lower().replace("_", "-")
    return next((terms for pattern, terms in _TERMS.items() if re.search(pattern, named)), None)


def choose_ids_only(report: Mapping[str, Any], ids_only: bool | None) -> str | None:
    """Decides whether only ids, verdicts and scores are pushed, and says why.

    Args:
        report (`dict`): a curation report, as in `report.json`.
        ids_only (`bool`, *optional*): what was asked for; left out, sources on the list are pushed as ids only.

    Returns:
        `str`: the reason, or `None` when whole rows are pushed.

    Raises:
        `ValueError`: when whole rows were asked for and the source does not allow it.
    """
    terms = find_terms(report)
    if ids_only is None:
        return terms.reason if terms else None
    if ids_only:
        return terms.reason if terms else "this was asked for"
    if terms is not None and not terms.may_share:
        raise ValueError(
            f"whole rows were asked for, but {terms.reason}; push ids, verdicts and scores only (--ids-only, in "
            "Python ids_only=True or left out), which readers join with their own copy"
        )
    return None
