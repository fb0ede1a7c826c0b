"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

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
