"""NExT-GQA's figures of answers with evidence windows, as an `evaluate` metric.

The figures are computed in `vidground_hf.stats.grounded_qa`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from vidground_hf.stats.grounded_qa import score_grounded_qa  # From: vidground-hf

_DESCRIPTION = """
Scores answers to questions about a video together with the time window that the model gives as its evidence: how often
the answer is right (Acc@QA), right and grounded (Acc@GQA), right where the window is (Acc@IoP), and how well the
window overlaps with where the answer can be seen (IoP and IoU).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): the predicted answers; "<unanswered>" for a missing one.
    references (list of str): the right answers, written as the predictions are.
    windows (list of [start, end]): one predicted window in seconds per question; an empty list where there is none.
    reference_windows (list of list of [start, end]): per question, the windows that show the answer.
    mode (str, optional): "strict" (default) gives a missing window and one of no length an overlap of 0; "official"
        counts as NExT-GQA's evaluator does.
Returns:
    dict: fractions as float, counts as int, None where nothing could be scored. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/grounded_qa")  # doctest: +SKIP
    >>> result = metric.compute(
    ...     predictions=["B", "A", "C"],
    ...     references=["B", "C", "C"],
    ...     windows=[[2, 4], [0, 9], [20, 30]],
    ...     reference_windows=[[[1, 6]], [[0, 9]], [[3, 5]]],
    ... )
    >>> result["acc_qa"], result["acc_gqa"], result["acc_iop"]
    (0.6666666666666666, 0.3333333333333333, 0.5)
    >>> result["iop@0.5"], result["iou@0.5"], round(result["miou"], 3)
    (0.6666666666666666, 0.3333333333333333, 0.467)
    >>> moment = {"predictions": ["B"], "references": ["B"], "windows": [[3, 3]], "reference_windows": [[[1, 6]]]}
    >>> metric.compute(**moment)["acc_gqa"], metric.compute(**moment, mode="official")["acc_gqa"]
    (0.0, 1.0)
"""

_CITATION = """
@inproceedings{xiao2024nextgqa,
  title={Can I Trust Your Answer? Visually Grounded Video Question Answering},
  author={Xiao, Junbin and Yao, Angela and Li, Yicong and Chua, Tat-Seng},
  booktitle={CVPR},
  year={2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class GroundedQA(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        text, window = datasets.Value("string"), datasets.List(datasets.Value("float64"))
        features = {
            "predictions": text,
            "references": text,
            "windows": window,
            "reference_windows": datasets.List(window),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2309.01327"],
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return score_grounded_qa(**columns)
