"""LoRA on the language model of a task preference model, with the rows of the task tokens trained beside it.

Which parameters then move is the trainer's; full training needs nothing of this.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from vidground_hf.task_preference.modeling import TaskPreferenceModel

ADAPTER_FOLDER = "adapter"
"""Of a saved model, where its LoRA is, in peft's own format."""

_ADAPTER = "default"
_PREFIX = "base_model.model."  # that peft writes before every name


def add_lora(model: TaskPreferenceModel, *, rank: int = 16, alpha: float = 32.0, dropout: float = 0.1) -> None:
    """Puts a LoRA on every linear layer of the language model, and trains the rows of the task tokens, in and out.

    Rank and alpha are the paper's (arXiv 2412.19326, table of training settings), the dropout is its code's. That
    code adapts the output layer too; here its rows of the task tokens are trained, which works with tied embeddings.
    The vision tower, the connector and the heads get none; what peft freezes of the first two, a trainer may free.

    Args:
        model (`TaskPreferenceModel`): is changed; its config says so.
        rank (`int`, *optional*, defaults to 16): at least 1.
        alpha (`float`, *optional*, defaults to 32): the update counts alpha / rank times.
        dropout (`float`, *optional*, defaults to 0.1): in [0, 1).

    Raises:
        `ImportError`: without peft.
        `ValueError`: for a model that has one.

    Example:
        >>> add_lora(model)  # doctest: +SKIP
    """
    if model.config.lora is not None:
        raise ValueError("the model has a LoRA; train on with it, or make the model afresh")
    peft = _import_peft()
    vlm = model.vlm
    decoder = vlm.get_decoder()
    prefix = _name_module(vlm, decoder)
    leaves = {name.rpartition(".")[2] for name, part in decoder.named_modules() if isinstance(part, nn.Linear)}
    ids = sorted([*(model.config.trigger_token_ids or {}).values(), *(model.config.task_token_ids or {}).values()])
    inputs, outputs = vlm.get_input_embeddings(), vlm.get_output_embeddings()
    # Where they are tied, peft has the output follow the input.
    rows = [inputs] if outputs.weight is inputs.weight else [inputs, outputs]
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf"{re.escape(prefix)}\..*\.({'|'.join(sorted(leaves))})",
        trainable_token_indices={_name_module(vlm, layer): ids for layer in rows},
    )
    _inject(model, config)
    model.config.lora = {"rank": rank, "alpha": alpha, "dropout": dropout}


def save_adapter(model: TaskPreferenceModel, folder: str | os.PathLike[str]) -> None:
    """Writes the LoRA and the token rows as peft does, so that it can also be put on the bare model.

    Args:
        model (`TaskPreferenceModel`): with a LoRA.
        folder (`str` or `os.PathLike`): is made where it is missing.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    Path(folder).mkdir(parents=True, exist_ok=True)
    model.vlm.peft_config[_ADAPTER].save_pretrained(folder)
    tensors = get_peft_model_state_dict(model.vlm, adapter_name=_ADAPTER, save_embedding_layers=False)
    named = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})


def load_adapter(model: TaskPreferenceModel, source: str, **hub: Any) -> None:
    """Puts a saved LoRA on a model.

    Args:
        model (`TaskPreferenceModel`): without one; is changed.
        source (`str`): a folder or a repository.
        hub: where in it, as `hf_hub_download` takes them: `subfolder`, `revision`, `token` and so on.

    Raises:
        `ImportError`: without peft.
        `ValueError`: where what is saved does not fill it.
    """
    peft = _import_peft()
    config = peft.PeftConfig.from_pretrained(source, **hub)
    _inject(model, config)
    tensors = peft.load_peft_weights(source, device="cpu", **hub)
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    found = peft.set_peft_model_state_dict(model.vlm, tensors, adapter_name=_ADAPTER)
    lacking = [name for name in found.missing_keys if "lora_" in name]  # peft itself refuses missing token rows
    if lacking or found.unexpected_keys:
        raise ValueError(
            f"the LoRA of {source!r} does not fit: {len(lacking)} of its tensors are missing and "
            f"{len(found.unexpected_keys)} belong nowhere ({(lacking + list(found.unexpected_keys))[0]!r}); load it "
            "with the model that it was saved with"
        )


def name_plainly(key: str) -> str:
    """The name that a parameter had before a LoRA was put around it.

    Example:
        >>> name_plainly("vlm.lm_head.token_adapter.base_layer.weight"), name_plainly("a.q_proj.lora_A.default.weight")
        ('vlm.lm_head.weight', 'a.q_proj.lora_A.default.weight')
    """
    return re.sub(r"\.(token_adapter\.base_layer|base_layer|original_module)\.", ".", key)


def read_plain_state(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary with the names that parameters had before, each tensor once.

    Args:
        state_dict (`dict[str, Tensor]`): of a model with a LoRA.
    """
    plain: dict[str, Tensor] = {}
    deltas: set[int] = set()
    for key, tensor in state_dict.items():
        if "trainable_tokens_original" in key or tensor.data_ptr() in deltas:
            continue
        if "trainable_tokens_delta" in key:  # those of tied outputs are the inputs'
            deltas.add(tensor.data_ptr())
        plain[name_plainly(key)] = tensor
    return plain


def _inject(model: TaskPreferenceModel, config: Any) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, model.vlm, _ADAPTER)
    model.register_load_state_dict_pre_hook(_take_plain_names)


def _take_plain_names(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Lets checkpoints, which have the names of before, be loaded into a model with a LoRA."""
    own = list(module.state_dict(prefix=prefix))
    filled = {key: state_dict[name_plainly(key)] for key in own if name_plainly(key) in state_dict}
    renamed = {name_plainly(key) for key in filled} - set(own)
    for key in renamed:
        del state_dict[key]
    state_dict.update(filled)


def _name_module(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("a LoRA needs peft; install it with pip install 'vidground-hf[train]'") from error
    return peft
