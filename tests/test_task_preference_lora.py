from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference needs torch; pip install 'vidground-hf[models]'")
peft = pytest.importorskip("peft", reason="a LoRA needs peft; pip install 'vidground-hf[train]'")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.task_preference_models import Request, make_batch, make_fresh_model  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.task_preference.adapters_lora import (  # noqa: E402
    ADAPTER_FOLDER,
    add_lora,
    load_adapter,
    name_plainly,
    save_adapter,
)
from vidground_hf.task_preference.modeling import TaskPreferenceModel  # noqa: E402
from vidground_hf.task_preference.targets import Targets  # noqa: E402

REQUESTS = [
    Request("Where?", seed=1, answer="<|box|><|box_state|> there"),
    Request("What is it, and of which colour?", seed=2, answer="A red ball"),
]


def make_training_batch(processor: Any) -> dict[str, Any]:
    batch, media = make_batch(processor, REQUESTS)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    targets = Targets(box_rows=torch.tensor([0]), boxes=torch.tensor([[0.1, 0.2, 0.6, 0.9]]))
    return batch | {"media": media, "labels": labels, "targets": targets}


def train(model: Any, processor: Any, num_steps: int = 2) -> None:
    """A few large steps of all that may move."""
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.05)
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(**make_training_batch(processor)).loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def run(model: Any, processor: Any) -> list[Any]:
    batch = make_training_batch(processor)
    output = model(**batch)
    return [output.logits, output.box, output.loss]


def read_rows(model: Any) -> list[Any]:
    """The weights of input and output embeddings as they work now."""
    return [
        model.vlm.get_input_embeddings().weight.detach().clone(),
        model.vlm.get_output_embeddings().weight.detach().clone(),
    ]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_on_the_language_model_alone_with_the_rows_of_the_tokens(family: str, tied: bool) -> None:
    model, processor = make_fresh_model(family, tied=tied)
    before = run(model, processor)
    add_lora(model, rank=4, alpha=8, dropout=0.0)
    assert model.config.lora == {"rank": 4, "alpha": 8, "dropout": 0.0}
    assert all(torch.equal(mine, other) for mine, other in zip(run(model, processor), before, strict=True))
    moving = {name for name, weight in model.vlm.named_parameters() if weight.requires_grad}
    deltas = {name for name in moving if "trainable_tokens_delta" in name}
    num_layers = len(model.vlm.get_decoder().layers)
    assert len(moving - deltas) == num_layers * 7 * 2
    assert all(".layers." in name and "lora_" in name for name in moving - deltas)
    assert not any(re.search("visual|vision|connector|projector", name) for name in moving)
    assert len(deltas) == (1 if tied else 2)

    rows = read_rows(model)
    train(model, processor)
    ids = sorted([*model.config.trigger_token_ids.values(), *model.config.task_token_ids.values()])
    for old, new in zip(rows, read_rows(model), strict=True):
        changed = (old != new).any(1).nonzero()[:, 0].tolist()
        assert set(changed) <= set(ids)
        assert {model.config.trigger_token_ids["box"], model.config.task_token_ids["box"]} <= set(changed)
    if tied:
        assert torch.equal(*read_rows(model))


SLOW_FAMILIES = [
    family if family == "qwen2_5_vl" else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES
]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", SLOW_FAMILIES)
def test_it_is_saved_and_loaded_to_the_bit(family: str, tied: bool, tmp_path: Path) -> None:
    model, processor = make_fresh_model(family, tied=tied)
    add_lora(model, rank=2, alpha=4, dropout=0.1)
    train(model, processor)
    model.save_pretrained(tmp_path)
    loaded, report = TaskPreferenceModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert not loaded.training
    assert loaded.config.lora == {"rank": 2, "alpha": 4, "dropout": 0.1}
    wanted = run(model, processor)
    assert all(torch.equal(mine, other) for mine, other in zip(run(loaded, processor), wanted, strict=True))
    saved = load_file(tmp_path / "model.safetensors")
    bare = TaskPreferenceModel(loaded.config).state_dict()
    assert {key for key in saved if "lora_" not in key and "trainable" not in key} == {
        key for key in bare if not (tied and key.endswith("lm_head.weight"))
    }

    # As a trainer that resumes does.
    resumed, _ = make_fresh_model(family, tied=tied)
    add_lora(resumed, rank=2, alpha=4, dropout=0.1)
    with torch.no_grad():
        for weight in resumed.parameters():
            weight.add_(0.1)
    found = resumed.load_state_dict(saved, strict=False)
    assert not found.unexpected_keys
    assert all(torch.equal(mine, other) for mine, other in zip(run(resumed.eval(), processor), wanted, strict=True))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_it_can_be_put_on_the_bare_model_by_peft(tmp_path: Path) -> None:
    model, processor = make_fresh_model("qwen2_5_vl")
    add_lora(model)
    train(model, processor)
    save_adapter(model, tmp_path)
    other, _ = make_fresh_model("qwen2_5_vl")
    wrapped = peft.PeftModel.from_pretrained(other.vlm, tmp_path)
    batch, _ = make_batch(processor, REQUESTS)
    with torch.no_grad():
        assert torch.equal(wrapped.eval()(**batch).logits, model.vlm(**batch).logits)


def test_it_can_be_trained_on_after_loading(tmp_path: Path) -> None:
    model, processor = make_fresh_model("internvl")
    add_lora(model, dropout=0.0)
    train(model, processor, 1)
    model.save_pretrained(tmp_path)
    loaded = TaskPreferenceModel.from_pretrained(tmp_path)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name, weight in loaded.named_parameters() if weight.requires_grad} == names
    for one in (model, loaded):
        train(one, processor, 1)
    for mine, other in zip(run(loaded, processor), run(model, processor), strict=True):
        torch.testing.assert_close(mine, other)


def test_a_second_one_is_refused() -> None:
    model, _ = make_fresh_model("internvl")
    add_lora(model)
    with pytest.raises(ValueError, match=re.escape("the model has a LoRA; train on with it")):
        add_lora(model)


@pytest.mark.slow
def test_an_adapter_that_does_not_fill_the_model_is_refused(tmp_path: Path) -> None:
    model, _ = make_fresh_model("internvl")
    add_lora(model)
    model.save_pretrained(tmp_path)
    file = tmp_path / ADAPTER_FOLDER / "adapter_model.safetensors"
    tensors = load_file(file)
    gone = [name for name in tensors if "lora_B" in name]
    save_file({name: tensor for name, tensor in tensors.items() if name not in gone}, file, metadata={"format": "pt"})
    message = f"does not fit: {len(gone)} of its tensors are missing and 0 belong nowhere"
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskPreferenceModel.from_pretrained(tmp_path)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    model, _ = make_fresh_model("internvl")
    add_lora(model)
    save_adapter(model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"base_model.model.other.lora_A.weight": torch.ones(2, 2)}, file, metadata={"format": "pt"})
    other, _ = make_fresh_model("internvl")
    with pytest.raises(ValueError, match=re.escape("0 of its tensors are missing and 1 belong nowhere")):
        load_adapter(other, str(tmp_path))


def test_names_are_those_of_before() -> None:
    names = {
        "vlm.lm_head.token_adapter.base_layer.weight": "vlm.lm_head.weight",
        "a.embed_tokens.original_module.weight": "a.embed_tokens.weight",
        "a.q_proj.base_layer.bias": "a.q_proj.bias",
        "a.q_proj.lora_A.default.weight": "a.q_proj.lora_A.default.weight",
    }
    assert {name: name_plainly(name) for name in names} == names


def test_without_peft_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    model, _ = make_fresh_model("internvl")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'vidground-hf[train]'")):
        add_lora(model)
