"""LaSOT's and GOT-10k's figures of boxes that follow an object, as an `evaluate` metric.

The figures are computed in `vidground_hf.stats.tracking`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from vidground_hf.stats.tracking import score_object_tracking  # From: vidground-hf

_DESCRIPTION = """
Scores the boxes of a tracker that is given the box of the first frame and follows the object through a video: success
AUC, precision and normalised precision as in LaSOT, average overlap (AO) and success rates (SR) as in GOT-10k.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of [left, top, width, height]): per video, one box in pixels per frame, the first frame
        included; an empty list is a missing box or, for a video, a missing video.
    references (list of list of [left, top, width, height]): the annotated boxes.
    absent (list of list of int, optional): per video and frame, 1 where the object is not to be seen.
    image_sizes (list of [width, height], optional): of each video in pixels; clips the boxes for ao and sr.
    mode (str, optional): "strict" (default) scores every frame but the first in which the object can be seen, with
        overlap 0 for a missing box; "official" counts as the LaSOT and GOT-10k toolkits do.
Returns:
    dict: fractions as float, counts as int, None where nothing could be scored. The card describes every key.
Examples:
    >>> metric = evaluate.load("metrics/object_tracking")  # doctest: +SKIP
    >>> truth = [[0, 0, 10, 10], [5, 0, 10, 10], [9, 0, 10, 10]]
    >>> result = metric.compute(predictions=[[[0, 0, 10, 10], [5, 0, 10, 10], [9, 5, 10, 10]]], references=[truth])
    >>> round(result["ao"], 3), result["sr@0.5"], result["precision_20px"], result["norm_precision_0.2"]
    (0.667, 0.5, 1.0, 0.5)
    >>> round(metric.compute(predictions=[truth], references=[truth])["success_auc"], 3)
    0.952
    >>> result = metric.compute(predictions=[[truth[0], truth[1], []]], references=[truth], absent=[[0, 0, 1]])
    >>> result["ao"], result["num_frames"], result["num_unscored_frames"], result["num_missing_frames"]
    (1.0, 1, 2, 0)
"""

_CITATION = """
@inproceedings{fan2019lasot,
  title={{LaSOT}: A High-quality Benchmark for Large-scale Single Object Tracking},
  author={Fan, Heng and others},
  booktitle={CVPR},
  year={2019}
}
@inproceedings{mueller2018trackingnet,
  title={{TrackingNet}: A Large-Scale Dataset and Benchmark for Object Tracking in the Wild},
  author={M{\\"u}ller, Matthias and Bibi, Adel and Giancola, Silvio and Alsubaihi, Salman and Ghanem, Bernard},
  booktitle={ECCV},
  year={2018}
}
@article{huang2021got10k,
  title={{GOT-10k}: A Large High-Diversity Benchmark for Generic Object Tracking in the Wild},
  author={Huang, Lianghua and Zhao, Xin and Huang, Kaiqi},
  journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year={2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ObjectTracking(evaluate.Metric):
    """See the description above, which `evaluate` puts here."""

    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": boxes, "references": boxes}),
            reference_urls=["https://arxiv.org/abs/1809.07845", "https://arxiv.org/abs/1810.11981"],
        )

    def _compute(self, **columns: Any) -> dict[str, Any]:
        return score_object_tracking(**columns)
