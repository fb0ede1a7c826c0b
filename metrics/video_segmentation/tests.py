"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

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
