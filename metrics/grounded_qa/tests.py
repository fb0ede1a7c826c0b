"""Cases with their results: `python tests.py` compares them, and stops at the first difference."""

from __future__ import annotations

from grounded_qa import GroundedQA

MOMENT = {"predictions": ["B"], "references": ["B"], "windows": [[3, 3]], "reference_windows": [[[1, 6]]]}

test_cases = [
    {
        "inputs": {
            "predictions": ["B", "A", "C", "D"],
            "references": ["B", "C", "C", "D"],
            "windows": [[2, 4], [0, 9], [20, 30], []],
            "reference_windows": [[[1, 6]], [[0, 9]], [[3, 5]], [[1, 2]]],
        },
        "result": {"acc_qa": 0.75, "acc_gqa": 0.25, "acc_iop": 0.5, "iop@0.5": 0.5, "iou@0.5": 0.25, "num_missing": 1},
    },
    {"inputs": MOMENT, "result": {"acc_qa": 1.0, "acc_gqa": 0.0, "miop": 0.0, "miou": 0.0}},
    {"inputs": {**MOMENT, "mode": "official"}, "result": {"acc_gqa": 1.0, "miop": 1.0, "miou": 0.0}},
]


def check_cases() -> None:
    """Raises for the first case whose result differs."""
    metric = GroundedQA(keep_in_memory=True)
    for case in test_cases:
        scores = metric.compute(**case["inputs"])
        got = {key: scores[key] for key in case["result"]}
        if got != case["result"]:
            raise ValueError(f"Got {got} for {case['inputs']}; expected {case['result']}.")


if __name__ == "__main__":
    check_cases()
