"""Cases with their results: `python tests.py` compares them, and stops at the first difference."""

from __future__ import annotations

from temporal_grounding import TemporalGrounding

test_cases = [
    {
        "inputs": {"predictions": [[[0, 10]], [[4, 6]]], "references": [[[0, 8]], [[3, 5], [20, 30]]]},
        "result": {"r1@0.3": 1.0, "r1@0.5": 0.5, "r1@0.7": 0.5, "num_examples": 2, "num_missing": 0},
    },
    {
        "inputs": {"predictions": [[[0, 8]], []], "references": [[[0, 8]], [[3, 5]]]},
        "result": {"r1@0.5": 0.5, "miou": 0.5, "num_missing": 1, "num_unscored": 0},
    },
    {
        "inputs": {"predictions": [[[0, 8]], []], "references": [[[0, 8]], [[3, 5]]], "mode": "official"},
        "result": {"r1@0.5": 1.0, "miou": 1.0, "num_missing": 1, "num_unscored": 1},
    },
]


def check_cases() -> None:
    """Raises for the first case whose result differs."""
    metric = TemporalGrounding(keep_in_memory=True)
    for case in test_cases:
        scores = metric.compute(**case["inputs"])
        got = {key: scores[key] for key in case["result"]}
        if got != case["result"]:
            raise ValueError(f"Got {got} for {case['inputs']}; expected {case['result']}.")


if __name__ == "__main__":
    check_cases()
