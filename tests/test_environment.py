"""What a bug report gets: versions, devices and settings, and nothing that names the reporter."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from vidground_hf import environment
from vidground_hf.environment import describe_backend, describe_cuda, describe_environment, hide_home, read_version

TOKEN = "hf_secretsecretsecret"


def test_versions_of_what_is_installed() -> None:
    described = describe_environment()
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    assert described["datasets"] == version("datasets")
    assert read_version("no-such-package") is None
    assert {"torch", "transformers", "accelerate", "trl", "vllm", "torchcodec", "decord"} <= set(described)


def test_nothing_names_the_reporter(tmp_path: Path) -> None:
    home = tmp_path / "somebody"
    (home / "bin").mkdir(parents=True)
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text(TOKEN + "x")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VIDGROUND_", "XDG_"))}
    settings = {
        "HOME": str(home),
        "USER": "somebody",
        "HF_TOKEN": TOKEN,
        "HF_ENDPOINT": "http://somebody:password@hub.example:8080",
        "HF_HUB_OFFLINE": "1",
        "VIDGROUND_CACHE": "/scratch/somebody/answers",
    }
    done = subprocess.run(
        [sys.executable, "-m", "vidground_hf.cli", "env", "--json"],
        env=kept | settings, capture_output=True, text=True, check=True,
    )  # fmt: skip
    described = json.loads(done.stdout)
    assert described["HF_ENDPOINT"] == "http://hub.example:8080"
    assert described["offline"] == "yes"
    assert described["HF_HOME"] == "~/.cache/huggingface"
    assert described["cache"] == "/scratch/USER/answers"
    for secret in ("somebody", "password", TOKEN, str(tmp_path)):
        assert secret not in done.stdout + done.stderr


def test_settings_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    described = describe_environment()
    assert (described["HF_ENDPOINT"], described["offline"]) == ("https://huggingface.co", "no")


def test_homes_and_names_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    shown = {"/home/ada": "~", "/home/ada/x": "~/x", "/home/adam/x": "/home/adam/x", "/data/ada/x": "/data/USER/x"}
    assert {path: hide_home(Path(path)) for path in shown} == shown


@pytest.mark.parametrize(
    ("version", "cause", "shown"),
    [
        (None, None, None),
        ("0.17.0", None, "loads"),
        ("0.17.0", "OSError: ~/lib/libavutil.so is missing", "does not load: OSError: ~/lib/libavutil.so is missing"),
        ("0.17.0", "OSError: {home}/lib/x.so is missing", "does not load: OSError: ~/lib/x.so is missing"),
    ],
)
def test_video_decoders(
    monkeypatch: pytest.MonkeyPatch, version: str | None, cause: str | None, shown: str | None
) -> None:
    monkeypatch.setattr(environment, "read_version", lambda package: version)
    told = cause and cause.format(home=Path.home())
    monkeypatch.setattr(environment, "explain_backend", lambda backend: told)
    assert describe_backend("torchcodec") == shown


def test_the_decoder_that_is_always_there() -> None:
    assert describe_environment()["video by pyav"] == "loads"


def fake_torch(names: list[str], built_for: str | None) -> Any:
    cuda = SimpleNamespace(
        is_available=lambda: bool(names), device_count=lambda: len(names), get_device_name=lambda index: names[index]
    )
    return SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda=built_for))


@pytest.mark.parametrize(
    ("names", "built_for", "shown"),
    [
        (["H100", "H100"], "13.0", "13.0, H100, H100"),
        ([], "13.0", "no device; torch is built for CUDA 13.0"),
        ([], None, "no device; torch is built without CUDA"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, names: list[str], built_for: str | None, shown: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(names, built_for))
    monkeypatch.setattr(environment, "read_version", lambda package: "1.0")
    assert describe_cuda() == shown


def test_torch_is_not_imported_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(environment, "read_version", lambda package: None)
    assert describe_cuda() is None


def test_a_broken_torch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def fail(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "torch":
            raise OSError("libcudart.so: cannot open shared object file")
        return importing(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(environment, "read_version", lambda package: "1.0")
    monkeypatch.setattr(builtins, "__import__", fail)
    assert describe_cuda() == "torch cannot be imported: OSError"


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("echo ffmpeg version 7.1.2-0+deb13u1 Copyright", "7.1.2-0+deb13u1"),
        ("exit 1", "installed, version unknown"),
        (None, None),
    ],
)
def test_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, shown: str | None) -> None:
    if script is not None:
        (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_environment()["ffmpeg"] == shown
