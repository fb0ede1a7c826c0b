"""Grounded question answering: is the answer right, and does the predicted window show why (NExT-GQA's figures).

Windows without an answer are scored in `temporal`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidground_hf.stats.checks import UNANSWERED, Mode, check_mode, check_rows
from vidground_hf.stats.windows import Windows, pad_windows, temporal_iou, temporal_overlap

# NExT-GQA (https://huggingface.co/papers/2309.01327) reports both overlaps at these two thresholds, and calls a
# right answer grounded from IoP 0.5.
THRESHOLDS = (0.3, 0.5)
GROUNDED_IOP = 0.5


def score_grounded_qa(
    predictions: Sequence[str],
    references: Sequence[str],
    windows: Sequence[Sequence[float]],
    reference_windows: Sequence[Windows],
    *,
    mode: Mode = "strict",
) -> dict[str, float | int | None]:
    """Scores answers and the windows given as their evidence.

    The overlap with several reference windows is the best one, for IoU and IoP (intersection over the predicted
    window) apart.

    Args:
        predictions (`Sequence[str]`): the predicted answers; `UNANSWERED` for a missing one, which counts as wrong.
        references (`Sequence[str]`): the right answers, written as the predictions are; compared as they stand.
            A row whose reference is `UNANSWERED` is not scored.
        windows (`Sequence[Sequence[float]]`): one predicted window `[start, end]` in seconds per question; an empty
            list where there is none.
        reference_windows (`Sequence[Windows]`): per question, the windows `[start, end]` that show the answer.
        mode (`str`, *optional*, defaults to `"strict"`): `"strict"` gives a missing window and one of no length an
            overlap of 0; `"official"` leaves questions without a window out and gives a window of no length inside a
            reference window IoP 1, as NExT-GQA's evaluator does.

    Returns:
        `dict`: fractions in [0, 1], `None` where nothing could be scored: `acc_qa`; `acc_gqa`, right with IoP of at
        least 0.5; `acc_iop`, how often the answer is right where IoP is at least 0.5, which is
        `acc_gqa / iop@0.5`; `miop`, `iop@0.3`, `iop@0.5`, `miou`, `iou@0.3`, `iou@0.5`. Counts: `num_examples`
        questions given, `num_unanswered`, `num_missing` without a window, `num_unscored` left out of the figures.

    Raises:
        ValueError: for columns of different length, a malformed window, or a mode that is not allowed.

    Example:
        >>> scores = score_grounded_qa(["B", "A"], ["B", "C"], [[2, 4], [0, 9]], [[[1, 6]], [[0, 9]]])
        >>> scores["acc_qa"], scores["acc_gqa"], scores["acc_iop"], scores["miou"]
        (0.5, 0.5, 0.5, 0.7)
    """
    check_mode(mode)
    check_rows(predictions=predictions, references=references, windows=windows, reference_windows=reference_windows)
    predicted = pad_windows([[window] if len(window) else [] for window in windows], "windows")[..., :2]
    annotated = pad_windows(reference_windows, "reference_windows")[..., :2]
    has_window = np.array([len(window) > 0 for window in windows], dtype=bool)
    has_reference = np.array([gold != UNANSWERED for gold in references], dtype=bool)
    scored = ((annotated[..., 1] > annotated[..., 0]).sum(axis=1) > 0) & has_reference
    if mode == "official":
        scored &= has_window
    iou = temporal_iou(predicted, annotated).max(axis=1)
    length = predicted[..., 1] - predicted[..., 0]
    shared = temporal_overlap(predicted, annotated)
    iop = np.divide(shared, length, out=np.zeros_like(shared), where=shared > 0)
    if mode == "official":
        moment = predicted[..., 0]
        is_inside = (length == 0) & (annotated[..., 0] <= moment) & (moment <= annotated[..., 1])
        iop = np.where(is_inside, 1.0, iop)
    iop = iop.max(axis=1)
    right = np.array([answer == gold for answer, gold in zip(predictions, references, strict=True)], dtype=bool)
    figures = {"acc_qa": right, "acc_gqa": right & (iop >= GROUNDED_IOP), "miop": iop, "miou": iou}
    figures |= {f"iop@{threshold:g}": iop >= threshold for threshold in THRESHOLDS}
    figures |= {f"iou@{threshold:g}": iou >= threshold for threshold in THRESHOLDS}
    grounded = scored & (iop >= GROUNDED_IOP)
    result: dict[str, float | int | None] = {
        key: float(values[scored].mean()) if scored.any() else None for key, values in figures.items()
    }
    return result | {
        "acc_iop": float(right[grounded].mean()) if grounded.any() else None,
        "num_examples": len(scored),
        "num_unanswered": sum(answer == UNANSWERED for answer in predictions),
        "num_missing": int((~has_window).sum()),
        "num_unscored": int((~scored).sum()),
    }
