"""Accuracy by IoU of one predicted box per expression, as an `evaluate` metric.

The figures are computed in `vidground_hf.stats.boxes`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from vidground_hf.stats.boxes import score_box_grounding  # From: vidground-hf

_DESCRIPTION = """
Scores the box that a model predicts for a referring expression against the annotated one: the share of boxes with
enough overlap (Acc@0.5, and a curve over other thresholds) and the mean overlap (mIoU).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of [number, number, number, number]): one box per expression, in the unit of the references; an
        empty list is a missing prediction and counts as wrong.
    references (list of [number, number, number, number]): the annotated boxes.
    box_format (str, optional): "xyxy" (left, top, right, bottom; the default) or "xywh" (left, top, width, height).
    iou_thresholds (list of float, optional): the points of the curve, each in (0, 1]; 0.1 to 0.9 by 0.1 by default.
Returns:
    dict: fractions as float, counts as int, None where nothing could be scored. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/box_grounding")  # doctest: +SKIP
    >>> result = metric.compute(predictions=[[0, 0, 4, 4], [1, 1, 3, 3]], references=[[0, 0, 4, 2], [1, 1, 3, 3]])
    >>> result["acc@0.5"], result["acc@0.6"], result["miou"]
    (1.0, 0.5, 0.75)
    >>> result = metric.compute(predictions=[[0, 0, 4, 4], []], references=[[0, 0, 4, 4], [1, 1, 2, 2]])
    >>> result["acc@0.5"], result["num_missing"]
    (0.5, 1)
    >>> metric.compute(predictions=[[2, 2, 3, 3]], references=[[2, 2, 3, 6]], box_format="xywh")["miou"]
    0.5
"""

_CITATION = """
@inproceedings{yu2016refcoco,
  title={Modeling Context in Referring Expressions},
  author={Yu, Licheng and Poirson, Patrick and Yang, Shan and Berg, Alexander C. and Berg, Tamara L.},
  booktitle={ECCV},
  year={2016}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BoxGrounding(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        box = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": box, "references": box}),
            reference_urls=["https://arxiv.org/abs/1608.00272"],
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return score_box_grounding(**columns)
