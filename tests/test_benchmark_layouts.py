"""Three rows of every benchmark's Hub layout, in our own words, and the examples they become."""

from __future__ import annotations

from typing import Any

import pytest

from vidground_hf.adapters import ADAPTERS, find_adapter
from vidground_hf.benchmark_layouts import BENCHMARK_ADAPTERS, MVBENCH_FOLDERS
from vidground_hf.benchmark_settings import BENCHMARKS
from vidground_hf.schema import Example

Rows = list[dict[str, Any]]


def example(**fields: Any) -> Example:
    """An example whose group is its video and whose type is multiple choice, unless it says otherwise."""
    return Example(**{"problem_type": "multiple_choice", "group": fields["video"], **fields})


VIDEOMME = {"video_id": "001", "domain": "Knowledge", "sub_category": "Astronomy", "url": "u", "language": "en"}
LVB = {"video_id": "k1", "subtitle_path": "k1_en.json", "duration": 12.0, "topic_category": "NP-News",
       "starting_timestamp_for_subtitles": 3.5}  # fmt: skip
MMVU = "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos/"

ROWS: dict[str, Rows] = {
    "videomme": [
        {**VIDEOMME, "videoID": "ab-C_1", "duration": "short", "question_id": "001-1", "task_type": "Counting Problem",
         "question": "How many cups fall?", "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."], "answer": "B"},
        {**VIDEOMME, "videoID": "ab-C_1", "duration": "short", "question_id": "001-2", "task_type": "OCR Problems",
         "question": "What does the sign say?", "options": ["A. Up.", "B. Down.", "C. Left.", "D. Right."],
         "answer": "D"},
        {**VIDEOMME, "videoID": "zz9", "duration": "long", "question_id": "900-3", "task_type": "Temporal Reasoning",
         "question": "What happens last?", "options": ["A. Rain.", "B. Snow.", "C. Hail.", "D. Fog."], "answer": "A"},
    ],
    "videommmu": [
        {"id": "validation_Energy_and_Power_3", "question": "Which value is read aloud?", "options": ["4", "5", "6"],
         "answer": "C", "question_type": "perception", "qa_type": "ASR", "link_selected": "l"},
        {"id": "dev_Art_Theory_1", "question": "Which statement follows?", "options": ["this", "that"], "answer": "A",
         "question_type": "multiple-choice", "qa_type": "Problem-solving Comprehension", "link_selected": "l"},
        {"id": "new_Math_12", "question": "What is the area?", "options": [], "answer": "1,204.5",
         "question_type": "open", "qa_type": "Case Study Analysis", "link_selected": "l"},
    ],
    "mmvu": [
        {"id": "validation_7", "video": MMVU + "Art/3.mp4", "youtube_url": "y", "question_type": "open-ended",
         "question": "Which technique is this?", "choices": dict.fromkeys("ABCDE", ""), "answer": "a dissolve",
         "metadata": {"subject": "Art", "textbook": "t"}},
        {"id": "validation_8", "video": MMVU + "Pharmacy/0.mp4", "youtube_url": "y",
         "question_type": "multiple-choice",
         "question": "Which step is shown?", "choices": dict(zip("ABCDE", ["mix", "heat", "cool", "wait", "pour"],
         strict=True)), "answer": "C", "metadata": {"subject": "Pharmacy", "textbook": "t"}},
        {"id": "validation_9", "video": MMVU + "Law/1.mp4", "youtube_url": "y", "question_type": "multiple-choice",
         "question": "Who may appeal?", "choices": dict(zip("ABCDE", ["both", "one", "none", "all", "two"],
         strict=True)),
         "answer": "E", "metadata": {"subject": "Law", "textbook": "t"}},
    ],
    "mvbench": [
        {"mvbench_task": "action_sequence", "video": "QX1.mp4", "question": "What came first?",
         "candidates": ["sat", "ran"], "answer": "ran", "start": 2.5, "end": 9},
        {"mvbench_task": "moving_count", "video": "video_4.mp4", "question": "How many move?", "candidates": ["1",
         "3"],
         "answer": "1", "start": None, "end": None},
        {"mvbench_task": "episodic_reasoning", "video": "show_s01_clip_2", "question": "Why is he late?",
         "candidates": ["bus", "rain", "cat", "fog", "ice"], "answer": "cat", "start": 0, "end": 7.25},
    ],
    "mlvu_dev": [
        {"video_name": "needle_3.mp4", "duration": 400.0, "question": "Which animal?\n(A) cat\n(B) dog",
         "candidates": ["cat", "dog"], "answer": "B", "task_type": "needle", "question_id": "n_3"},
        {"video_name": "ego_9.mp4", "duration": 90.5, "question": "Where was the key?\n(A) bag\n(B) desk",
         "candidates": ["bag", "desk"], "answer": "A", "task_type": "ego", "question_id": "e_9"},
        {"video_name": "count_1.mp4", "duration": 61.0, "question": "How often does it ring?\n(A) 2\n(B) 5",
         "candidates": ["2", "5"], "answer": "B", "task_type": "count", "question_id": "c_1"},
    ],
    "tempcompass": [
        {"video_id": "101", "question": "What does the boat do?\nA. turns\nB. stops\nC. sinks", "answer": "B. stops",
         "dim": "action", "mc_question": None},
        {"video_id": "102", "question": "Does the boat turn?", "answer": "no", "dim": "direction",
         "mc_question": None},
        {"video_id": "103", "question": "Which one fits?\nCaption A: The boat is slow.\nCaption B: The boat is fast.",
         "answer": "Caption A: The boat is slow.", "dim": "speed", "mc_question": None},
    ],
    "longvideobench": [
        {**LVB, "id": "k1_0", "video_path": "k1.mp4", "question": "Who waves?", "question_category": "S2E",
         "duration_group": 15, "correct_choice": 2, "option0": "a man", "option1": "a girl", "option2": "a dog",
         "option3": "N/A", "option4": "N/A"},
        {**LVB, "id": "k1_1", "video_path": "k1.mp4", "question": "Which hat?", "question_category": "O3O",
         "duration_group": 600, "correct_choice": 4, "option0": "red", "option1": "blue", "option2": "grey",
         "option3": "pink", "option4": "none"},
        {**LVB, "id": "k2_0", "video_path": "k2.mp4", "question": "What is said?", "question_category": "T3E",
         "duration_group": 3600, "correct_choice": None, "option0": "yes", "option1": "no", "option2": "N/A",
         "option3": "N/A", "option4": "N/A"},
    ],
    "egoschema": [
        {"question_idx": "7", "question": "What is the aim?", "video_idx": "0a-b1",
         "option": ["A. to cook", "B. to clean", "C. to rest"], "answer": "1"},
        {"question_idx": "8", "question": "Which tool matters most?", "video_idx": "0a-b2",
         "option": ["A. knife", "B. spoon", "C. sieve"], "answer": "2"},
        {"question_idx": "9", "question": "How do both differ?", "video_idx": "0a-b3",
         "option": ["A. in pace", "B. in care", "C. not at all"], "answer": None},
    ],
}  # fmt: skip

EXPECTED: dict[str, list[Example]] = {
    "videomme": [
        example(id="001-1", question="How many cups fall?", options=("One.", "Two.", "Three.", "Four."), answer="Two.",
                answer_index=1, video="data/ab-C_1.mp4", category="Counting Problem", source="short"),
        example(id="001-2", question="What does the sign say?", options=("Up.", "Down.", "Left.", "Right."),
                answer="Right.", answer_index=3, video="data/ab-C_1.mp4", category="OCR Problems", source="short"),
        example(id="900-3", question="What happens last?", options=("Rain.", "Snow.", "Hail.", "Fog."), answer="Rain.",
                answer_index=0, video="data/zz9.mp4", category="Temporal Reasoning", source="long"),
    ],
    "videommmu": [
        example(id="Perception_validation_Energy_and_Power_3", question="Which value is read aloud?",
                options=("4", "5", "6"), answer="6", answer_index=2,
                video="Engineering/validation_Energy_and_Power_3.mp4", category="Perception", source="Engineering"),
        example(id="Comprehension_dev_Art_Theory_1", question="Which statement follows?", options=("this", "that"),
                answer="this", answer_index=0, video="Art/dev_Art_Theory_1.mp4", category="Comprehension",
                source="Art"),
        example(id="Adaptation_new_Math_12", question="What is the area?", problem_type="numerical", answer="1,204.5",
                video="Science/new_Math_12.mp4", category="Adaptation", source="Science"),
    ],
    "mmvu": [
        example(id="validation_7", question="Which technique is this?", problem_type="free_form", answer="a dissolve",
                video=MMVU + "Art/3.mp4", category="Art"),
        example(id="validation_8", question="Which step is shown?", options=("mix", "heat", "cool", "wait", "pour"),
                answer="cool", answer_index=2, video=MMVU + "Pharmacy/0.mp4", category="Pharmacy"),
        example(id="validation_9", question="Who may appeal?", options=("both", "one", "none", "all", "two"),
                answer="two",
                answer_index=4, video=MMVU + "Law/1.mp4", category="Law"),
    ],
    "mvbench": [
        example(id="action_sequence_QX1.mp4_What came first?", question="What came first?", options=("sat", "ran"),
                answer="ran", answer_index=1, video="star/Charades_v1_480/QX1.mp4", category="action_sequence",
                start_seconds=2.5, end_seconds=9.0),
        example(id="moving_count_video_4.mp4_How many move?", question="How many move?", options=("1", "3"),
                answer="1",
                answer_index=0, video="clevrer/video_validation/video_4.mp4", category="moving_count"),
        example(id="episodic_reasoning_show_s01_clip_2_Why is he late?", question="Why is he late?",
                options=("bus", "rain", "cat", "fog", "ice"), answer="cat", answer_index=2,
                video="tvqa/frames_fps3_hq/show_s01_clip_2", category="episodic_reasoning", start_seconds=0.0,
                end_seconds=7.25, frame_rate=3.0),
    ],
    "mlvu_dev": [
        example(id="needle_needle_3.mp4_Which animal?\n(A) cat\n(B) dog", question="Which animal?",
                options=("cat", "dog"), answer="dog", answer_index=1, video="needle_3.mp4", category="needle"),
        example(id="ego_ego_9.mp4_Where was the key?\n(A) bag\n(B) desk", question="Where was the key?",
                options=("bag", "desk"), answer="bag", answer_index=0, video="ego_9.mp4", category="ego"),
        example(id="count_count_1.mp4_How often does it ring?\n(A) 2\n(B) 5", question="How often does it ring?",
                options=("2", "5"), answer="5", answer_index=1, video="count_1.mp4", category="count"),
    ],
    "tempcompass": [
        example(id="multi-choice_101_What does the boat do?\nA. turns\nB. stops\nC. sinks",
                question="What does the boat do?", options=("turns", "stops", "sinks"), answer="stops", answer_index=1,
                video="videos/101.mp4", category="multi-choice", source="action"),
        example(id="yes_no_102_Does the boat turn?", question="Does the boat turn?", options=("yes", "no"),
                answer="no",
                answer_index=1, video="videos/102.mp4", category="yes_no", source="direction"),
        example(id="caption_matching_103_Which one fits?\nCaption A: The boat is slow.\nCaption B: The boat is fast.",
                question="Which one fits?", options=("The boat is slow.", "The boat is fast."),
                answer="The boat is slow.", answer_index=0, video="videos/103.mp4", category="caption_matching",
                source="speed"),
    ],
    "longvideobench": [
        example(id="k1_0", question="Who waves?", options=("a man", "a girl", "a dog"), answer="a dog", answer_index=2,
                video="videos/k1.mp4", category="S2E", source="15"),
        example(id="k1_1", question="Which hat?", options=("red", "blue", "grey", "pink", "none"), answer="none",
                answer_index=4, video="videos/k1.mp4", category="O3O", source="600"),
        example(id="k2_0", question="What is said?", options=("yes", "no"), video="videos/k2.mp4", category="T3E",
                source="3600", defect="no_gold"),
    ],
    "egoschema": [
        example(id="7", question="What is the aim?", options=("to cook", "to clean", "to rest"), answer="to clean",
                answer_index=1, video="videos/0a-b1.mp4"),
        example(id="8", question="Which tool matters most?", options=("knife", "spoon", "sieve"), answer="sieve",
                answer_index=2, video="videos/0a-b2.mp4"),
        example(id="9", question="How do both differ?", options=("in pace", "in care", "not at all"),
                video="videos/0a-b3.mp4", defect="no_gold"),
    ],
}  # fmt: skip


def convert(rows: Rows) -> list[Example]:
    adapter = find_adapter(list(rows[0]))
    return [adapter.convert({name: row[name] for name in adapter.columns}) for row in rows]


def test_every_benchmark_layout_has_rows_here() -> None:
    assert set(ROWS) == set(EXPECTED) == set(BENCHMARK_ADAPTERS)


@pytest.mark.parametrize("name", ROWS)
def test_rows_become_these_examples(name: str) -> None:
    assert find_adapter(list(ROWS[name][0])).name == name
    assert convert(ROWS[name]) == EXPECTED[name]


def test_captioning_is_open_ended() -> None:
    row = {"video_id": "104", "question": "Say what happens.", "answer": "It rains.", "dim": "order",
           "mc_question": "?",
           "mc_answer": "A. rain"}  # fmt: skip
    found = convert([row])[0]
    assert (found.problem_type, found.category, found.answer, found.options) == (
        "free_form",
        "captioning",
        "It rains.",
        (),
    )


def test_longvideobench_json_has_its_options_in_a_list() -> None:
    names = [f"option{k}" for k in range(5)]
    row = {key: value for key, value in ROWS["longvideobench"][0].items() if key not in names}
    found = convert([{**row, "candidates": ["a", "b"], "correct_choice": 1}])[0]
    assert (found.options, found.answer) == (("a", "b"), "b")


def test_an_unknown_subject_or_track_of_videommmu_is_kept() -> None:
    row = {**ROWS["videommmu"][1], "id": "test_Alchemy_1", "qa_type": "None", "answer": "that"}
    found = convert([row])[0]
    assert (found.video, found.category, found.source, found.answer_index) == ("test_Alchemy_1.mp4", None, None, 1)


def test_words_with_a_number_are_no_numbers() -> None:
    row = {**ROWS["videommmu"][2], "answer": "3 lines and 2 dots"}
    assert convert([row])[0].problem_type == "free_form"


def test_mvbench_has_its_twenty_tasks_and_five_cut_clips() -> None:
    assert len(MVBENCH_FOLDERS) == 20
    assert [task for task, (_, is_cut) in MVBENCH_FOLDERS.items() if is_cut] == [
        "action_localization", "action_prediction", "action_sequence", "episodic_reasoning", "object_interaction",
    ]  # fmt: skip
    row = {**ROWS["mvbench"][1], "mvbench_task": "no such task"}
    assert convert([row])[0].video == "video_4.mp4"


@pytest.mark.parametrize(
    "columns",
    [
        ["video", "question", "candidates", "answer"],
        ["id", "video", "question", "options", "answer", "category"],
        ["id", "video_path", "question", "choices", "answer", "duration"],
        ["video_id", "question", "a0", "a1", "answer", "type"],
        ["id", "question", "options", "answer", "question_type", "video"],
        ["question_id", "video", "duration", "task_type", "question", "options", "answer"],
    ],
)
def test_generic_sets_stay_generic(columns: list[str]) -> None:
    assert find_adapter(columns).name == "generic"


def test_every_benchmark_names_a_layout() -> None:
    assert {settings.adapter for settings in BENCHMARKS.values()} <= set(ADAPTERS)
