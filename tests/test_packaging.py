from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_should(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True
    )
    wheel, sdist = next(tmp_path.glob("*.whl")), next(tmp_path.glob("*.tar.gz"))
    names = set(zipfile.ZipFile(wheel).namelist())
    metrics = {f"vidground_hf/{path.relative_to(ROOT)}" for path in (ROOT / "metrics").glob("*/*.py")}
    templates = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/vidground_hf/templates").iterdir()}
    assert metrics | templates | {"vidground_hf/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "examples"))]
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("metrics/blind_visual_gap/blind_visual_gap.py") for name in archive.getnames())


def test_the_version_stands_in_one_place() -> None:
    version = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(version) == 1
    for path in (ROOT / "src").rglob("*.py"):
        assert version[0] not in path.read_text(encoding="utf-8"), path


def test_no_lock_file_records_where_packages_came_from() -> None:
    for name in ("uv.lock", "poetry.lock", "Pipfile.lock", "requirements.txt", "pylock.toml"):
        assert not (ROOT / name).exists()
