"""`AnswerCache`: every answer a model has given, kept under a hash of all that it depends on.

A run that was killed goes on by finding its answers here. Errors, prompts and keys of servers are never kept.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Protocol

from multiprocess import parent_process  # type: ignore[import-untyped]  # what `Dataset.map` makes its processes with

from vidground_hf.answerers.base import Answer, Answerer, ModelAnswerer, check_seen
from vidground_hf.fits import find_cache_dir
from vidground_hf.media import FrameRequest
from vidground_hf.media_identity import identify_frames
from vidground_hf.mounts import find_network_mount
from vidground_hf.prompts import Prompt

SCHEMA_VERSION = 1
Source = Literal["asked", "cached", "failed"]
_KEPT = [field.name for field in fields(Answer) if field.name != "error"]
_INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)"
_CACHE_KIB = 16_000  # keys are random, so that any page may be next; SQLite's own 2 MB hold few of them
_KEYS_PER_QUERY = 500  # below SQLite's oldest limit of 999 values a statement
_TABLES = """
    CREATE TABLE IF NOT EXISTS answers (
        key BLOB PRIMARY KEY, answerer TEXT NOT NULL, answer BLOB NOT NULL, digest BLOB NOT NULL,
        saved_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS lookups (id INTEGER PRIMARY KEY, hits INTEGER NOT NULL, misses INTEGER NOT NULL);
    INSERT OR IGNORE INTO lookups VALUES (1, 0, 0);
"""
# Newer than the others, and all of it can be found out again: a cache without it is made to have it.
_CLIPS = "CREATE TABLE IF NOT EXISTS clips (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


class CacheError(RuntimeError):
    """The cache cannot be used; the message says why and what to do."""


def make_key(
    answerer_id: str, sampling: Mapping[str, Any], prompt: Prompt, frames: Mapping[str, Any] | None = None
) -> bytes:
    """Hashes everything that changes an answer, and nothing else.

    Args:
        answerer_id (`str`): model and revision, or model and server.
        sampling (`Mapping`): JSON; temperature, token limit and their like.
        prompt (`Prompt`): its text, options, view and trial index count; the names of its row and group do not.
        frames (`Mapping`, *optional*): JSON; what is seen, as `media_identity.identify_frames` says it, and how the
            answerer takes frames.

    Returns:
        `bytes`: 32 of them, a sha256 of canonical JSON.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "answerer": answerer_id,
        "sampling": dict(sampling),
        "view": prompt.view,
        "text": prompt.text,
        "options": prompt.options,  # an option may hold line breaks, so the text alone does not tell them apart
        "trial_index": prompt.trial_index,
    }
    if frames is not None:  # blind answers keep the keys they have always had
        content["frames"] = dict(frames)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


class AnswerStore(Protocol):
    """Where answers are looked up and kept; see `AnswerCache` for its methods."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]: ...

    def put(self, key: bytes, answer: Answer, answerer_id: str) -> None: ...

    def remember(self, name: str, find: Callable[[], str]) -> str: ...


class AnswerCache:
    """Answers on a local disk, in one SQLite file.

    Any number of processes may read; SQLite lets one write at a time and the others wait. What was put is safe from
    a `kill -9` at once, and from a power failure within the next thousand pages written.

    Args:
        path (`Path`, *optional*): the file; defaults to `answers.sqlite` in `$VIDGROUND_CACHE`.

    Raises:
        `CacheError`: when the path is on a network mount, the file is damaged, or another version wrote it.

    Example:
        >>> import tempfile
        >>> prompt = Prompt(example_id="1", view="text", problem_type="numerical", question="How many?")
        >>> key = make_key("model@1", {"temperature": 0}, prompt)
        >>> with AnswerCache(Path(tempfile.mkdtemp()) / "answers.sqlite") as cache:
        ...     cache.put(key, Answer(text="3"), "model@1")
        ...     cache.get_many([key])[key].text
        '3'
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = find_cache_dir() / "answers.sqlite" if path is None else path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if (kind := find_network_mount(self.path.parent)) is not None:
            raise CacheError(
                f"{str(self.path.parent)!r} is on a network mount ({kind}), where SQLite can lose answers; point "
                "VIDGROUND_CACHE at a folder on a local disk"
            )
        with self._explain():
            # Answers are put by the thread that received them, while the one that opened the file waits.
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except (sqlite3.Error, CacheError):
                self._database.close()
                raise

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA_VERSION):
            raise CacheError(
                f"the answer cache {str(self.path)!r} has version {version}, this package reads {SCHEMA_VERSION}; "
                "move it away, or point VIDGROUND_CACHE at another folder"
            )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        if version == 0:
            self._database.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        self._database.execute(_CLIPS)

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was put stays."""
        self._database.close()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """Looks answers up; a key without one is left out.

        Raises:
            `CacheError`: when an answer is not the one that was put.
        """
        unique = list(dict.fromkeys(keys))
        found: dict[bytes, Answer] = {}
        with self._explain():
            for start in range(0, len(unique), _KEYS_PER_QUERY):
                part = unique[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, answer, digest FROM answers WHERE key IN ({marks})"
                found.update(self._read(*row) for row in self._database.execute(query, part))
            counts = (len(found), len(unique) - len(found))
            self._database.execute("UPDATE lookups SET hits = hits + ?, misses = misses + ?", counts)
        return found

    def _read(self, key: bytes, answer: bytes, digest: bytes) -> tuple[bytes, Answer]:
        # SQLite does not check its pages: a byte that flipped on the disk would come back as somebody's answer.
        if not isinstance(answer, bytes) or _digest(key, answer) != digest:
            raise sqlite3.DatabaseError("an answer does not match its digest")
        values = json.loads(answer)
        logprobs = values["option_logprobs"]
        return key, Answer(**{**values, "option_logprobs": None if logprobs is None else tuple(logprobs)})

    def put(self, key: bytes, answer: Answer, answerer_id: str) -> None:
        """Keeps an answer; it is on its way to the disk when this returns.

        Raises:
            `ValueError`: for an answer that is an error.
        """
        with self._explain():
            self._database.execute(_INSERT, _pack(key, answer, answerer_id))

    def remember(self, name: str, find: Callable[[], str]) -> str:
        """Looks up what is known about a clip under a name; the first time it is found out, and kept."""
        with self._explain():
            row = self._database.execute("SELECT value FROM clips WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return str(row[0])
        value = find()
        with self._explain():
            self._database.execute("INSERT OR REPLACE INTO clips VALUES (?, ?)", (name, value))
        return value

    def prune(self, older_than_days: float) -> int:
        """Deletes answers by age and gives the space back; returns how many (`int`)."""
        with self._explain():
            oldest = time.time() - older_than_days * 86400
            count = self._database.execute("DELETE FROM answers WHERE saved_at < ?", (oldest,)).rowcount
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def describe(self) -> dict[str, Any]:
        """Size and use, as JSON: `path, num_bytes, num_answers, answerers, hits, misses, hit_rate`.

        `hit_rate` (`float`, *optional*) is over all lookups since the file was made; `None` before the first.
        """
        with self._explain():
            rows = self._database.execute("SELECT answerer, COUNT(*) FROM answers GROUP BY 1 ORDER BY 2 DESC, 1")
            answerers = dict(rows.fetchall())
            counts = self._database.execute("SELECT hits, misses FROM lookups").fetchone()
            # SQLite does not check what it reads.
            if counts is None or [type(count) for count in counts] != [int, int]:
                raise sqlite3.DatabaseError(f"its counts of lookups are {counts}")
        hits, misses = counts
        files = [Path(f"{self.path}{suffix}") for suffix in ("", "-wal")]
        return {
            "path": str(self.path),
            "num_bytes": sum(file.stat().st_size for file in files if file.exists()),
            "num_answers": sum(answerers.values()),
            "answerers": answerers,
            "hits": hits,
            "misses": misses,
            "hit_rate": hits / (hits + misses) if hits + misses else None,
        }

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:  # a damaged page may claim any length
            raise CacheError(
                f"the answer cache {str(self.path)!r} is damaged, or there is too little memory to read it; end other "
                "programs, or else delete it, and what it held is asked again"
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # Text that is no UTF-8 comes as an OperationalError too, but without a code of SQLite's.
            if isinstance(error, sqlite3.OperationalError) and hasattr(error, "sqlite_errorcode"):
                raise CacheError(
                    f"the answer cache {str(self.path)!r} cannot be used ({error}); free the disk, wait for the run "
                    "that holds it, or point VIDGROUND_CACHE at another folder"
                ) from error
            raise CacheError(
                f"the answer cache {str(self.path)!r} is damaged ({error}); delete it, and what it held is asked again"
            ) from error


def open_cache(answerers: Sequence[Answerer]) -> AbstractContextManager[AnswerCache | None]:
    """Opens the cache where one of the answerers is a model.

    Raises:
        `RuntimeError`: in a process of `Dataset.map`.
    """
    models = [answerer.id for answerer in answerers if isinstance(answerer, ModelAnswerer)]
    if not models:
        return nullcontext()
    if parent_process() is not None:
        raise RuntimeError(
            f"{models[0]} was asked from a process of map(..., num_proc=N); leave num_proc out: one process "
            "keeps the model busy. Or call ground_filter = ground_filter.fit(dataset) first, which asks; a map "
            "of the fitted rows only reads"
        )
    return AnswerCache()


def _pack(key: bytes, answer: Answer, answerer_id: str) -> tuple[Any, ...]:
    if answer.error is not None:
        raise ValueError(f"an error is not an answer and is not kept, got {answer.error!r}")
    content = json.dumps({name: getattr(answer, name) for name in _KEPT}).encode()
    return key, answerer_id, content, _digest(key, content), time.time()


def _digest(key: bytes, answer: bytes) -> bytes:
    return hashlib.blake2b(key + answer, digest_size=8).digest()


def make_keys(answerer: ModelAnswerer, prompts: Sequence[Prompt], store: AnswerStore) -> list[bytes]:
    """The key of each prompt's answer; what a clip's file is and holds is looked up once and remembered."""
    sampling = answerer.sampling
    is_shown = any(prompt.frames is not None for prompt in prompts)
    # A model that reads text only cannot say how it looks.
    sees = {"answerer": dict(getattr(answerer, "visual_sampling", {}))} if is_shown else {}
    shown: dict[tuple[FrameRequest, int], dict[str, Any]] = {}  # once for all questions that show the same
    keys = []
    for prompt in prompts:
        frames = None
        if prompt.frames is not None:
            name = prompt.frames, id(prompt.frames.content)
            if name not in shown:
                shown[name] = sees | identify_frames(prompt.frames, store.remember)
            frames = shown[name]
        keys.append(make_key(answerer.id, sampling, prompt, frames))
    return keys


def answer_through_cache(
    answerer: ModelAnswerer,
    prompts: Sequence[Prompt],
    cache: AnswerStore,
    *,
    on_answer: Callable[[int, Source], object],
) -> list[Answer]:
    """Answers prompts, asking only for what the cache lacks, and equal prompts once.

    Every answer is kept before the next question is asked in its place.

    Args:
        answerer (`ModelAnswerer`): who is asked.
        prompts (`Sequence[Prompt]`): N prompts.
        cache (`AnswerStore`): where answers are looked up and kept.
        on_answer (`Callable`): called as `on_answer(count, source)` for each so many prompts; the source is `"asked"`,
            `"failed"` or, for what was found and for equal prompts, `"cached"`.

    Returns:
        `list[Answer]`: N answers in the same order.
    """
    keys = make_keys(answerer, prompts, cache)
    found = cache.get_many(keys)
    missing: dict[bytes, list[int]] = {}
    for index, key in enumerate(keys):
        if key in found:
            on_answer(1, "cached")
        else:
            missing.setdefault(key, []).append(index)
    asked = list(missing)

    def keep(position: int, answer: Answer) -> None:
        key = asked[position]
        answer = check_seen(prompts[missing[key][0]], answer)
        if answer.error is None:
            cache.put(key, answer, answerer.id)
        found[key] = answer
        on_answer(1, "asked" if answer.error is None else "failed")
        if len(missing[key]) > 1:
            on_answer(len(missing[key]) - 1, "cached" if answer.error is None else "failed")

    answerer.answer_each([prompts[indices[0]] for indices in missing.values()], keep)
    return [found[key] for key in keys]
