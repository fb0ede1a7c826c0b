"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

from __future__ import annotations

test_cases = [
    {
        "inputs": {"predictions": ["A", "B"], "blind_predictions": ["A", "B"], "references": ["A", "C"]},
        "result": {"visual_accuracy": 0.5, "blind_accuracy": 0.5, "gap": 0.0, "p_value": 1.0, "both": 1, "neither": 1},
    },
    {
        "inputs": {"predictions": ["A", "B"], "blind_predictions": ["B", "C"], "references": ["A", "B"]},
        "result": {"gap": 1.0, "visual_only": 2, "vg_accuracy": 1.0, "ta_accuracy": None, "mcnemar_p": 0.5},
    },
    {
        "inputs": {"predictions": ["A", "<unanswered>"], "blind_predictions": ["A", "A"], "references": ["A", "A"]},
        "result": {"gap": -0.5, "blind_only": 1, "num_visual_unanswered": 1, "num_blind_unanswered": 0},
    },
]
