"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

TRUTH = [[20, 20, 10, 10], [25, 20, 10, 10], [29, 20, 10, 10]]
LOST = [TRUTH[0], [70, 70, 10, 10], [70, 70, 10, 10]]

test_cases = [
    {
        "inputs": {"predictions": [TRUTH], "references": [TRUTH]},
        "result": {"success_auc": 20 / 21, "precision_20px": 1.0, "ao": 1.0, "sr@0.75": 1.0, "num_frames": 2},
    },
    {
        "inputs": {"predictions": [LOST], "references": [TRUTH]},
        "result": {"success_auc": 0.0, "precision_20px": 0.0, "ao": 0.0, "num_frames": 2},
    },
    {
        "inputs": {"predictions": [LOST], "references": [TRUTH], "mode": "official"},
        "result": {"precision_20px": 1 / 3, "ao": 0.0, "num_frames": 3},
    },
]
