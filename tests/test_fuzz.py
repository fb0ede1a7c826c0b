"""Any bytes give a result or an error of the package's own, and what was found once stays found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed of which some pieces are cut out, repeated, or replaced by others, or bytes without a seed."""
    content = bytearray(draw(st.sampled_from(seeds)))
    pieces = st.sampled_from([b"", b"\x00", b"\xff", b'"', b"{", b"[", b"]", b"null", b"1e999", b"-", b",", b"\n\n"])
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 12)))
        content[start:stop] = draw(st.one_of(pieces, st.binary(max_size=6), st.just(bytes(content[start:stop]) * 2)))
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]

    @settings(max_examples=target.num_examples, suppress_health_check=list(HealthCheck))
    @given(st.one_of(damaged(target.make_seeds()), st.binary(max_size=200)))
    def check(data: bytes) -> None:
        target.check(data, tmp_path)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_themselves_pass(name: str, tmp_path: Path) -> None:
    for seed in TARGETS[name].make_seeds()[: TARGETS[name].num_examples]:
        TARGETS[name].check(seed, tmp_path)
