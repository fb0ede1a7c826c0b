"""The blind-visual gap as an `evaluate` metric: the same questions, answered with the video and without.

All of the work is done in `vidground_hf.gap` and `vidground_hf.stats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from vidground_hf.gap import measure_gap  # From: vidground-hf
from vidground_hf.gap_checks import check_texts  # From: vidground-hf

_DESCRIPTION = """
Compares the answers of one model to the same questions with the video and without it: both accuracies, the gap between
them with an interval and a paired test, how much of each is more than chance, and the accuracy on the questions that
the model does not answer blind. A gap of 0 says that the video changes nothing.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): answers with the video: a letter, an option's text or a completion; without options
        also a position counted from 0.
    blind_predictions (list of str): answers of the same model to the same questions without the video.
    references (list of str): gold answers: a letter, an option's text or a position counted from 0.
    options (list of list of str, optional): the options of each row; empty for open-ended questions.
    num_options (int or list of int, optional): how many options there are, where answers are letters.
    problem_types (str or list of str, optional): multiple_choice, numerical, ocr, free_form or regression.
    groups (list of str, optional): a category for each row; the result is repeated for each.
    clusters (list of str, optional): the video of each row; intervals and p_value then go by video.
    ids, blind_ids (list of str, optional): names of the rows in both runs, checked for repeats and order.
    views (dict of list of str, optional): answers under further views, by name.
    base_predictions (list of str, optional): blind answers of the text-only model that this one was built on.
    num_resamples (int, optional): bootstrap resamples and sign flips; 10000 by default.
    confidence (float, optional): of every interval; 0.95 by default.
    seed (int, optional): 0 by default.
Returns:
    dict: fractions as float, counts as int, None where a figure is not defined. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/blind_visual_gap")  # doctest: +SKIP
    >>> result = metric.compute(
    ...     predictions=["A", "B", "C"], blind_predictions=["A", "C", "A"], references=["A", "B", "B"], num_options=4
    ... )
    >>> result["visual_accuracy"], result["blind_accuracy"], result["gap"]
    (0.6666666666666666, 0.3333333333333333, 0.3333333333333333)
    >>> result["both"], result["blind_only"], result["visual_only"], result["neither"]
    (1, 0, 1, 1)
"""

_CITATION = """
@misc{vidground,
  title={Watch Before You Answer},
  year={2026},
  eprint={2604.05117},
  archivePrefix={arXiv}
}
@misc{mmstar,
  title={Are We on the Right Way for Evaluating Large Vision-Language Models?},
  author={Lin Chen and others},
  year={2024},
  eprint={2403.20330},
  archivePrefix={arXiv}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BlindVisualGap(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": text, "blind_predictions": text, "references": text}),
            reference_urls=["https://arxiv.org/abs/2604.05117", "https://arxiv.org/abs/2403.20330"],
        )

    def add_batch(
        self, *, predictions: Sequence[str] | None = None, references: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        """Adds rows, refusing columns of unequal length and cells that `evaluate` would turn into text."""
        columns = {"predictions": predictions, **kwargs, "references": references}
        check_texts({name: column for name, column in columns.items() if column is not None})
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return measure_gap(**columns)
