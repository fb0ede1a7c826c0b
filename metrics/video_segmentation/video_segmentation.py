"""J, F and J&F of masks that follow an object, as an `evaluate` metric.

The figures are computed in `vidground_hf.stats.segmentation`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from vidground_hf.stats.segmentation import score_video_segmentation  # From: vidground-hf

_DESCRIPTION = """
Scores the masks that follow an object through a video against the annotated ones: region similarity (J, the overlap
of the two masks), boundary accuracy (F, how close their outlines lie) and the mean of both (J&F), as in DAVIS.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of str): per object, one mask per frame: a COCO run-length encoding as JSON, the path of
        a PNG file, such a path and "#<id>" for the pixels of that value, or an empty string for a frame without the
        object; an empty list is a missing prediction and scores 0.
    references (list of list of str): the annotated masks of the same frames.
Returns:
    dict: fractions as float, counts as int, None where nothing could be scored. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/video_segmentation")  # doctest: +SKIP
    >>> left, both = '{"size": [1, 2], "counts": [0, 1, 1]}', '{"size": [1, 2], "counts": [0, 2]}'
    >>> result = metric.compute(predictions=[[both, left]], references=[[both, both]])
    >>> result["j"], result["num_frames"]
    (0.75, 2)
    >>> result = metric.compute(predictions=[[both, ""]], references=[[both, ""]])
    >>> result["j&f"], result["num_empty_frames"]
    (1.0, 1)
    >>> result = metric.compute(predictions=[[both], []], references=[[both], [left]])
    >>> result["j"], result["num_missing"], result["per_object"][1]
    (0.5, 1, {'j': 0.0, 'f': 0.0, 'j&f': 0.0})
"""

_CITATION = """
@inproceedings{perazzi2016davis,
  title={A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation},
  author={Perazzi, Federico and Pont-Tuset, Jordi and McWilliams, Brian and Van Gool, Luc and Gross, Markus and
    Sorkine-Hornung, Alexander},
  booktitle={CVPR},
  year={2016}
}
@article{ponttuset2017davis,
  title={The 2017 {DAVIS} Challenge on Video Object Segmentation},
  author={Pont-Tuset, Jordi and others},
  journal={arXiv:1704.00675},
  year={2017}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class VideoSegmentation(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        masks = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": masks, "references": masks}),
            reference_urls=["https://arxiv.org/abs/1704.00675"],
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return score_video_segmentation(**columns)
