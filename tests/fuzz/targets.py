"""All targets by name: what is checked, and the seeds that fuzzing starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import file_targets, kept_targets, row_targets, text_targets


class Target(NamedTuple):
    """What is fuzzed.

    Attributes:
        check (`Callable`): takes bytes and an empty folder that it leaves empty; an exception is a finding.
        make_seeds (`Callable`): bytes to start from.
        num_examples (`int`): how many inputs the tests try; slow targets fewer.
    """

    check: Callable[[bytes, Path], None]
    make_seeds: Callable[[], list[bytes]]
    num_examples: int


TARGETS = {
    "extraction": Target(text_targets.check_extraction, text_targets.make_text_seeds, 150),
    "scoring": Target(text_targets.check_scoring, text_targets.make_text_seeds, 60),
    "rules": Target(text_targets.check_rules, text_targets.make_rule_seeds, 100),
    "cells": Target(text_targets.check_cells, text_targets.make_json_seeds, 150),
    "pages": Target(text_targets.check_pages, text_targets.make_text_seeds, 15),
    "ladder_pages": Target(text_targets.check_ladder_pages, text_targets.make_text_seeds, 30),
    "figures": Target(text_targets.check_figures, text_targets.make_text_seeds, 5),
    "rows": Target(row_targets.check_rows, row_targets.make_seeds, 100),
    "loading": Target(file_targets.check_loading, file_targets.make_set_seeds, 15),
    "predictions": Target(file_targets.check_predictions, file_targets.make_prediction_seeds, 80),
    "cache": Target(kept_targets.check_cache, kept_targets.make_seeds, 30),
    "fit": Target(kept_targets.check_fit, kept_targets.make_seeds, 20),
    "curated": Target(kept_targets.check_curated, kept_targets.make_seeds, 4),
}
