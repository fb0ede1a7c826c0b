"""What a question may need: the labels of the ladder. Words only; how a row gets one is `ladder.py`'s."""

from __future__ import annotations

from typing import Literal

from vidground_hf.schema import BLIND_VIEWS, View

NEEDS: dict[View, str] = {
    "options_only": "options",
    "text": "text",
    "subtitles": "subtitles",
    "single_frame": "one_frame",
    "shuffled_frames": "unordered_frames",
    "video": "video",
}
"""What a question needs that is first answered through a view."""

NEED_COLUMNS = ("needs", "needs_reason")
"""What the ladder adds to a row besides `is_visually_grounded`."""

UNANSWERED = "unanswered"
"""What a question is labelled that no view answers."""

BLIND_NEEDS = tuple(NEEDS[view] for view in BLIND_VIEWS)
VISUAL_NEEDS = (*(need for need in NEEDS.values() if need not in BLIND_NEEDS), UNANSWERED)
"""What text does not answer."""

LadderRule = Literal["calibrated", "circular"]
