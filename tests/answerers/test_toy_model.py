"""A language model that has learned what text gives away finds the planted questions, asked in this process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from datasets import Dataset

pytest.importorskip("torch", reason="needs torch and transformers; pip install 'vidground-hf[models]'")

from tests.toy_model import make_toy_model
from vidground_hf import curate
from vidground_hf.answerers.transformers_lm import TransformersAnswerer
from vidground_hf.report import compare_with_truth
from vidground_hf.set_rules import calibrated
from vidground_hf.toy_questions import generate_questions
from vidground_hf.toy_world import generate_clips


@pytest.mark.slow
def test_planted_text_answerable_questions_are_found(tmp_path: Path) -> None:
    make_toy_model(tmp_path)
    questions = generate_questions(generate_clips(seed=11, num_clips=200), num_questions=1000, seed=11)
    toy_set = Dataset.from_list([asdict(question) for question in questions])
    curation = curate(toy_set, answerer=TransformersAnswerer(str(tmp_path)), rule=calibrated(alpha=0.05))
    truth = compare_with_truth(curation.splits)
    # With three models and three sets precision was 0.957 to 0.987 and recall 0.990 to 1.
    assert truth["precision"] is not None
    assert truth["precision"] >= 0.95
    assert truth["recall"] is not None
    assert truth["recall"] >= 0.97
    # What is answered right is asked again under other orders, the rest only now and then.
    assert 1500 < curation.report["calls"]["asked"] < 3000
