"""Cases with their results: `python tests.py` compares them, and stops at the first difference."""

from __future__ import annotations

from highlight_detection import HighlightDetection

RATINGS = [[[0, 1, 0], [4, 4, 3], [2, 2, 4]]]

test_cases = [
    {
        "inputs": {"predictions": [[0.1, 0.9, 0.5]], "references": RATINGS},
        "result": {"hit1@very_good": 1.0, "map@very_good": 2.5 / 3, "map@good": 1.0, "num_missing": 0},
    },
    {
        "inputs": {"predictions": [[]], "references": RATINGS},
        "result": {"hit1@very_good": 0.0, "map@very_good": 0.0, "num_missing": 1, "num_unscored": 0},
    },
    {
        "inputs": {"predictions": [[]], "references": RATINGS, "mode": "official"},
        "result": {"hit1@very_good": None, "map@very_good": None, "num_missing": 1, "num_unscored": 1},
    },
]


def check_cases() -> None:
    """Raises for the first case whose result differs."""
    metric = HighlightDetection(keep_in_memory=True)
    for case in test_cases:
        scores = metric.compute(**case["inputs"])
        got = {key: scores[key] for key in case["result"]}
        if got != case["result"]:
            raise ValueError(f"Got {got} for {case['inputs']}; expected {case['result']}.")


if __name__ == "__main__":
    check_cases()
