"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

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
