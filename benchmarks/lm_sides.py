"""The model of `lm_vs_harness.py` and the two sides that `TransformersAnswerer` stands beside."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vidground_hf.schema import LETTERS

VOCAB_SIZE = 8192
END = "<|end|>"


def make_model(folder: Path, texts: Sequence[str]) -> int:
    """Saves a Llama with random weights and a byte-level tokenizer trained on texts; returns its parameters."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    letters = "".join(f" {letter}" for letter in LETTERS)
    tokenizer.train_from_iterator([*texts, *[letters] * 10], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.1,  # wide, so that prompts differ in their answers
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return int(model.num_parameters())


class Limit:
    """The bare forward pass: tokens of all prompts in one row, cut into rectangles without padding."""

    def __init__(self, folder: Path, max_batch_tokens: int) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        self.max_batch_tokens = max_batch_tokens

    @torch.inference_mode()
    def run(self, ids: Sequence[Sequence[int]]) -> None:
        tokens = torch.tensor([token for row in ids for token in row])
        width = -(-len(tokens) // len(ids))
        num_missing = width * len(ids) - len(tokens)  # less than one token a row
        rows = torch.cat([tokens, tokens[:num_missing]]).view(len(ids), width)
        for batch in rows.split(max(1, self.max_batch_tokens // width)):
            self.model(input_ids=batch, logits_to_keep=1, use_cache=False)


class QuietLM(HFLM):  # type: ignore[misc]
    """The harness's model without its progress bars."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found


class Harness:
    """lm-evaluation-harness on the same model: one multiple-choice task for each list of texts."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.folder = folder
        self.lm = QuietLM(
            AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval(),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            device="cpu",
            batch_size=batch_size,
        )

    def make_tasks(self, name: str, lists: Sequence[Sequence[str]], choices: list[str]) -> dict[str, Any]:
        """Makes one task of each list of texts, all with the same choices of what comes next."""
        configs = []
        for number, texts in enumerate(lists):
            path = self.folder / f"{name}_{number}.json"
            path.write_text("".join(json.dumps({"prompt": text, "gold": 0}) + "\n" for text in texts))
            configs.append(
                {
                    "task": path.stem,
                    "dataset_path": "json",
                    "dataset_kwargs": {"data_files": {"test": str(path)}},
                    "test_split": "test",
                    "output_type": "multiple_choice",
                    "doc_to_text": "{{prompt}}",
                    "doc_to_choice": choices,
                    "doc_to_target": "gold",
                    "target_delimiter": "",
                    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
                }
            )
        tasks: dict[str, Any] = TaskManager(include_defaults=False).load(configs)["tasks"]
        return tasks

    def run(self, tasks: dict[str, Any], *, log_samples: bool = False) -> dict[str, Any]:
        """Evaluates tasks, without bootstrap."""
        results: dict[str, Any] = evaluate(self.lm, tasks, bootstrap_iters=0, log_samples=log_samples)
        return results

    def read_logprobs(self, texts: Sequence[str], choices: list[str]) -> NDArray[np.float64]:
        """The log-probability of each choice behind each text (`float64[N, C]`)."""
        results = self.run(self.make_tasks("logprobs", [texts], choices), log_samples=True)
        (samples,) = results["samples"].values()
        samples.sort(key=lambda sample: sample["doc_id"])
        return np.array([[response[0] for response in sample["filtered_resps"]] for sample in samples])
