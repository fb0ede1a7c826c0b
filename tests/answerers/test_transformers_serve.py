from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from vidground_hf.answerers.endpoint import EndpointAnswerer
from vidground_hf.prompts import Prompt

pytestmark = pytest.mark.slow

CHAT_TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_prompts() -> list[Prompt]:
    asked: dict[str, Any] = {"view": "text", "problem_type": "multiple_choice", "options": ("walks", "sits", "waves")}
    prompts = [Prompt(example_id=str(k), question=f"What does the man do, {k}?", **asked) for k in range(4)]
    return [*prompts, Prompt(example_id="5", view="text", problem_type="free_form", question="Why does he wave?")]


def save_chat_model(folder: Path) -> None:
    """A language model of 40 thousand random weights, and a tokenizer trained on the prompts, both from scratch."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers; pip install 'vidground-hf[models]'")
    transformers = pytest.importorskip("transformers", reason="needs transformers; pip install 'vidground-hf[models]'")
    pytest.importorskip("torch", reason="needs torch; pip install 'vidground-hf[models]'")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer, bpe.decoder = byte_level(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    bpe.train_from_iterator([prompt.text for prompt in make_prompts()], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHAT_TEMPLATE
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.set_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The model's name and the address of a `transformers serve` that runs it."""
    for name in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"transformers serve needs {name}; pip install 'transformers[serving]'")
    folder = tmp_path_factory.mktemp("served")
    save_chat_model(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder / "model")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    log = folder / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 180
        while not is_healthy(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")
            time.sleep(0.3)
        yield str(folder / "model"), f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def test_whatever_it_writes_is_an_answer(served: tuple[str, str]) -> None:
    model, url = served
    answerer = EndpointAnswerer(model, base_url=url, max_tokens=8, concurrency=2)
    answers = answerer.answer(make_prompts())
    assert [answer.error for answer in answers] == [None] * 5
    assert all(answer.text for answer in answers)
    assert [answer.text for answer in answerer.answer(make_prompts())] == [answer.text for answer in answers]


def test_a_longer_answer_begins_with_the_shorter_one(served: tuple[str, str]) -> None:
    model, url = served
    short, long = (
        EndpointAnswerer(model, base_url=url, max_tokens=count).answer(make_prompts()[:1])[0] for count in (6, 12)
    )
    assert (long.text or "").startswith((short.text or "").rstrip("\ufffd"))
    assert short.finish_reason == "length"


def test_it_gives_no_log_probabilities_and_is_asked_for_text(served: tuple[str, str]) -> None:
    model, url = served
    plain = EndpointAnswerer(model, base_url=url, max_tokens=8)
    reading = EndpointAnswerer(model, base_url=url, max_tokens=8, logprobs=True)
    with pytest.warns(UserWarning, match="gives no log-probabilities"):
        answers = reading.answer(make_prompts())
    assert answers == plain.answer(make_prompts())
    assert reading.num_sent == plain.num_sent + 1
    assert [answer.option_logprobs for answer in answers] == [None] * 5


def test_it_does_not_serve_another_model(served: tuple[str, str]) -> None:
    (answer,) = EndpointAnswerer("another/model", base_url=served[1]).answer(make_prompts()[:1])
    assert "requested 'another/model'" in (answer.error or "")
