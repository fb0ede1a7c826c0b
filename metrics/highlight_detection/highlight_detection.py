"""QVHighlights' mAP and Hit@1 of predicted saliency, as an `evaluate` metric.

The figures are computed in `vidground_hf.stats.highlights`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from vidground_hf.stats.highlights import score_highlights  # From: vidground-hf

_DESCRIPTION = """
Scores how a model ranks the clips of a video for a query, against how worth watching annotators found each clip: mean
average precision (mAP) and whether the first clip is a highlight (Hit@1), for clips rated Fair, Good and Very Good.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of float): per query, one score per clip of the video, higher is better; an empty list is
        a missing prediction.
    references (list of list of list of float): per query and clip, one rating of 0 to 4 per annotator.
    windows (list of list of [start, end, score], optional): predicted windows of the same queries in seconds, which
        adds their mAP.
    reference_windows (list of list of [start, end], optional): the windows that answer each query; with windows.
    mode (str, optional): "strict" (default) counts a missing prediction as wrong and ranks clips without a score last;
        "official" counts as the QVHighlights evaluator does.
Returns:
    dict: fractions as float, counts as int, None where nothing could be scored. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/highlight_detection")  # doctest: +SKIP
    >>> ratings = [[[0, 1, 0], [4, 4, 3], [2, 2, 4]]]
    >>> result = metric.compute(predictions=[[0.1, 0.9, 0.5]], references=ratings)
    >>> result["hit1@very_good"], round(result["map@very_good"], 3), result["map@good"]
    (1.0, 0.833, 1.0)
    >>> result = metric.compute(predictions=[[]], references=ratings)
    >>> result["hit1@very_good"], result["map@very_good"], result["num_missing"]
    (0.0, 0.0, 1)
    >>> result = metric.compute(
    ...     predictions=[[0.1, 0.9, 0.5]], references=ratings, windows=[[[2, 6, 0.8]]], reference_windows=[[[2, 5]]]
    ... )
    >>> result["map@0.5"], result["map@0.75"], result["map@0.8"]
    (1.0, 1.0, 0.0)
"""

_CITATION = """
@inproceedings{lei2021qvhighlights,
  title={{QVHighlights}: Detecting Moments and Highlights in Videos via Natural Language Queries},
  author={Lei, Jie and Berg, Tamara L. and Bansal, Mohit},
  booktitle={NeurIPS},
  year={2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class HighlightDetection(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": scores, "references": datasets.List(scores)}),
            reference_urls=["https://arxiv.org/abs/2107.09609"],
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return score_highlights(**columns)
