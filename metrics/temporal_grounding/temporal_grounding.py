"""R@1, mIoU and mAP of predicted time windows, as an `evaluate` metric.

The figures are computed in `vidground_hf.stats.temporal`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from vidground_hf.stats.temporal import score_temporal_grounding  # From: vidground-hf

_DESCRIPTION = """
Scores the time windows that a model predicts for a query against the windows that answer it: the share of queries
whose first window overlaps enough (R@1 at each IoU threshold), the mean overlap (mIoU), and mean average precision
(mAP).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of [start, end] or [start, end, score]): windows in seconds per query, best first; an
        empty list is a missing prediction.
    references (list of list of [start, end]): the windows that answer each query.
    iou_thresholds (list of float, optional): for R@1, each in (0, 1]; 0.3, 0.5 and 0.7 by default.
    length_ranges (dict of [float, float], optional): adds by_length, the same figures on reference windows longer than
        the first and at most as long as the second number of seconds.
    mode (str, optional): "strict" (default) counts a missing prediction as wrong and ranks by score; "official" counts
        as the QVHighlights evaluator does.
Returns:
    dict: fractions as float, counts as int, None where nothing could be scored. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/temporal_grounding")  # doctest: +SKIP
    >>> result = metric.compute(predictions=[[[0, 10]], [[4, 6]]], references=[[[0, 8]], [[3, 5], [20, 30]]])
    >>> result["r1@0.3"], result["r1@0.5"], result["r1@0.7"], round(result["miou"], 3)
    (1.0, 0.5, 0.5, 0.567)
    >>> result = metric.compute(predictions=[[[0, 8]], []], references=[[[0, 8]], [[3, 5]]])
    >>> result["r1@0.5"], result["num_missing"], result["num_unscored"]
    (0.5, 1, 0)
    >>> result = metric.compute(predictions=[[[0, 8]], []], references=[[[0, 8]], [[3, 5]]], mode="official")
    >>> result["r1@0.5"], result["num_missing"], result["num_unscored"]
    (1.0, 1, 1)
"""

_CITATION = """
@inproceedings{gao2017tall,
  title={{TALL}: Temporal Activity Localization via Language Query},
  author={Gao, Jiyang and Sun, Chen and Yang, Zhenheng and Nevatia, Ram},
  booktitle={ICCV},
  year={2017}
}
@inproceedings{lei2021qvhighlights,
  title={{QVHighlights}: Detecting Moments and Highlights in Videos via Natural Language Queries},
  author={Lei, Jie and Berg, Tamara L. and Bansal, Mohit},
  booktitle={NeurIPS},
  year={2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TemporalGrounding(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        windows = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": windows, "references": windows}),
            reference_urls=["https://arxiv.org/abs/1705.02101", "https://arxiv.org/abs/2107.09609"],
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return score_temporal_grounding(**columns)
