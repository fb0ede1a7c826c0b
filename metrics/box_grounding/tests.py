"""Cases with their results: `python tests.py` compares them, and stops at the first difference."""

from __future__ import annotations

from box_grounding import BoxGrounding

test_cases = [
    {
        "inputs": {"predictions": [[0, 0, 4, 4], [1, 1, 3, 3]], "references": [[0, 0, 4, 2], [1, 1, 3, 3]]},
        "result": {"acc@0.5": 1.0, "acc@0.6": 0.5, "miou": 0.75, "num_missing": 0},
    },
    {
        "inputs": {"predictions": [[0, 0, 4, 4], []], "references": [[0, 0, 4, 4], [1, 1, 2, 2]]},
        "result": {"acc@0.5": 0.5, "num_missing": 1, "num_invalid": 0},
    },
    {
        "inputs": {"predictions": [[2, 2, 3, 3]], "references": [[2, 2, 3, 6]], "box_format": "xywh"},
        "result": {"acc@0.5": 1.0, "miou": 0.5},
    },
]


def check_cases() -> None:
    """Raises for the first case whose result differs."""
    metric = BoxGrounding(keep_in_memory=True)
    for case in test_cases:
        scores = metric.compute(**case["inputs"])
        got = {key: scores[key] for key in case["result"]}
        if got != case["result"]:
            raise ValueError(f"Got {got} for {case['inputs']}; expected {case['result']}.")


if __name__ == "__main__":
    check_cases()
