from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from tests.models import SimulatedModel
from tests.questions import make_dataset
from vidground_hf.answerers import TextBiasProbe
from vidground_hf.answerers.base import Answer
from vidground_hf.curation import curate
from vidground_hf.filtering import GroundFilter
from vidground_hf.judging import AnswerError
from vidground_hf.prompts import Prompt
from vidground_hf.rows import KIND_FEATURES
from vidground_hf.rules import circular, single_shot
from vidground_hf.schema import LETTERS
from vidground_hf.shortcut_kinds import SHORTCUT_KINDS
from vidground_hf.tables import format_table

REASON = SHORTCUT_KINDS["external_knowledge"]


class Explaining(SimulatedModel):
    """Says that it knew, or says nothing that can be understood, or fails."""

    account: str | None = REASON

    def _answer(self, prompt: Prompt) -> Answer:
        if REASON not in prompt.options:
            return super()._answer(prompt)
        if self.account is None:
            return Answer(text=None, error="timed out")
        known = self.account in prompt.options
        return Answer(text=LETTERS[prompt.options.index(self.account)] if known else self.account)


@pytest.fixture
def rows() -> Dataset:
    return make_dataset(40)


def know_half(rows: Dataset) -> dict[str, str]:
    return {row["question"]: row["options"]["ABCD".index(row["answer"])] for row in rows.select(range(20))}


def test_dropped_rows_get_a_kind_and_the_others_none(rows: Dataset, tmp_path: Path) -> None:
    curation = curate(rows, answerer=Explaining(know_half(rows)), rule=circular(), shortcut_kinds=True)
    assert set(curation.splits["text_answerable"]["shortcut_kind"]) == {"external_knowledge"}
    assert set(curation.splits["grounded"]["shortcut_kind"]) == {None}
    num_dropped = curation.report["num_text_answerable"]
    assert num_dropped >= 20
    kinds = dict.fromkeys(SHORTCUT_KINDS, 0) | {"none": 0, "external_knowledge": num_dropped}
    assert curation.report["shortcut_kinds"] == kinds
    assert f"external knowledge           {num_dropped} dropped" in format_table(curation.report)
    loaded = load_dataset(str(curation.save(tmp_path / "out")))
    assert loaded["grounded"].features["shortcut_kind"].dtype == "string"
    assert "and `shortcut_kind`." in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_an_account_that_names_no_kind_is_none_and_counted(rows: Dataset) -> None:
    model = Explaining(know_half(rows))
    model.account = "I could not say"
    curation = curate(rows, answerer=model, rule=circular(), shortcut_kinds=True)
    assert curation.report["shortcut_kinds"]["none"] == curation.report["num_text_answerable"]


def test_an_account_that_failed_raises_or_is_none(rows: Dataset) -> None:
    model = Explaining(know_half(rows))
    model.account = None
    with pytest.raises(AnswerError, match="questions lack an answer, the first because: timed out"):
        GroundFilter(model, circular(), shortcut_kinds=True).fit(rows)
    lenient = GroundFilter(model, circular(), shortcut_kinds=True, on_error="undecided").fit(rows)
    assert set(rows.map(lenient, batched=True)["shortcut_kind"]) == {None}


@pytest.mark.parametrize("how", [{"batched": True, "batch_size": 7}, {"batched": False}], ids=str)
def test_rows_that_were_not_in_the_fit_are_asked_about_too(rows: Dataset, how: dict[str, Any]) -> None:
    ground_filter = GroundFilter(Explaining(know_half(rows)), single_shot(), shortcut_kinds=True)
    fitted = ground_filter.fit(rows.select(range(10)))
    with pytest.warns(UserWarning, match="pass batched=True") if not how["batched"] else nullcontext():
        mapped = rows.map(fitted, **how)
    assert mapped.column_names[-1] == "shortcut_kind"
    assert {name: mapped.features[name] for name in KIND_FEATURES} == dict(KIND_FEATURES)
    for row in mapped:
        assert (row["shortcut_kind"] == "external_knowledge") == (row["is_visually_grounded"] is False)


def test_the_second_question_shows_what_was_asked_and_answered(rows: Dataset) -> None:
    model = Explaining(know_half(rows))
    GroundFilter(model, circular(), shortcut_kinds=True).fit(rows)
    second = [prompt for prompt in model.asked if REASON in prompt.options]
    assert len({prompt.order for prompt in second}) > 1
    text = second[0].text
    assert f"Its question: {rows[0]['question']}" in text
    assert all(f"An option: {option}" in text for option in rows[0]["options"])
    assert f"The answer given: {know_half(rows)[rows[0]['question']]}" in text


def test_the_probe_is_not_asked() -> None:
    with pytest.raises(ValueError, match="the probe cannot say why it could answer; shortcut_kinds goes with a model"):
        GroundFilter(TextBiasProbe(), shortcut_kinds=True)
