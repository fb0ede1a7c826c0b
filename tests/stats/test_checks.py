"""Every refusal that the metrics share."""

from __future__ import annotations

import re

import pytest

from vidground_hf.stats.checks import check_mode, check_rows, check_thresholds


def test_both_modes_pass_and_others_are_refused() -> None:
    check_mode("strict")
    check_mode("official")
    with pytest.raises(ValueError, match=re.escape("Got mode 'lenient'; allowed are 'strict'")):
        check_mode("lenient")


def test_columns_of_different_length_name_the_rows_without_a_partner() -> None:
    check_rows(predictions=[1, 2], references=[3, 4])
    with pytest.raises(
        ValueError,
        match=re.escape(
            "references has 2 rows and predictions has 3: row 2 stands alone; pass one of each per row, missing or not"
        ),
    ):
        check_rows(predictions=[1, 2, 3], references=[4, 5])
    with pytest.raises(ValueError, match=re.escape("rows 1, 2, 3, 4, 5 and 4 more stand alone")):
        check_rows(predictions=[1] * 10, references=[1])


def test_none_is_refused_with_its_rows() -> None:
    with pytest.raises(ValueError, match=re.escape("Got None in row 1 of predictions; an empty list stands for")):
        check_rows(predictions=[[], None], references=[[], []])
    with pytest.raises(ValueError, match=re.escape("Got None in rows 0, 1 of references")):
        check_rows(predictions=[[], []], references=[None, None])


@pytest.mark.parametrize("threshold", [0, -0.5, 50, float("nan")])
def test_thresholds_outside_the_unit_interval_are_refused(threshold: float) -> None:
    check_thresholds([0.01, 1])
    with pytest.raises(ValueError, match=re.escape(f"Got the threshold {threshold}; allowed is 0 < threshold <= 1")):
        check_thresholds([0.5, threshold])
