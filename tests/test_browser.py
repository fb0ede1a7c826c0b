"""Strangers' texts in a real browser: pages and cards run nothing, load nothing, and show the texts as they are.

Needs Debian's chromium and chromium-driver and the package selenium; skipped with a reason where they are missing.
The picture of the page in `docs/images/hostile_report.png` is taken with

    VIDGROUND_SCREENSHOT=docs/images/hostile_report.png pytest tests/test_browser.py -k picture
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
import yaml  # type: ignore[import-untyped]
from datasets import Dataset
from markdown_it import MarkdownIt

from tests.hostile_texts import HOST, RUN, make_hostile_texts
from vidground_hf import curate, measure_gap, pages, report, single_shot
from vidground_hf.folders import write_report
from vidground_hf.gap_report import render_gap_page
from vidground_hf.model_cards import render_model_card
from vidground_hf.pages import render_card, render_html
from vidground_hf.rendering import clean_text

webdriver = pytest.importorskip("selenium.webdriver", reason="needs a browser; pip install selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="needs a browser; apt-get install chromium chromium-driver"
    ),
]

NUM_TEXTS = 500
WIDE, NARROW = (1200, 900), (390, 900)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-device-scale-factor=1"
)
_LIST_ELEMENTS = """
return [...document.querySelectorAll("*")].map(one => [one.namespaceURI, one.localName,
    ...[...one.attributes].map(each => [each.name, each.value.replace(/^(data:image.png;base64,).*/, "$1")])])"""
_FIND_OVERFLOW = """
const edge = document.querySelector("main").getBoundingClientRect().right + 1;
const late = [...document.querySelectorAll("main *")].filter(one => !one.closest(".scroll")
    && one.getBoundingClientRect().right > edge).map(one => one.localName + ": " + one.textContent.slice(0, 80));
const root = document.scrollingElement;
return [root.scrollWidth - root.clientWidth, late]"""
_READ_LAST_SECTION = """
const last = [...document.querySelectorAll("h2")].at(-1);
last.scrollIntoView({block: "center"});
const box = last.getBoundingClientRect();
return [last.textContent, document.elementFromPoint(box.left + 5, box.top + box.height / 2) === last]"""

_READ_EXAMPLES = """
const title = [...document.querySelectorAll("p")].find(one => one.textContent === "Some that were dropped:");
return [...title.nextElementSibling.children].map(one => one.childNodes[0].textContent.trimEnd())"""


class Case(NamedTuple):
    """One document with strangers' texts, and its twin with plain words in their places."""

    hostile: str
    plain: str


class Browser:
    """Chromium without a window, and what it logged."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*_FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        options.set_capability("unhandledPromptBehavior", "ignore")  # an alert makes every later command fail
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.set_page_load_timeout(60)

    def open(self, path: Path, size: tuple[int, int] = WIDE) -> None:
        """Opens a page in a tab of its own, so that nothing is left of the one before."""
        self.driver.switch_to.new_window("tab")
        self.driver.set_window_size(*size)
        self._read_log("performance")
        self._read_log("browser")
        self.driver.get(path.as_uri())
        time.sleep(0.2)  # for what a page starts after it has loaded

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def list_elements(self) -> list[Any]:
        return list(self.run(_LIST_ELEMENTS))

    def list_requests(self) -> list[str]:
        """Addresses asked for since the page was opened; not those embedded in it, or refused by its policy."""
        events = [json.loads(entry["message"])["message"] for entry in self._read_log("performance")]
        asked = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
        refused = {one["params"]["requestId"] for one in events if one["params"].get("blockedReason") == "csp"}
        urls = [one["request"]["url"] for one in asked if one["requestId"] not in refused]
        return [url for url in urls if not url.startswith("data:")]

    def list_complaints(self) -> list[str]:
        """What the browser wrote to its console, such as refusals of the content security policy."""
        return [entry["message"] for entry in self._read_log("browser")]

    def has_run(self) -> bool:
        return bool(self.run("return window.name === 'ran' || document.title === 'ran'"))

    def _read_log(self, kind: str) -> list[dict[str, Any]]:
        return list(self.driver.get_log(kind))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.driver.quit()


def make_rows() -> list[dict[str, Any]]:
    """A row for each hostile text, with hostile options, answers, ids and categories.

    Arrow stores UTF-8, which lone surrogates are not: they are planted in the report.
    """
    texts = [text.encode("utf-8", "ignore").decode() for text in make_hostile_texts(NUM_TEXTS)]
    rows = []
    for index, text in enumerate(texts):
        others = [texts[(index * 7 + step) % NUM_TEXTS] for step in (1, 2, 3)]
        if index % 10 == 0:
            cells: dict[str, Any] = {"options": None, "answer": others[0], "problem_type": "free-form"}
        elif index % 10 == 1:
            cells = {"options": others, "answer": "not there", "problem_type": "multiple choice"}
        else:
            cells = {"options": [f"{k} {one}" for k, one in enumerate(others)], "answer": "ABC"[index % 3]}
            cells["problem_type"] = "multiple choice"
        source, category = texts[index % 40], texts[-1 - index % 30]
        rows.append(
            {"id": f"{index} {text}", "video": f"{index // 3}.mp4", "question": text, **cells}
            | {"data_source": source, "category": category}
        )
    return rows


@pytest.fixture(scope="module")
def curated() -> dict[str, Any]:
    """The report of a curation in which every text is shown, not only a sample."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SAMPLE_SIZE", NUM_TEXTS)
        names = ("id", "video", "question", "options", "answer", "category")
        columns = {"source": "data_source", "type": "problem_type", **{name: name for name in names}}
        made = curate(Dataset.from_list(make_rows()), columns=columns, rule=single_shot()).report
    name = "\ud800</title><script>" + make_hostile_texts(1)[0]
    made["source"] |= {"id": name, "revision": "\n---\nlicense: mit\n---\n<b>"}
    made["license"] = "mit\n---\n# <script>alert(1)</script>"
    for row, text in zip(made["samples"]["grounded"], make_hostile_texts(NUM_TEXTS), strict=False):
        if not text.isascii():
            row["blind_answer"] = text
    return made | {"command": "vidground curate '```\n</code><script>alert(1)</script>\ud800'"}


def list_shown(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in made["samples"].values() for row in rows]


def tame(made: dict[str, Any]) -> dict[str, Any]:
    """The same report with a plain word in the place of every text of a stranger; equal texts stay equal."""
    words: dict[str, str] = {}

    def name(text: Any) -> Any:
        return words.setdefault(text, f"word {len(words)}") if isinstance(text, str) else text

    tamed: dict[str, Any] = json.loads(json.dumps(made))
    for row in list_shown(tamed):
        row |= {key: name(row[key]) for key in ("id", "question", "answer", "blind_answer", "category")}
        row |= {
            "options": [name(text) for text in row["options"]],
            "clues": [[name(text), weight] for text, weight in row["clues"]],
        }
    for key in ("source", "category"):
        tamed["groups"][key] = {name(group): figures for group, figures in tamed["groups"][key].items()}
    tamed["source"] |= {"id": "plain", "revision": "plain"}
    return tamed | {"license": "plain", "command": "plain"}


@pytest.fixture(scope="module")
def folder(curated: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as `curate` writes it, but with all texts in page and card."""
    written = tmp_path_factory.mktemp("curated")
    with pytest.MonkeyPatch.context() as patch:
        show_everything(patch)
        write_report(curated, written)
    return written


def show_everything(patch: pytest.MonkeyPatch) -> None:
    for limit in ("MAX_PAGE_GROUPS", "MAX_CARD_GROUPS", "MAX_CARD_EXAMPLES"):
        patch.setattr(pages, limit, NUM_TEXTS)


@pytest.fixture(scope="module")
def cases(curated: dict[str, Any], folder: Path) -> dict[str, Case]:
    texts = make_hostile_texts(NUM_TEXTS)
    figures = {path.stem: path.read_bytes() for path in (folder / "figures").iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        show_everything(patch)
        plain_page, plain_card = render_html(tame(curated), figures), render_card(tame(curated), figures)
    gold = ["A"] * NUM_TEXTS
    gap = measure_gap(gold, ["B"] * NUM_TEXTS, gold, num_options=4, num_resamples=50)
    return {
        "report": Case((folder / "report.html").read_text(encoding="utf-8"), plain_page),
        "card": Case((folder / "README.md").read_text(encoding="utf-8"), plain_card),
        "gap": Case(*(make_gap_page(gap, some) for some in (texts, [f"word {k}" for k in range(NUM_TEXTS)]))),
        "model card": Case(*(make_model_card(gap, some) for some in (texts, [f"w{k}" for k in range(NUM_TEXTS)]))),
    }


def make_gap_page(gap: dict[str, Any], texts: list[str]) -> str:
    figures = {key: value for key, value in gap.items() if key != "groups"}
    sources = {f"file {k}": text for k, text in enumerate(texts[::10])}
    return render_gap_page(gap | {"groups": dict.fromkeys(texts[:20], figures)}, {"missing": texts[:50]}, sources)


def make_model_card(gap: dict[str, Any], texts: list[str]) -> str:
    recipe = {f"{text} ": text for text in texts}
    return render_model_card(texts[0], dict.fromkeys(texts, gap), base_model=texts[1], recipe=recipe)


def write_page(document: str, name: str, folder: Path) -> Path:
    """Writes a document for the browser; a card as a renderer shows it that lets HTML through, in a bare page."""
    if "card" in name:
        renderer = MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(
            ["table", "strikethrough", "linkify"]
        )
        assert renderer.linkify is not None
        renderer.linkify.set({"fuzzy_link": False})
        body = renderer.render(document.split("\n---\n", 1)[1])
        document = f"<!doctype html><meta charset='utf-8'><title>card</title>\n<main>{body}</main>"
    path = folder / f"{name} page.html"
    path.write_text(document, encoding="utf-8")
    return path


# --- the browser itself: what follows proves nothing unless these attempts work where nothing stops them


@pytest.mark.parametrize(
    "attempt",
    [
        f"<script>{RUN}</script>",
        f'<img src="data:," onerror="{RUN}">',
        f'<svg onload="{RUN}">',
        f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
        f'<iframe src="javascript:parent.{RUN}"></iframe>',
        f"<link rel=stylesheet href=http://{HOST}/s.css>",
        f"<img src=http://{HOST}/i.png>",
        f"<style>body {{ background: url(http://{HOST}/p) }}</style>",
        f"<object data=http://{HOST}/o></object>",
        f'<base href=http://{HOST}/><img src="x.png">',
    ],
)
def test_the_policy_is_a_second_wall(browser: Browser, cases: dict[str, Case], tmp_path: Path, attempt: str) -> None:
    page = cases["report"].plain
    assert page.count("<main>") == 1
    doctored = page.replace("<main>", f"<main>{attempt}")
    path = write_page(doctored.replace("Content-Security-Policy", "nothing"), "doctored", tmp_path)
    browser.open(path)
    assert browser.has_run() or any(HOST in url for url in browser.list_requests())
    write_page(doctored, "doctored", tmp_path)
    browser.open(path)
    assert not browser.has_run()
    assert not any(HOST in url for url in browser.list_requests())
    assert any("Content Security Policy" in message for message in browser.list_complaints())


# --- pages and cards


@pytest.mark.parametrize("name", ["report", "card", "gap", "model card"])
def test_nothing_runs_loads_or_becomes_markup(
    browser: Browser, cases: dict[str, Case], folder: Path, name: str
) -> None:
    seen = {}
    for kind, document in cases[name]._asdict().items():
        path = write_page(document, name, folder)
        browser.open(path)
        seen[kind] = browser.list_elements()
        pictures = [unquote(url) for url in browser.list_requests()]
        assert pictures[0] == f"file://{path}"
        assert set(pictures[1:]) <= {f"file://{one}" for one in (folder / "figures").iterdir()}
        assert not browser.has_run()
        assert browser.list_complaints() == []
    assert seen["hostile"] == seen["plain"]
    assert len(seen["plain"]) > NUM_TEXTS or name == "gap"
    assert not [each for one in seen["hostile"] for each in one[2:] if each[0].startswith("on")]


def test_the_page_shows_every_text_as_it_is(
    browser: Browser, cases: dict[str, Case], curated: dict[str, Any], folder: Path
) -> None:
    browser.open(write_page(cases["report"].hostile, "report", folder))
    rows = list_shown(curated)
    assert len({row["question"] for row in rows}) == len(rows) == NUM_TEXTS

    def show(text: str) -> str:
        return clean_text(text).replace(" %", "\u00a0%")

    def read(selector: str) -> list[str]:
        return list(browser.run(f"return [...document.querySelectorAll('{selector}')].map(one => one.textContent)"))

    assert read("summary > span") == [show(row["question"]) for row in rows]
    assert read(".options > li") == [show(option) for row in rows for option in row["options"]]
    assert read(".clue > bdi") == [show(text) for row in rows for text, _ in row["clues"]]
    assert read("details dd:last-child > bdi:first-child") == [show(row["id"]) for row in rows]
    assert read("details dd:last-child > bdi + bdi") == [show(row["category"]) for row in rows]
    answers = [row[key] for row in rows for key in ("answer", "blind_answer")]
    assert read("details dd[dir]") == ["–" if text is None else show(text) for text in answers]
    assert browser.driver.title == f"{clean_text(curated['source']['id'])}: curation report"


def test_the_card_shows_every_text_as_it_is(
    browser: Browser, cases: dict[str, Case], curated: dict[str, Any], folder: Path
) -> None:
    browser.open(write_page(cases["card"].hostile, "card", folder))
    shown = browser.run(_READ_EXAMPLES)
    dropped = [clean_text(row["question"]) for row in curated["samples"]["text_answerable"]]
    assert len(dropped) > 100
    assert shown == dropped


def test_the_front_matter_has_the_same_keys(cases: dict[str, Case], curated: dict[str, Any]) -> None:
    for name in ("card", "model card"):
        hostile, plain = (yaml.safe_load(text.split("\n---\n", 1)[0]) for text in cases[name])
        assert list(hostile) == list(plain)
    front = yaml.safe_load(cases["card"].hostile.split("\n---\n", 1)[0])
    assert front["license"] == clean_text(curated["license"])
    assert front["source_datasets"] == [clean_text(curated["source"]["id"])]


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["report", "gap"])
def test_the_layout_holds(
    browser: Browser, cases: dict[str, Case], folder: Path, name: str, size: tuple[int, int]
) -> None:
    browser.open(write_page(cases[name].hostile, name, folder), size)
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.run(_FIND_OVERFLOW) == [0, []]
    assert browser.run(_READ_LAST_SECTION) == ["Where it comes from", True]


def test_the_picture_can_be_taken(browser: Browser, cases: dict[str, Case], folder: Path, tmp_path: Path) -> None:
    browser.open(write_page(cases["report"].hostile, "report", folder), size=(1200, 1400))
    browser.run(
        "[...document.querySelectorAll('h2')].find(one => one.textContent === 'Questions to browse').scrollIntoView()"
    )
    browser.run("[...document.querySelectorAll('details')].slice(0, 2).forEach(one => one.open = true)")
    picture = Path(os.environ.get("VIDGROUND_SCREENSHOT") or tmp_path / "picture.png")
    assert browser.driver.save_screenshot(str(picture))
    assert picture.stat().st_size > 10_000
