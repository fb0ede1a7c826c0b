"""The card that a Trainer writes: recipe, training data and gap, once, from a model that is not training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

torch = pytest.importorskip("torch", reason="trains a model; pip install 'vidground-hf[models]'")
pytest.importorskip("accelerate", reason="trains a model; pip install 'vidground-hf[models]'")

from transformers import Trainer, TrainerState, TrainingArguments  # noqa: E402

from tests.tiny_models import save_llama  # noqa: E402
from vidground_hf import measure_gap  # noqa: E402
from vidground_hf.callbacks import GapCardCallback, read_recipe  # noqa: E402

REPORT = json.loads(Path(__file__).with_name("report_example.json").read_text())
TOKEN = "hf_secretsecretsecret"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("model"))


def train(model_folder: Path, output: Path, callback: GapCardCallback, **settings: Any) -> Trainer:
    """Two steps on eight texts of four tokens."""
    from transformers import AutoModelForCausalLM

    rows = [{"input_ids": [k, 2, 3, 4], "labels": [k, 2, 3, 4]} for k in range(8)]
    arguments = TrainingArguments(
        str(output), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-3, use_cpu=True, report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False, save_strategy="no", hub_token=TOKEN, **settings,
    )  # fmt: skip
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(model_folder), arguments, train_dataset=rows, callbacks=[callback]
    )
    trainer.train()
    return trainer


def measure(model: Any) -> dict[str, Any]:
    """A benchmark with the right answer always given with the video, and half of the time without."""
    assert not model.training
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[1, 2]])).logits.shape[:2] == (1, 2)
    gold = ["A", "B", "C", "D"] * 5
    return {"bench/one": measure_gap(gold, ["A", "B", "A", "A"] * 5, gold, num_options=4, num_resamples=50)}


def test_a_trained_model_has_a_card(model_folder: Path, tmp_path: Path) -> None:
    callback = GapCardCallback(measure, base_model="base/model", training_report=REPORT)
    trainer = train(model_folder, tmp_path / "watcher", callback)
    assert trainer.model.training
    card = ModelCard.load(tmp_path / "watcher" / "README.md")
    for line in (
        "# watcher",
        "Trained from base/model to answer questions about videos, on questions that text alone was not shown to "
        "answer.",
        "Of 2,175 questions, text alone answers 511 (23.5 %); 1,662 are kept, and 2 could not be judged.",
        "| steps | 2 |",
        "| epochs | 1.0 |",
        "| learning\\_rate | 0.001 |",
        "| per\\_device\\_train\\_batch\\_size | 4 |",
        "| lr\\_scheduler\\_type | linear |",
    ):
        assert f"\n{line}\n" in card.content
    assert re.search(r"\n\| bench/one \| 20 \| 100\.0 % .* \| 50\.0 % .* \| \+50\.0 points", card.content)
    assert [one.metric_value for one in card.data.eval_results] == [1.0, 0.5, 0.5]
    assert callback.gap_reports["bench/one"]["gap"] == 0.5
    assert TOKEN not in card.content
    assert str(tmp_path) not in card.content


def test_the_card_is_named_after_the_repository(model_folder: Path, tmp_path: Path) -> None:
    train(model_folder, tmp_path, GapCardCallback(measure, base_model="b/m"), hub_model_id="ada/watcher")
    assert "\n# ada/watcher\n" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_what_measuring_raises_is_raised(model_folder: Path, tmp_path: Path) -> None:
    models = []

    def fail(model: Any) -> dict[str, Any]:
        models.append(model)
        raise RuntimeError("the benchmark is gone")

    with pytest.raises(RuntimeError, match="the benchmark is gone"):
        train(model_folder, tmp_path, GapCardCallback(fail, base_model="b/m"))
    assert models[0].training
    assert not (tmp_path / "README.md").exists()


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    measured: list[Any] = []

    def count(model: Any) -> dict[str, Any]:
        measured.append(model)
        return {}

    model = torch.nn.Linear(1, 1)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    for is_main in (False, True):
        state = TrainerState(global_step=1, is_world_process_zero=is_main)
        GapCardCallback(count, base_model="b/m").on_train_end(arguments, state, None, model=model)
        assert (tmp_path / "README.md").exists() == is_main
    assert len(measured) == 2


def test_a_recipe_says_what_was_done_and_nothing_of_the_machine(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", hub_token=TOKEN)
    recipe = read_recipe(arguments, TrainerState(global_step=7, epoch=0.123456))
    assert (recipe["steps"], recipe["epochs"], recipe["world_size"], recipe["bf16"]) == (7, 0.12, 1, False)
    assert "beta" not in recipe
    assert not [value for value in recipe.values() if str(tmp_path) in str(value) or TOKEN in str(value)]
    arguments.beta = 0.04
    assert read_recipe(arguments, TrainerState())["beta"] == 0.04
    assert "epochs" not in read_recipe(arguments, TrainerState(epoch=None))


def test_without_transformers_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import vidground_hf.callbacks"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1] == (
        "ImportError: a callback needs transformers: pip install 'vidground-hf[models]'"
    )
