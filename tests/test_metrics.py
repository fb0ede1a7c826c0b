"""The metrics as `evaluate` modules and Spaces: loading, adding, combining, cards, pages and cases."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import pytest
from huggingface_hub import SpaceCard

from vidground_hf import load_metric
from vidground_hf.metric_loading import list_metrics

ROOT = Path(__file__).resolve().parents[1]
LEFT, BOTH = '{"size": [1, 2], "counts": [0, 1, 1]}', '{"size": [1, 2], "counts": [0, 2]}'

# Per metric: columns of three rows, of which the last has no prediction, and two keys with their values.
EXAMPLES: dict[str, tuple[dict[str, list[Any]], dict[str, float]]] = {
    "blind_visual_gap": (
        {
            "predictions": ["A", "B", "<unanswered>"],
            "blind_predictions": ["A", "C", "A"],
            "references": ["A", "B", "B"],
        },
        {"gap": 1 / 3, "num_visual_unanswered": 1},
    ),
    "temporal_grounding": (
        {"predictions": [[[0, 10]], [[4, 6, 0.5]], []], "references": [[[0, 8]], [[3, 5], [20, 30]], [[7, 9]]]},
        {"r1@0.5": 1 / 3, "num_missing": 1},
    ),
    "highlight_detection": (
        {"predictions": [[0.1, 0.9], [0.5, 0.2], []], "references": [[[0], [4]], [[0], [4]], [[4], [0]]]},
        {"hit1@very_good": 1 / 3, "num_missing": 1},
    ),
    "grounded_qa": (
        {
            "predictions": ["A", "B", "<unanswered>"],
            "references": ["A", "C", "A"],
            "windows": [[1, 2], [1, 2], []],
            "reference_windows": [[[1, 3], [5, 6]], [[1, 3]], [[1, 3]]],
        },
        {"acc_gqa": 1 / 3, "num_missing": 1, "num_unanswered": 1},
    ),
    "box_grounding": (
        {"predictions": [[0, 0, 4, 4], [5, 5, 6, 6], []], "references": [[0, 0, 4, 4]] * 3},
        {"acc@0.5": 1 / 3, "num_missing": 1},
    ),
    "object_tracking": (
        {
            "predictions": [[[1, 1, 4, 4]] * 2, [[1, 1, 4, 4], [9, 9, 4, 4]], []],
            "references": [[[1, 1, 4, 4]] * 2] * 3,
        },
        {"ao": 1 / 3, "num_missing": 1},
    ),
    "video_segmentation": (
        {"predictions": [[BOTH, ""], [LEFT, ""], []], "references": [[BOTH, ""], [LEFT, BOTH], [BOTH]]},
        {"j": 0.5, "num_missing": 1},
    ),
}

every_metric = pytest.mark.parametrize("name", EXAMPLES)


@pytest.fixture(autouse=True, scope="module")
def _at_the_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs from the root of the clone, as the cards do, and keeps the files of evaluate away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path_factory.mktemp("metrics")))
        yield


@pytest.fixture(scope="module", params=EXAMPLES)
def loaded(request: pytest.FixtureRequest) -> tuple[str, evaluate.EvaluationModule]:
    return request.param, evaluate.load(f"metrics/{request.param}")


def test_the_package_loads_every_metric_and_says_which_there_are() -> None:
    assert set(list_metrics()) == set(EXAMPLES)
    for name, (columns, expected) in EXAMPLES.items():
        scores = load_metric(name).compute(**columns)
        assert {key: scores[key] for key in expected} == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"no metric 'blind_gap'; allowed are (\w+, )*blind_visual_gap"):
        load_metric("blind_gap")


def test_columns_can_be_computed_at_once_added_one_by_one_or_in_batches(
    loaded: tuple[str, evaluate.EvaluationModule],
) -> None:
    name, metric = loaded
    columns, expected = EXAMPLES[name]
    at_once = metric.compute(**columns)
    assert {key: at_once[key] for key in expected} == pytest.approx(expected)
    assert at_once["num_examples"] == 3
    for row in range(3):
        metric.add(**{key: column[row] for key, column in columns.items()})
    assert metric.compute() == at_once
    for part in (slice(0, 1), slice(1, 3)):
        metric.add_batch(**{key: column[part] for key, column in columns.items()})
    assert metric.compute() == at_once


def test_a_first_row_without_a_prediction_does_not_set_the_types(
    loaded: tuple[str, evaluate.EvaluationModule],
) -> None:
    name, metric = loaded
    columns, expected = EXAMPLES[name]
    for row in (2, 1, 0):
        metric.add_batch(**{key: [column[row]] for key, column in columns.items()})
    scores = metric.compute()
    assert {key: scores[key] for key in expected} == pytest.approx(expected)


def test_metrics_combine(loaded: tuple[str, evaluate.EvaluationModule]) -> None:
    name, metric = loaded
    columns, expected = EXAMPLES[name]
    scores = evaluate.combine({"first": metric, "second": evaluate.load(f"metrics/{name}")}).compute(**columns)
    for key, value in expected.items():
        assert scores[f"first_{key}"] == scores[f"second_{key}"] == pytest.approx(value)


def test_columns_of_different_length_are_refused(loaded: tuple[str, evaluate.EvaluationModule]) -> None:
    name, metric = loaded
    columns, _ = EXAMPLES[name]
    message = r"Mismatch in the number of \w+ \(3\) and references \(2\)|don't match|row 2 stands alone"
    with pytest.raises(ValueError, match=message):
        metric.compute(**columns | {"references": columns["references"][:2]})


def test_keywords_that_the_metric_does_not_have_are_refused(loaded: tuple[str, evaluate.EvaluationModule]) -> None:
    name, metric = loaded
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        metric.compute(**EXAMPLES[name][0], nonsense=1)


def test_examples_of_the_docstring_run(loaded: tuple[str, evaluate.EvaluationModule]) -> None:
    name, metric = loaded
    test = doctest.DocTestParser().get_doctest(metric.inputs_description, {"metric": metric}, name, None, 0)
    result = doctest.DocTestRunner().run(test)
    assert (result.failed, result.attempted > 2) == (0, True)


@every_metric
def test_examples_of_the_card_run(name: str) -> None:
    result = doctest.testfile(str(ROOT / "metrics" / name / "README.md"), module_relative=False)
    assert (result.failed, result.attempted > 5) == (0, True)


def test_the_card_names_every_key_and_only_keys_that_are_there(loaded: tuple[str, evaluate.EvaluationModule]) -> None:
    name, metric = loaded
    keys = {re.sub("_(low|high)$", "", key) for key in metric.compute(**EXAMPLES[name][0])}
    card = (ROOT / "metrics" / name / "README.md").read_text()
    table = card.split("## Output values")[1].split("### Values")[0]
    cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    named = re.findall(r"`([^`]+)`", cells)
    patterns = [re.escape(key).replace("<t>", r"[\d.]+") for key in named]
    unnamed = {key for key in keys if not any(re.fullmatch(pattern, key) for pattern in patterns)}
    optional = {"by_length", "map", "map@0.5", "map@0.95"}
    unknown = {key for key, p in zip(named, patterns, strict=True) if not any(re.fullmatch(p, k) for k in keys)}
    # The ends of a run (`map@0.5` ... `map@0.95`) name what lies between.
    assert {key for key in unnamed if not key.startswith("map@0.")} == set()
    assert unknown <= optional


@every_metric
def test_the_folder_is_a_complete_space(name: str) -> None:
    folder = ROOT / "metrics" / name
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        f"{name}.py",
        "README.md",
        "app.py",
        "requirements.txt",
        "tests.py",
    }
    card = SpaceCard.load(folder / "README.md")
    settings = card.data.to_dict()
    assert (settings["sdk"], settings["app_file"], settings["tags"]) == ("gradio", "app.py", ["evaluate", "metric"])
    assert settings["title"].isascii()
    assert settings["description"].endswith(".")
    sections = re.findall(r"^##+ (.+)$", card.text, flags=re.MULTILINE)
    assert sections == [
        "Metric description",
        "How to use",
        "Inputs",
        "Output values",
        "Values from popular papers",
        "Examples",
        "Limitations and bias",
        "Citation",
        "Further references",
    ]
    assert (folder / "requirements.txt").read_text().startswith("vidground-hf")


def test_cases_of_the_folder_agree(loaded: tuple[str, evaluate.EvaluationModule]) -> None:
    name, metric = loaded
    cases = runpy.run_path(str(ROOT / "metrics" / name / "tests.py"))["test_cases"]
    assert len(cases) == 3
    for case in cases:
        scores = metric.compute(**case["inputs"])
        assert {key: scores[key] for key in case["result"]} == case["result"]


def run_python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_folder_without_the_package_says_what_to_install(tmp_path: Path) -> None:
    for name in EXAMPLES:
        text = (ROOT / "metrics" / name / f"{name}.py").read_text()
        assert re.search(r"^from vidground_hf\.[\w.]+ import \w+  # From: vidground-hf$", text, flags=re.MULTILINE)
    code = (
        "import sys; sys.modules['vidground_hf'] = None\n"
        f"import evaluate; evaluate.load({str(ROOT / 'metrics/grounded_qa')!r})"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert re.search(r"ImportError: .*pip install vidground-hf", done.stderr)


@pytest.mark.slow
@every_metric
def test_the_page_starts_and_computes(name: str) -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the pages need gradio, which is not installed (extra 'app')")
    # A page may run on a server, whose files are not for its visitors.
    refused = {
        "video_segmentation": ('[["mask.png"]]', "no COCO encoding"),
        "blind_visual_gap": ("reference,visual\nA,A", "no column blind; the first line names"),
    }
    bad, message = refused.get(name, ("[", "Expecting value"))
    code = f"""
import json, urllib.request
import app, gradio
_, url, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
with urllib.request.urlopen(url) as page:
    status = page.status
inputs = [component.value for component in app.demo.input_components]
scores = app.compute_scores(*inputs)
try:
    app.compute_scores({bad!r}, *inputs[1:])
except gradio.Error as error:
    refusal = error.message
app.demo.close()
print(json.dumps([status, scores, refusal]))
"""
    done = run_python(code, ROOT / "metrics" / name, GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    status, scores, refusal = json.loads(done.stdout.splitlines()[-1])
    assert status == 200
    assert scores["num_examples"] >= 1
    assert message in refusal
