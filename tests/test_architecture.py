from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "vidground_hf"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "metrics" not in path.parts)

# A module imports only from the floors below its own; a folder stands for all that is in it.
FLOORS = [
    {"schema", "media", "mounts", "locks", "model_files", "frame_sampling", "video_errors"},
    {"stats", "video_sources"},
    {"video_index"},
    {
        "options",
        "extraction",
        "numbering",
        "drawing",
        "prompts",
        "orders",
        "trials",
        "rows",
        "fits",
        "rendering",
        "metric_loading",
        "tables",
        "origin",
        "sharing",
        "command_line",
        "ladder_needs",
        "shards",
        "video_pyav",
        "video_torchcodec",
        "video_decord",
        "video_pictures",
    },
    {"video_backends"},
    {"video_reading"},
    {"frame_process"},
    {"video", "frame_loading"},
    {"task_preference"},
    {
        "examples",
        "scoring",
        "answerers",
        "rules",
        "toy_world",
        "toy_questions",
        "wording",
        "gap_checks",
        "prediction_files",
        "environment",
        "media_identity",
    },
    {"cache", "set_rules", "progress", "benchmark_layouts", "grpo_checks", "grpo_media", "grpo_recipe", "grpo_vllm"}
    | {"trial_tables"},
    {"benchmark_settings", "layouts", "judging", "rule_parsing", "toy", "figures", "gap", "pairing"},
    {"adapters", "deciding", "pages", "hub_errors", "grpo_prompts"},
    {"asking", "hub", "reading", "wrong_videos", "grpo_sharing"},
    {"shortcut_kinds", "request_counts", "grpo_sight", "facts"},
    {"lookup", "shard_asking"},
    {"judgement"},
    {"loading", "filtering", "predictions", "ladder_pages"},
    {"benchmark_data", "ladder"},
    {"benchmark_asking", "ladder_checks", "ladder_report"},
    {"luck", "tally", "folders", "gap_report", "id_rows", "eval_results", "benchmark_table"},
    {"report", "publishing", "curated", "model_cards", "benchmark_verdicts", "benchmark_report"},
    {"rewards", "post_training"},
    {"callbacks_asking", "callbacks_clock", "callbacks_rows"},
    {"callbacks_record"},
    {"callbacks_gap", "callbacks_refresh"},
    {"curation", "callbacks", "benchmark", "grpo", "ray_keeper"},
    {"ladder_curation", "ray_workers"},
    {"ray_engine"},
    {"ladder_command", "answerer_options", "engine_options"},
    {"gap_command", "cache_command", "push_command"},
    {"curate_command"},
    {"bench_command"},
    {"cli"},
]
HEAVY = ("torch", "transformers", "trl", "vllm", "ray", "torchcodec", "decord", "gradio")


def find_floor(module: str) -> int:
    return next(floor for floor, names in enumerate(FLOORS) if module.split(".")[0] in names)


def name_module(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def list_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vidground_hf."):
            found.add((node.module or "").removeprefix("vidground_hf."))
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if name_module(path)], ids=name_module)
def test_imports_point_down(path: Path) -> None:
    module = name_module(path)
    for imported in list_imports(path):
        same_folder = module.split(".")[0] == imported.split(".")[0]
        same_pair = {module, imported} <= {"toy_world", "toy_questions"}
        assert same_folder or same_pair or find_floor(imported) < find_floor(module), f"{module} imports {imported}"


def test_answerers_import_only_their_base() -> None:
    for path in (SOURCE / "answerers").glob("[a-z]*.py"):
        family = path.stem.split("_")[0]
        for imported in list_imports(path):
            if imported.startswith("answerers."):
                other = imported.removeprefix("answerers.")
                assert other == "base" or other.split("_")[0] == family or family == "probe", (
                    f"{path.name}: {imported}"
                )


def test_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidground_hf, vidground_hf.cli, vidground_hf.curation, vidground_hf.toy\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_none_of_its_modules() -> None:
    code = (
        "import sys, vidground_hf\nprint([m for m in sys.modules if m.startswith('vidground_hf.') or m == 'datasets'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_and_functions_stay_small() -> None:
    lengths = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        lengths.append(len(text.splitlines()))
        assert lengths[-1] <= 400, f"{path.name} has {lengths[-1]} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                assert size <= 80, f"{path.name}: {node.name} has {size} lines"
    assert sorted(lengths)[len(lengths) // 2] <= 150


def test_every_public_name_is_there() -> None:
    import vidground_hf

    assert all(getattr(vidground_hf, name) is not None for name in vidground_hf.__all__)
    assert vidground_hf.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'; it has ADAPTERS, "):
        vidground_hf.nothing  # noqa: B018
