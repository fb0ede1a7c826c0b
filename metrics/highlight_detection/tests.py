"""Cases with their results, for whoever changes the metric; the package's own tests run them."""

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
