"""Cases with their results: `python tests.py` compares them, and stops at the first difference."""

from __future__ import annotations

from video_segmentation import VideoSegmentation

LEFT, BOTH = '{"size": [1, 2], "counts": [0, 1, 1]}', '{"size": [1, 2], "counts": [0, 2]}'

test_cases = [
    {
        "inputs": {"predictions": [[BOTH, LEFT]], "references": [[BOTH, BOTH]]},
        "result": {"j": 0.75, "num_frames": 2, "num_empty_frames": 0},
    },
    {
        "inputs": {"predictions": [[BOTH, ""]], "references": [[BOTH, ""]]},
        "result": {"j": 1.0, "f": 1.0, "j&f": 1.0, "num_empty_frames": 1},
    },
    {
        "inputs": {"predictions": [[BOTH], []], "references": [[BOTH], [LEFT]]},
        "result": {
            "j": 0.5,
            "num_missing": 1,
            "per_object": [{"j": 1.0, "f": 1.0, "j&f": 1.0}, dict.fromkeys(["j", "f", "j&f"], 0.0)],
        },
    },
]


def check_cases() -> None:
    """Raises for the first case whose result differs."""
    metric = VideoSegmentation(keep_in_memory=True)
    for case in test_cases:
        scores = metric.compute(**case["inputs"])
        got = {key: scores[key] for key in case["result"]}
        if got != case["result"]:
            raise ValueError(f"Got {got} for {case['inputs']}; expected {case['result']}.")


if __name__ == "__main__":
    check_cases()
