"""Any bytes give a result or an error of the package's own, and what was found once stays found."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.questions import make_dataset
from vidground_hf.curated import load_curated
from vidground_hf.curation import curate
from vidground_hf.examples import build_example
from vidground_hf.loading import DataError, open_dataset
from vidground_hf.options import parse_options
from vidground_hf.prediction_files import _read_sample, read_rows
from vidground_hf.reading import read_examples


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed of which some pieces are cut out, repeated, or replaced by others, or bytes without a seed."""
    content = bytearray(draw(st.sampled_from(seeds)))
    pieces = st.sampled_from([b"", b"\x00", b"\xff", b'"', b"{", b"[", b"]", b"null", b"1e999", b"-", b",", b"\n\n"])
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 12)))
        content[start:stop] = draw(st.one_of(pieces, st.binary(max_size=6), st.just(bytes(content[start:stop]) * 2)))
    return bytes(content)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]

    @settings(max_examples=target.num_examples, suppress_health_check=list(HealthCheck))
    @given(st.one_of(damaged(target.make_seeds()), st.binary(max_size=200)))
    def check(data: bytes) -> None:
        target.check(data, tmp_path)

    check()
    gc.collect()  # readers of `datasets` that fail leave their files to it


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_themselves_pass(name: str, tmp_path: Path) -> None:
    for seed in TARGETS[name].make_seeds()[: TARGETS[name].num_examples]:
        TARGETS[name].check(seed, tmp_path)


def test_options_written_as_a_set_of_sets_or_with_mixed_letters_are_unreadable() -> None:
    for cell in ("{{}}", "{1: 'x', 'A': 'y'}", "{(1, 'a'): 'x', ('b', 2): 'y'}"):
        assert parse_options(cell) is None
        example = build_example(row_id=1, question="?", options=cell, answer="A", problem_type="multiple choice")
        assert example.defect == "unreadable_options"


def test_a_whole_number_of_thousands_of_digits_is_no_answer_and_no_option() -> None:
    row = {"row_id": 1, "question": "?", "problem_type": "multiple choice"}
    assert build_example(**row, options=["a", "b"], answer="9" * 5000).defect == "gold_not_among_options"
    assert build_example(**row, options=f"[0x{'f' * 4000}, 2]", answer="B").options == ("", "2")


@pytest.mark.parametrize("spans", [[[1]], "1 to 2", [["a", "b"]], 3, [None], [[1, 2, 3]], [[10**400, 1]]])
def test_a_span_that_is_no_pair_of_seconds_is_left_out(spans: object) -> None:
    assert build_example(row_id=1, question="?", answer="x", evidence_spans=spans).evidence_spans == ()
    assert build_example(row_id=1, question="?", answer="x", evidence_spans=[[0, "2.5"]]).evidence_spans == (
        (0.0, 2.5),
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.csv", b"", "'run.csv' holds no rows; pass a file with one question a row"),
        ("run.json", b"[" * 100_000, "cannot read 'run.json' as json: maximum recursion depth exceeded"),
        ("run.json", b'{"q1": ' + b"9" * 5000 + b"}", "cannot read 'run.json' as json: Exceeds the limit"),
        (
            "run.jsonl",
            b'{"doc_id": 1, "resps": ["A"]}\n{"doc_id": 2}\n',
            "row 1 have no doc_id and answers as the first row has; pass one run's samples",
        ),
    ],
)
def test_a_prediction_file_that_ended_a_run_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_rows(tmp_path / name)


def test_a_line_separator_inside_a_text_ends_no_line_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"id": "q1", "prediction": "one\u2028two\x85three"}\n', encoding="utf-8")
    assert read_rows(path) == [{"id": "q1", "prediction": "one\u2028two\x85three"}]


@pytest.mark.parametrize(
    ("answers", "prediction"),
    [
        ([["x", "True"], ["-1", "False"]], ["x", "True"]),
        ([["-inf", "False"], ["-2.5", "True"]], "B"),
        ("A", "A"),
        ({"0": "B"}, "B"),
        ([], None),
    ],
)
def test_answers_of_a_harness_that_are_no_scores_are_read_as_they_are(answers: object, prediction: object) -> None:
    row = _read_sample({"doc_id": 1, "resps": answers, "arguments": 5})
    assert row["prediction"] == (prediction[0] if isinstance(prediction, list) else prediction)


def test_more_scored_options_than_letters_are_refused() -> None:
    with pytest.raises(ValueError, match="sample 7 has 27 scored options; letters name 26 at most"):
        _read_sample({"doc_id": 7, "resps": [["-1", "False"]] * 27})


def test_text_that_is_no_utf8_names_its_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'{"question": "a", "options": ["x\xff", "y"], "answer": "A"}\n' * 2)
    with pytest.raises(ValueError, match=r"column 'options' holds text that is no UTF-8 .*; save the file as UTF-8"):
        read_examples(open_dataset(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", b"{", "cannot read the report "),
        ("report.json", b"[]", " is no report, it lacks adapter, columns, source; curate the data again"),
        ("README.md", b"---\na: [\n---\n", "cannot read the dataset in "),
        ("data/grounded-00000-of-00001.parquet", b"PAR1", "cannot read the dataset in "),
    ],
)
def test_a_damaged_curated_folder_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    folder = curate(make_dataset(40)).save(tmp_path / "curated")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        load_curated(str(folder))


@pytest.mark.parametrize(
    "damage",
    [
        b"\x02\xc4\xe6\xddxf\xff\xff\xff\xff\xff\xff\xff\xff_\x8e\x1a\xde\xa2\x00\x00",  # claims any length
        b"\x00\x09\x00\x01\x01|",  # NULL for counts of lookups
    ],
)
def test_a_damaged_page_of_the_cache_is_damage(damage: bytes, tmp_path: Path) -> None:
    TARGETS["cache"].check(damage, tmp_path)
