"""The page and the card of a report: right figures in plain words, and strangers' texts that stay text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

import vidground_hf
from vidground_hf.pages import MAX_CARD_GROUPS, MAX_PAGE_GROUPS, describe_metadata, render_card, render_html
from vidground_hf.rendering import MAX_CHARACTERS, clean_text, escape_markdown, format_interval
from vidground_hf.wording import describe_rule, describe_split, list_facts, list_provenance

EXAMPLE = json.loads(Path(__file__).with_name("report_example.json").read_text())
TEMPLATES = Path(vidground_hf.__file__).parent / "templates"
PNG = b"\x89PNG"
LOAD_LINE = 'questions = load_dataset("text", split="grounded")'

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><body onload=alert(1)>",
    "<!-- --><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}${7}<%= 7 %>",
    "---\nlicense: mit\n---",
    "key: [a, {b: c}]  # & *anchor !!python/object:os.system",
    "| a | b |\n|---|---|\n",
    "```\n# heading\n```",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) <http://evil.example>",
    "http://evil.example www.evil.example me@evil.example",
    "- list\n1. list\n> quote\n# heading",
    "$$\\frac{1}{0}$$ \\(x\\) ~~gone~~ `code` **bold** _it_",
    "safe \u202egnp.exe\u202c \u2066x\u2069 \u200b\ufeff",
    "\x00\x07\x1b[31m\x7f\x85\u2028\u2029\ud800\uffff",
    "&lt;script&gt; &#60;b&#62; &amp;",
    "x" * 100_000,
    "\u202e" * 100_000,
    "a\u0301\u0301\u0301\u0301 \U0001f468\u200d\U0001f469 \u05d0\u05d1 漢字",
]
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(min_size=1, max_size=40),
    st.text("<>&\"'|`[](){}#*_-+=.:!\\/~$%@ \n\t\r\x00\u202e\u2028wsh1", min_size=1, max_size=60),
)


@pytest.fixture
def report() -> dict[str, Any]:
    """A report as curating a set of MLVU's size gives it."""
    return copy_report()


def copy_report() -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(EXAMPLE))
    return copied


def plant(text: str) -> dict[str, Any]:
    """The example with one text in the place of every text that a stranger can choose."""
    report = copy_report()
    for rows in report["samples"].values():
        for row in rows:
            row |= {"id": text, "question": text, "options": [text, text], "answer": text, "blind_answer": text}
            row |= {"reason": text, "category": text, "clues": [[text, 0.5]]}
    groups = report["groups"]["category"]
    report["groups"] |= {name: {text: groups["ego"], text + "'": groups["order"]} for name in ("source", "category")}
    report["reasons"]["undecided"] = {text: 2}
    report["leaks"] = {"num_questions": 1, "splits": [text], "examples": [text]}
    report["calibration"]["note"] = text
    report["source"] = {"id": text, "revision": text, "fingerprint": text}
    return report | {"license": text, "answerer": text, "rule": f"rule {text}", "view": text}


class Reader(HTMLParser):
    """Collects what a browser would build: tags with the names of their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


PLAIN_TAGS = Reader(render_html(plant("plain"), {})).tags


def read_front_matter(card: str) -> Any:
    opening, front_matter, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(front_matter)


def count_columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


# --- texts


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain, “quoted” and 漢字 and שלום", "plain, “quoted” and 漢字 and שלום"),
        ("  a\n\tb\r\nc\u2028d\x85e\xa0f ", "a b c d e f"),
        ("\u202egold", "‹U+202E›gold"),
        ("a\x00b\x1b[0m", "a‹U+0000›b‹U+001B›[0m"),
        ("\ud800 \ufeff \u200b \U000e0041", "‹U+D800› ‹U+FEFF› ‹U+200B› ‹U+E0041›"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("\u3164 \u115f\uffa0", "‹U+3164› ‹U+115F›‹U+FFA0›"),
        ("a" + "\u0301" * 7 + "b\u0301", "a" + "\u0301" * 5 + "‹U+0301›‹U+0301›b\u0301"),
        ("a" + "\u0301\u200d" * 6, "a" + "\u0301\u200d" * 5 + "‹U+0301›‹U+200D›"),
        ("\u05d1\u05bc\u05b0\u0596\u05bd", "\u05d1\u05bc\u05b0\u0596\u05bd"),
        ("", ""),
        ("x" * MAX_CHARACTERS, "x" * MAX_CHARACTERS),
        ("x" * 100_000, "x" * MAX_CHARACTERS + "… (99,700 more characters)"),
    ],
)
def test_clean_text(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Which one? (the 2nd, 56.6 %)", "Which one? (the 2nd, 56.6 %)"),
        ("a|b `c` <b> &amp; \\ $x$", "a&#124;b &#96;c&#96; &#60;b&#62; &#38;amp; &#92; &#36;x&#36;"),
        ("*a* _b_ ~c~ {{ d }} [e](f)", "\\*a\\* \\_b\\_ \\~c\\~ \\{\\{ d \\}\\} &#91;e&#93;(f)"),
        ("# one", "\\# one"),
        ("> one", "&#62; one"),
        ("- one - two", "&#45; one - two"),
        ("+ one", "&#43; one"),
        ("---", "&#45;--"),
        ("===", "&#61;=="),
        ("1. one", "1&#46; one"),
        ("12) one", "12&#41; one"),
        ("-5 or 3.5", "-5 or 3.5"),
        ("http://x.org www.x.org a@x.org", "http:&#47;/x.org www&#46;x.org a&#64;x.org"),
        ("//x.org a/b", "&#47;/x.org a/b"),
        ("a\n\n# b", "a \\# b"),
    ],
)
def test_escape_markdown(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


@given(texts)
def test_cleaned_text_is_one_printable_line_of_limited_length(text: str) -> None:
    cleaned = clean_text(text)
    assert all(char.isprintable() or char in "\u200c\u200d" for char in cleaned)
    assert len(cleaned) <= 8 * MAX_CHARACTERS + 40
    cleaned.encode("utf-8")


@given(texts)
def test_escaped_markdown_reads_as_the_cleaned_text(text: str) -> None:
    escaped = escape_markdown(text)
    assert not set("<>|`$[]@").intersection(escaped)
    assert html.unescape(re.sub(r"\\([*_{}#~])", r"\1", escaped)) == clean_text(text)


def test_missing_shares_are_not_zero() -> None:
    assert format_interval(None) == format_interval({"value": None, "low": None, "high": None}) == "–"
    assert format_interval({"value": 0.25, "low": None, "high": None}) == "25.0 %"


# --- words


def test_the_headline_names_every_question(report: dict[str, Any]) -> None:
    assert describe_split(report) == (
        "Of 2,175 questions, text alone answers 511 (23.5 %); 1,662 are kept, and 2 could not be judged."
    )
    counts = {"num_rows": 4, "num_grounded": 3, "num_text_answerable": 1, "num_undecided": 0}
    assert describe_split(report | counts) == "Of 4 questions, text alone answers 1 (25.0 %); 3 are kept."


def test_facts_stand_in_reading_order(report: dict[str, Any]) -> None:
    assert [(fact.name, fact.value) for fact in list_facts(report | {"precision": 0.97, "recall": 0.93})] == [
        ("Right without the video", "56.6 % (54.5 to 58.6)"),
        ("Chance", "25.0 %"),
        ("Best fixed position", "26.2 %"),
        ("Longest option", "34.6 %"),
        ("Shortest option", "23.1 %"),
        ("Right without the video, once curated", "44.1 % (41.7 to 46.5)"),
        ("Right without the video, random removal", "54.9 % (52.5 to 57.3)"),
        ("Lucky drops", "25 of 511"),
        ("Lucky drops of one try", "315 of 1,229"),
        ("Missed", "428"),
        ("Label check", "100.0 %"),
        ("Precision of the drop", "97.0 %"),
        ("Recall of the drop", "93.0 %"),
    ]


def test_the_rule_is_told_with_its_error(report: dict[str, Any]) -> None:
    assert describe_rule(report)[1:] == [
        "At most 5.0 % of luck was allowed. The estimate is 5.0 % (3.9 to 6.3), with its 95 % interval."
    ]
    report["calibration"] |= {"threshold": None, "estimated_error": None, "note": "Too few rows."}
    assert describe_rule(report)[1:] == [
        "No threshold keeps the share of luck at 5.0 % or less, so nothing is dropped.",
        "Too few rows.",
    ]
    single_shot = describe_rule(report | {"rule": "single_shot()", "calibration": None})
    assert [sentence[:65] for sentence in single_shot] == [
        "A question is dropped when one text-only answer is right, which i"
    ]
    assert describe_rule(report | {"rule": "my_rule", "calibration": None}) == []


def test_provenance_says_what_is_unknown(report: dict[str, Any]) -> None:
    rows = dict(list_provenance(report))
    assert rows["Revision"] == "unknown"
    assert rows["Problem types"] == "multiple choice 2,175"
    assert rows["Versions"] == "vidground_hf 0.1.0, datasets 5.2.0, scikit-learn 1.9.1, numpy 2.4.6"


# --- the page


def test_the_page_runs_and_loads_nothing(report: dict[str, Any]) -> None:
    page = render_html(report, {"split": PNG})
    reader = Reader(page)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert [value for value in reader.values if ":" in value and "//" in value] == []
    assert "url(" not in page
    assert "@import" not in page


def test_figures_are_inside_the_page_and_described(report: dict[str, Any]) -> None:
    page = render_html(report, {"split": PNG, "groups": PNG})
    assert page.count("<img ") == page.count('<img src="data:image/png;base64,iVBORw==" alt="') == 2
    assert 'alt="A bar split in three. Of 2,175 questions, text alone answers 511 (23.5\u00a0%);' in page


def test_the_page_shows_the_figures_and_questions(report: dict[str, Any]) -> None:
    text = " ".join(Reader(render_html(report, {})).text.replace("\u00a0", " ").split())
    for shown in (
        "Curation report: mlvu Of 2,175 questions, text alone answers 511 (23.5 %); 1,662 are kept",
        "Lucky drops dropped, though only guessed (expected number) 25 of 511",
        "topic_reasoning 264 149 0 43.6 % 74.2 % (68.7 to 79.1) 25.0 % 35.6 %",
        "text answerable right above threshold 511",
        "What gave it away longest option +1.42 documentary + life +0.61 through +0.33",
        "Gold answer In the drawer Without the video On the bench Bias score 22.0 %",
        "1: 535, 2: 566, 3: 541, 4: 531",
        "3 (splits train , validation ; for example needle_41 , plot_7 )",
        "2 questions have no score; no accuracy counts them.",
    ):
        assert shown in text


def test_the_gold_option_is_marked(report: dict[str, Any]) -> None:
    page = render_html(report, {})
    assert '<li dir="auto" class="gold">Road accident</li>' in page
    assert '<li dir="auto">Ballet</li>' in page


def test_pruning_is_shown_step_by_step(report: dict[str, Any]) -> None:
    steps = [{"num_left": 2000, "blind_accuracy": 0.5}, {"num_left": 1800, "blind_accuracy": 0.25}]
    page = render_html(report | {"pruning": steps}, {})
    assert '<tr><td class="number">1,800</td><td class="number">25.0\u00a0%</td></tr>' in page
    assert "Rounds of removal" not in render_html(report, {})


@pytest.mark.parametrize(
    ("render", "shown"),
    [(render_html, MAX_PAGE_GROUPS), (render_card, MAX_CARD_GROUPS)],
)
def test_many_groups_are_counted(
    report: dict[str, Any], render: Callable[[dict[str, Any], dict[str, bytes]], str], shown: int
) -> None:
    group = report["groups"]["category"]["ego"]
    report["groups"]["source"] = {f"set{index}x": group | {"num_rows": index + 1} for index in range(1060)}
    rendered = render(report, {})
    assert f"{1060 - shown:,} smaller groups are left out here" in rendered
    assert len(re.findall(r"set\d+x", rendered)) == shown
    assert "set1059x" in rendered


def empty_report() -> dict[str, Any]:
    """A report of a set in which nothing could be judged."""
    nothing = {"value": None, "low": None, "high": None}
    missing = (
        "share_grounded chance expected_lucky_drops expected_missed calibration label_invariance distribution license "
        "duplicate_option_share heldout_blind_accuracy random_removal_control pruning precision recall"
    )
    report = copy_report() | dict.fromkeys(missing.split())
    report |= {"num_grounded": 0, "num_text_answerable": 0, "num_undecided": 2175, "blind_accuracy": nothing}
    report |= {
        "floors": dict.fromkeys(report["floors"]),
        "single_shot": {"num_drops": 0, "expected_lucky_drops": None},
    }
    report |= {
        "groups": {},
        "gold_positions": [],
        "flags": {},
        "leaks": {"num_questions": 0, "splits": [], "examples": []},
    }
    report |= {"reasons": {"grounded": {}, "text_answerable": {}, "undecided": {"no_gold": 2175}}}
    report |= {"samples": {"grounded": [], "text_answerable": [], "undecided": []}}
    return report | {"source": {"id": None, "revision": None, "fingerprint": "00"}}


def test_a_report_without_figures_says_so() -> None:
    page = Reader(render_html(empty_report(), {})).text
    assert "Of 2,175 questions, text alone answers 0 (0.0\u00a0%); 0 are kept, and 2,175 could not be judged." in page
    assert "None" not in page
    card = render_card(empty_report(), [])
    assert "| Right without the video | – | blind accuracy" in card
    assert "once curated | not measured |" in card
    assert "None" not in card
    assert [item["split"] for item in read_front_matter(card)["configs"][0]["data_files"]] == ["undecided"]


def test_a_name_that_is_not_there_is_an_error(report: dict[str, Any]) -> None:
    del report["samples"]["grounded"]
    with pytest.raises(UndefinedError, match="has no attribute 'grounded'"):
        render_html(report, {})


# --- the card


def test_front_matter_is_what_was_described(report: dict[str, Any]) -> None:
    card = render_card(report, ["split"])
    data_files = [
        {"split": "grounded", "path": "data/grounded-*.parquet"},
        {"split": "text_answerable", "path": "data/text_answerable-*.parquet"},
        {"split": "undecided", "path": "data/undecided-*.parquet"},
    ]
    assert read_front_matter(card) == {
        "license": "cc-by-nc-sa-4.0",
        "size_categories": "1K<n<10K",
        "task_categories": ["visual-question-answering", "video-text-to-text"],
        "pretty_name": "mlvu, curated",
        "tags": ["video", "video-question-answering", "vidground-hf"],
        "configs": [{"config_name": "default", "data_files": data_files}],
    }
    assert DatasetCard(card).data.to_dict() == describe_metadata(report).to_dict()


@pytest.mark.parametrize(
    ("num_rows", "size"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (300_000, "100K<n<1M"), (2_000_000, "1M<n<10M")],
)
def test_size_category(report: dict[str, Any], num_rows: int, size: str) -> None:
    assert describe_metadata(report | {"num_rows": num_rows}).size_categories == size


def test_only_a_pinned_source_is_named_as_a_dataset(report: dict[str, Any]) -> None:
    assert describe_metadata(report).source_datasets is None
    pinned = report | {"source": {"id": "user/name", "revision": "1a2b", "fingerprint": "00"}}
    assert describe_metadata(pinned).source_datasets == ["user/name"]


def test_the_card_says_what_one_needs_to_trust_it(report: dict[str, Any]) -> None:
    card = render_card(report, ["split", "groups"], command="vidground curate mlvu --output OUT", load_path="me/mlvu")
    for line in (
        "| `text_answerable` | 511 | dropped: text alone answers it |",
        'questions = load_dataset("me/mlvu", split="grounded")',
        "| Right without the video | 56.6 % (54.5 to 58.6) | blind accuracy, with its 95 % interval |",
        "| topic\\_reasoning | 264 | 149 | 0 | 43.6 % | 74.2 % (68.7 to 79.1) | 25.0 % | 35.6 % |",
        "| undecided | gold not among options | 2 |",
        "- Does the surveillance footage contain anything unusual? If so, what kind?",
        "  - what gave it away: longest option, documentary + life, through",
        "    vidground curate mlvu --output OUT",
        "| Rule | calibrated(alpha=0.05) |",
    ):
        assert f"\n{line}\n" in card
    assert re.findall(r"\]\((figures/\w+\.png)\)", card) == ["figures/split.png", "figures/groups.png"]
    assert "arxiv.org/abs/2604.05117" in card
    assert "arxiv.org/abs/2511.04655" in card


def test_a_card_without_command_has_no_code_block_for_it(report: dict[str, Any]) -> None:
    assert "rebuild it\n\n| what | value |" in render_card(report, [])


@pytest.mark.parametrize("num_splits", [1, 2, 3])
def test_load_dataset_opens_the_folder(report: dict[str, Any], tmp_path: Path, num_splits: int) -> None:
    counts = dict(list({"grounded": 3, "text_answerable": 2, "undecided": 1}.items())[:num_splits])
    report |= {f"num_{name}": counts.get(name, 0) for name in ("grounded", "text_answerable", "undecided")}
    folder = tmp_path / "curated"
    (folder / "data").mkdir(parents=True)
    (folder / "figures").mkdir()
    for name, count in counts.items():
        rows = [{"question": f"{name} {index}", "bias_score": None} for index in range(count)]
        Dataset.from_list(rows).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    (folder / "figures" / "split.png").write_bytes(PNG)
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "README.md").write_text(render_card(report, ["split"]), encoding="utf-8")

    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))

    assert {name: rows.num_rows for name, rows in loaded.items()} == counts
    assert loaded["grounded"]["question"][:] == ["grounded 0", "grounded 1", "grounded 2"]


# --- strangers' texts


@settings(deadline=None)
@given(texts)
def test_the_page_keeps_its_tags_whatever_the_texts(text: str) -> None:
    page = render_html(plant(text), {})
    page.encode("utf-8")
    reader = Reader(page)
    assert reader.tags == PLAIN_TAGS
    assert not any(name.startswith("on") for _, names in reader.tags for name in names)
    assert set(reader.values) <= set(Reader(render_html(plant("plain"), {})).values)
    assert clean_text(text).replace(" %", "\u00a0%") in reader.text
    assert all(char.isprintable() or char in "\n\u00a0\u200c\u200d" for char in reader.text)


@settings(deadline=None)
@given(texts)
def test_the_card_keeps_its_shape_whatever_the_texts(text: str) -> None:
    card = render_card(plant(text), ["split"], command=text, load_path=text)
    plain = render_card(plant("plain"), ["split"], command="plain", load_path="plain")
    card.encode("utf-8")
    assert read_front_matter(card) == describe_metadata(plant(text)).to_dict()
    assert read_front_matter(card)["source_datasets"] == [clean_text(text)]
    body, plain_body = card.split("\n---\n", 1)[1], plain.split("\n---\n", 1)[1]
    lines, plain_lines = body.split("\n"), plain_body.split("\n")
    assert [count_columns(line) for line in lines if line.startswith("|")] == [
        count_columns(line) for line in plain_lines if line.startswith("|")
    ]
    in_code = [k for k, line in enumerate(plain_lines) if line in ("    plain", LOAD_LINE.replace("text", "plain"))]
    assert len(lines) == len(plain_lines)
    assert len(in_code) == 2
    assert "<" not in "".join(line for k, line in enumerate(lines) if k not in in_code)
    assert f"- {escape_markdown(text)}\n" in body


def test_templates_print_texts_one_by_one() -> None:
    for template in TEMPLATES.glob("*.j2"):
        assert not re.search(r"\|\s*(safe|join|forceescape|tojson|urlize|xmlattr)\b", template.read_text()), template
