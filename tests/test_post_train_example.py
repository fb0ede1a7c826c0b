"""The training script, from a curated folder to a model with its card, and the launch settings beside it."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the example trains a model; pip install 'vidground-hf[train]'")
pytest.importorskip("trl", reason="the example trains a model; pip install 'vidground-hf[train]'")

from huggingface_hub import ModelCard  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from tests.grpo_trainers import WARNINGS, reward_every_second, show_images  # noqa: E402
from tests.hub_server import HubServer  # noqa: E402
from tests.tiny_vlms import save_qwen2_5_vl  # noqa: E402
from vidground_hf import curate, make_toy_set, open_dataset, single_shot  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CONFIGS = EXAMPLES / "post_train"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("post_train")
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(autouse=True)
def _send_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # TRL sends usage figures otherwise


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_qwen2_5_vl(tmp_path_factory.mktemp("model") / "tiny")
    show_images("qwen2_5_vl", folder)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_set(tmp_path_factory.mktemp("data") / "toy", num_questions=60, num_clips=12)


@pytest.fixture(scope="module")
def curated(toy: Path) -> Path:
    return curate(open_dataset(toy), rule=single_shot()).save(toy.parent / "curated")


def name_arguments(curated: Path, model: Path, output: Path, **settings: Any) -> list[str]:
    """A command line: two steps on the processor, of two completions of a few tokens each."""
    given: dict[str, Any] = {
        "data": curated,
        "media_root": curated.parent,
        "model_name_or_path": model,
        "output_dir": output,
        "max_steps": 2,
        "eval_steps": 2,
        "save_steps": 1,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,  # which changes weights without a reward
        "max_completion_length": 4,
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "held_out_rows": 6,
        "max_frames": 2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    } | settings
    return [
        part
        for key, value in given.items()
        for part in (f"--{key}", *map(str, value if isinstance(value, list) else [value]))
    ]


def run(script: Any, *paths: Path, **settings: Any) -> Any:
    return script.main(*script.make_parser().parse_args_and_config(name_arguments(*paths, **settings)))


def test_a_curated_folder_becomes_a_model_with_its_card(
    script: Any, curated: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(script.REWARDS, "accuracy", reward_every_second)
    trainer = run(script, curated, model, tmp_path / "watcher")
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "watcher")
    first = AutoModelForImageTextToText.from_pretrained(model)
    assert AutoProcessor.from_pretrained(tmp_path / "watcher").video_processor is not None
    same = [torch.equal(a, b) for a, b in zip(trained.parameters(), first.parameters(), strict=True)]
    assert len(same) - sum(same) > 10

    card = ModelCard.load(tmp_path / "watcher" / "README.md")
    report = json.loads((curated / "report.json").read_text())
    measured = {result.metric_name: result.metric_value for result in card.data.eval_results}
    (log,) = [log for log in trainer.state.log_history if "eval_gap" in log]
    assert measured["blind-visual gap"] == pytest.approx(log["eval_gap"])
    assert f"\n| evaluation rows | {log['eval_gap_num_rows']} |" in card.content
    assert f"Of {report['num_rows']} questions, text alone answers {report['num_text_answerable']} " in card.content
    assert "\n| learning\\_rate | 0.01 |\n" in card.content
    assert str(tmp_path) not in card.content
    assert str(curated.parent) not in card.content

    held = {row.example.group for row in find_callback(trainer, "BlindGapCallback").rows}
    assert held
    assert not held & set(trainer.train_dataset["video"])
    assert set(trainer.train_dataset["curated_split"]) == {"grounded"}
    assert "<think>" in trainer.train_dataset[0]["prompt"][0]["content"]
    assert (trainer.args.epsilon_high, trainer.args.loss_type) == (0.28, "dapo")


def find_callback(trainer: Any, name: str) -> Any:
    return next(one for one in trainer.callback_handler.callbacks if type(one).__name__ == name)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # asked for by peft
def test_adapters_the_look_reward_and_refreshing_go_together_and_go_on(
    script: Any, curated: Path, model: Path, tmp_path: Path
) -> None:
    """The command is given twice, the second time for one more step."""
    settings = {"use_peft": True, "rewards": ["look"], "refresh_every": 1, "blind_gap": False, "save_steps": 1}
    first = run(script, curated, model, tmp_path / "watcher", **settings)
    assert (tmp_path / "watcher" / "adapter_model.safetensors").exists()
    card = (tmp_path / "watcher" / "README.md").read_text()
    assert "How much it looks" not in card
    assert "\n## Training data\n" in card
    assert find_callback(first, "RefreshGrounding").num_refreshes == 1
    assert first.args.eval_strategy == "no"
    assert len(first.train_dataset) == json.loads((curated / "report.json").read_text())["num_grounded"]
    assert "<think>" not in first.train_dataset[0]["prompt"][0]["content"]
    assert any("look_share_of_generations" in log for log in first.state.log_history)

    cut = tmp_path / "watcher" / "checkpoint-7"  # by a crash, while it was written
    cut.mkdir()
    more = run(script, curated, model, tmp_path / "watcher", **settings | {"max_steps": 3})
    before = first.state.log_history[:-1]  # the last line sums up a run that is over
    assert more.state.log_history[: len(before)] == before
    assert {log["step"] for log in more.state.log_history[len(before) :]} == {3}
    assert find_callback(more, "RefreshGrounding").num_refreshes == 1  # the first run's, from its checkpoint
    assert "| steps | 3 |" in (tmp_path / "watcher" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own way of sending a file
def test_the_model_is_pushed_with_its_card(
    script: Any, curated: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with HubServer(tmp_path / "server") as hub, hub.connect(tmp_path / "cache", hub.token("ada")):
        settings = {"max_steps": 1, "save_strategy": "no", "push_to_hub": True, "hub_model_id": "ada/watcher"}
        run(script, curated, model, tmp_path / "watcher", **settings)
        card = hub.read_file("model", "ada/watcher", "README.md").decode()
        assert hub.read_file("model", "ada/watcher", "model.safetensors")
    assert card == (tmp_path / "watcher" / "README.md").read_text()
    assert "blind-visual gap" in card


def test_what_a_newcomer_gets_wrong_is_said_before_a_model_is_loaded(
    script: Any, curated: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(message: str, data: Path = curated, **settings: Any) -> None:
        with pytest.raises(script.DataError, match=re.escape(message)):
            run(script, data, Path("no model"), tmp_path / "out", **settings)

    no_folder = "pass a folder that `vidground curate DATA --output DIR` wrote, or the id of one on the Hub, user/name"
    fail(f"no curated set in {str(tmp_path / 'none')!r}; {no_folder}", tmp_path / "none")
    fail(f"no curated set in {str(curated.parent)!r}; {no_folder}", curated.parent)
    fail("no rows in split all; the set has ", splits=["all"])
    fail("12 of 12 videos are not there, 'videos/clip_0000.mp4' first; pass --media_root", media_root=".")
    fail("no rows left to train on: 60 of 60 are held out to measure the gap on; pass fewer", held_out_rows=60)
    with pytest.raises(SystemExit):
        run(script, curated, model, tmp_path / "out", rewards=["acuracy"])
    assert "argument --rewards: invalid choice: 'acuracy' (choose from" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_line_runs_under_accelerate_and_errors_are_one_line(
    curated: Path, model: Path, tmp_path: Path
) -> None:
    def launch(**settings: Any) -> Any:
        start = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--cpu", "--config_file"]
        command = [*start, str(CONFIGS / "one_gpu.yaml"), "--mixed_precision", "no", str(EXAMPLES / "post_train.py")]
        arguments = name_arguments(curated, model, tmp_path / "out", **settings)
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    done = launch(max_steps=1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "blind-visual gap" in (tmp_path / "out" / "README.md").read_text()
    failed = launch(data="none")
    assert failed.returncode == 1
    assert "\npost_train.py: no curated set in 'none'; pass a folder" in "\n" + failed.stderr


@pytest.mark.parametrize(
    ("name", "kind", "num_processes", "parts"),
    [
        ("one_gpu", "NO", 1, {}),
        ("eight_gpus", "MULTI_GPU", 8, {}),
        ("zero2", "DEEPSPEED", 8, {"zero_stage": 2}),
        ("zero3", "DEEPSPEED", 8, {"zero_stage": 3, "zero3_init_flag": True, "zero3_save_16bit_model": True}),
        ("fsdp2", "FSDP", 8, {"fsdp_version": 2, "fsdp_state_dict_type": "FULL_STATE_DICT"}),
    ],
)
def test_launch_settings_are_read_by_accelerate(
    name: str, kind: str, num_processes: int, parts: dict[str, Any]
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    found = config.deepspeed_config | config.fsdp_config
    assert (config.distributed_type, config.num_processes, config.mixed_precision) == (kind, num_processes, "bf16")
    assert {key: found.get(key) for key in parts} == parts
    assert bool(found) == bool(parts)


def test_every_launch_setting_is_tested_and_told_of() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names == {"one_gpu", "eight_gpus", "zero2", "zero3", "fsdp2"}
    text = (EXAMPLES / "sft_then_grpo.md").read_text()
    assert all(f"{name}.yaml" in text for name in names)
