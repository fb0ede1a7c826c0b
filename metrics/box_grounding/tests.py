"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

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
