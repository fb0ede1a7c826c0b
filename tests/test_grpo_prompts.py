from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="prepares tensors; pip install 'vidground-hf[train]'")

from tests.grpo_trainers import ask, make_clips, show_images  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf import grpo_prompts  # noqa: E402
from vidground_hf.grpo_media import read_media, view_rows  # noqa: E402
from vidground_hf.grpo_prompts import PromptShower, ShownPrompt, SightError, collate, collate_types  # noqa: E402
from vidground_hf.grpo_sight import SeeingModel, watch_pixels  # noqa: E402
from vidground_hf.grpo_vllm import send_media  # noqa: E402
from vidground_hf.media import FrameBudget  # noqa: E402
from vidground_hf.video import VideoReadError  # noqa: E402

BUDGET = FrameBudget(num_frames=4)
ARGUMENTS = ("input_ids", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts", "mm_token_type_ids")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grpo_prompts")


@pytest.fixture(scope="module")
def clips(folder: Path) -> list[str]:
    return make_clips(folder, 2)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    model = FAMILIES["qwen2_5_vl"](folder / "model")
    show_images("qwen2_5_vl", model)
    return AutoProcessor.from_pretrained(model)


def make_shower(processor: Any, arguments: tuple[str, ...] = ARGUMENTS, **settings: Any) -> PromptShower:
    def render(messages: Any) -> str:
        text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **settings)
        return text

    return PromptShower(processor, render, arguments, BUDGET, num_workers=0)


def make_prompt(ids: list[int], **tensors: Any) -> ShownPrompt:
    return ShownPrompt(ids=ids, types=[0] * len(ids), tensors=tensors, vllm_media={})


def test_a_path_its_bytes_and_its_cell_show_the_same(processor: Any, clips: list[str]) -> None:
    content = Path(clips[0]).read_bytes()
    cells: list[Any] = [clips[0], Path(clips[0]), content, {"path": None, "bytes": content}]
    cells += [{"path": clips[0], "bytes": None}]
    shown = make_shower(processor).show([{"prompt": ask("What?"), "video": cell} for cell in cells])
    assert all(prompt.ids == shown[0].ids for prompt in shown)
    assert all(
        torch.equal(prompt.tensors["pixel_values_videos"], shown[0].tensors["pixel_values_videos"]) for prompt in shown
    )
    assert len({id(prompt) for prompt in shown}) == 2  # as a file, and as these bytes


def test_rows_that_show_the_same_share_what_was_prepared(processor: Any, clips: list[str]) -> None:
    row: dict[str, Any] = {"prompt": ask("What?"), "video": clips[0]}
    first, again, part, other = make_shower(processor).show(
        [row, {**row, "id": "b"}, {**row, "end_seconds": 0.4}, {**row, "prompt": ask("Who?")}]
    )
    assert first is again
    assert not torch.equal(first.tensors["pixel_values_videos"], part.tensors["pixel_values_videos"])
    assert torch.equal(first.tensors["pixel_values_videos"], other.tensors["pixel_values_videos"])
    assert first.ids != other.ids


def test_prepared_prompts_are_kept_up_to_a_size(
    processor: Any, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": ask("What?"), "video": clip} for clip in clips]
    shower = make_shower(processor)
    first = shower.show(rows)
    assert [id(prompt) for prompt in shower.show(rows[::-1])] == [id(prompt) for prompt in first[::-1]]
    monkeypatch.setattr(grpo_prompts, "_MAX_PROMPT_BYTES", first[0].num_bytes)
    shower = make_shower(processor)
    first, again = shower.show(rows), shower.show(rows)
    assert first[0] is not again[0]
    assert torch.equal(first[0].tensors["pixel_values_videos"], again[0].tensors["pixel_values_videos"])


def test_the_video_stands_before_the_text_of_the_last_user_message(processor: Any, clips: list[str]) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi", "image": None}]},
        {"role": "user", "content": "What?"},
    ]
    (shown,) = make_shower(processor).show([{"prompt": messages, "video": clips[0]}])
    words = re.sub(r"(<\|video_pad\|>)+", "<video>", processor.tokenizer.decode(shown.ids))
    assert words.endswith(
        "user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><video><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert messages[3]["content"] == "What?"


def test_words_that_stand_for_pixels_are_refused(processor: Any, clips: list[str]) -> None:
    shower = make_shower(processor)
    rows: list[dict[str, Any]] = [{"video": clips[0]}, {"video": None}]
    for row in rows:
        with pytest.raises(
            SightError, match=r"times '<\|video_pad\|>' where \d were expected; the chat template must"
        ):
            shower.show([{"prompt": ask("What is <|video_pad|>?"), **row}])


def test_a_template_that_does_not_show_videos_is_refused(processor: Any, clips: list[str]) -> None:
    shower = make_shower(processor, chat_template="{{ messages[0]['content'][-1]['text'] }}")
    with pytest.raises(SightError, match=re.escape("the prompt has 0 times '<|video_pad|>' where 1 were expected")):
        shower.show([{"prompt": ask("What?"), "video": clips[0]}])


def test_a_model_that_does_not_take_the_pixels_is_refused(processor: Any, clips: list[str]) -> None:
    shower = make_shower(processor, ("input_ids", "pixel_values"))
    with pytest.raises(SightError, match="hold no pixels that the model's forward takes"):
        shower.show([{"prompt": ask("What?"), "video": clips[0]}])


def test_frames_that_the_processor_leaves_out_are_an_error(
    processor: Any, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shower = make_shower(processor)
    process = shower._process
    monkeypatch.setattr(
        shower, "_process", lambda text, videos, **about: process(text, videos=[videos[0][:2]], do_sample_frames=False)
    )
    with pytest.raises(SightError, match=re.escape(f"the processor took 2 of 4 frames of {clips[0]!r}")):
        shower.show([{"prompt": ask("What?"), "video": clips[0]}])


def test_a_video_that_cannot_be_read_stops(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match=re.escape("missing.mp4")):
        make_shower(processor).show([{"prompt": ask("What?"), "video": str(tmp_path / "missing.mp4")}])


def test_a_prompt_is_messages(processor: Any) -> None:
    with pytest.raises(ValueError, match="row 'a' has a prompt of type str; pass a list of messages"):
        make_shower(processor).show([{"prompt": "What?", "id": "a"}])


def test_a_prompt_without_a_user_shows_nothing(processor: Any, clips: list[str]) -> None:
    with pytest.raises(SightError, match="has no user message to show them in"):
        make_shower(processor).show([{"prompt": [{"role": "system", "content": "?"}], "video": clips[0]}])


def test_one_frame_alone_is_shown(processor: Any, clips: list[str]) -> None:
    shower = make_shower(processor)
    shower.budget = replace(BUDGET, num_frames=1)
    (shown,) = shower.show([{"prompt": ask("What?"), "video": clips[0]}])
    assert shown.tensors["video_grid_thw"][:, 0].tolist() == [1]


def test_a_row_with_video_and_images_is_refused() -> None:
    with pytest.raises(ValueError, match="row 'a' has a video and 1 images; give it one of the two"):
        read_media({"id": "a", "video": "a.mp4", "image": "b.png"}, BUDGET)


def test_other_videos_are_refused() -> None:
    with pytest.raises(TypeError, match="the video of row 'a' is a int; pass a path, an URL, bytes, or a cell"):
        read_media({"id": "a", "video": 3}, BUDGET)


def test_views_of_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"video": "a.mp4", "start_seconds": 1.0, "id": 0},
        {"video": "a.mp4", "start_seconds": 1.0, "id": 1},
        {"video": "b.mp4", "id": 2},
        {"images": ["x.png"], "id": 3},
        {"images": ["y.png"], "id": 4},
        {"id": 5},
    ]
    assert view_rows(rows, "video", BUDGET) == rows
    assert view_rows(rows, "text", BUDGET) == [{"id": k} for k in range(6)]
    wrong = view_rows(rows, "wrong_video", BUDGET)
    assert [(row["id"], row.get("video"), row.get("start_seconds"), row.get("images")) for row in wrong] == [
        (0, "b.mp4", None, None),
        (1, "b.mp4", None, None),
        (2, "a.mp4", 1.0, None),
        (3, None, None, ["y.png"]),
        (4, None, None, ["x.png"]),
        (5, None, None, None),
    ]
    with pytest.raises(
        ValueError, match="all rows of this call show the same, so none of them can be shown another's"
    ):
        view_rows(rows[:2], "wrong_video", BUDGET)
    with pytest.raises(ValueError, match="view = 'blind' is not known; pass 'video', 'text' or 'wrong_video'"):
        view_rows(rows, "blind", BUDGET)  # type: ignore[arg-type]


def test_tensors_are_joined_in_the_order_of_rows() -> None:
    flat = [make_prompt([1], pixel_values_videos=torch.full((size, 2), float(size))) for size in (2, 1)]
    joined = collate([flat[0], make_prompt([1]), flat[1]])
    assert joined["pixel_values_videos"].tolist() == [[2, 2], [2, 2], [1, 1]]
    assert collate([make_prompt([1])]) == {}


def test_rows_of_fewer_frames_are_padded_where_models_leave_that_out() -> None:
    short, long = (make_prompt([1], pixel_values=torch.ones(1, size, 1, 1, 1)) for size in (1, 2))
    assert collate([short, long])["pixel_values"][:, :, 0, 0, 0].tolist() == [[1, 0], [1, 1]]


def test_clips_of_different_lengths_are_refused_where_models_take_one() -> None:
    short, long = (make_prompt([1], pixel_values_videos=torch.ones(1, size, 1, 1, 1)) for size in (3, 4))
    with pytest.raises(SightError, match=re.escape("takes clips of one length in a batch, these have [3, 4] frames")):
        collate([short, long])


def test_types_stand_where_the_tokens_do() -> None:
    shown = ShownPrompt(ids=[5, 6], types=[0, 2], tensors={}, vllm_media={})
    types = collate_types([shown, make_prompt([7, 8, 9])], prompt_length=4, length=6)
    assert types["mm_token_type_ids"].tolist() == [[0, 0, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0]]
    assert collate_types([make_prompt([1])], prompt_length=1, length=2) == {}


def test_rows_that_the_model_was_not_called_with_are_noticed() -> None:
    seeing = SeeingModel(lambda **inputs: inputs, None, [make_prompt([5]), make_prompt([6])], prompt_length=2)
    assert seeing(input_ids=torch.tensor([[0, 5, 9]]), labels=1)["labels"] == 1
    with pytest.raises(SightError, match="the model was called with 1 of 2 rows; this version of TRL calls it in"):
        seeing.check_done()
    with pytest.raises(SightError, match="a row of the batch holds another prompt than the one whose pixels go with"):
        seeing(input_ids=torch.tensor([[0, 5, 9]]))


def test_a_model_without_a_vision_tower_is_refused() -> None:
    class Blind:
        def get_encoder(self, modality: str) -> Blind:
            return self

    with (
        pytest.raises(SightError, match="Blind has no vision tower that transformers knows; pixels cannot reach it"),
        watch_pixels(Blind(), [make_prompt([1], pixel_values=torch.ones(1))]),
    ):
        pass


def test_vllm_is_sent_what_is_shown() -> None:
    sent: list[Any] = []
    prompts = [
        {"prompt_token_ids": [1], "multi_modal_data": {"image": {"video": ["frames"]}}},
        {"prompt_token_ids": [2], "multi_modal_data": {"image": {"image": ["picture"]}}},
        {"prompt_token_ids": [3]},
    ]
    send_media(lambda prompts, **settings: sent.extend([prompts, settings]))(prompts, use_tqdm=False)
    assert sent == [
        [
            {
                "prompt_token_ids": [1],
                "multi_modal_data": {"video": ["frames"]},
                "mm_processor_kwargs": {"do_sample_frames": False},
            },
            {"prompt_token_ids": [2], "multi_modal_data": {"image": ["picture"]}},
            {"prompt_token_ids": [3]},
        ],
        {"use_tqdm": False},
    ]
