"""Row-to-example functions for the Hub layouts of published benchmarks; joined with the others in `layouts.py`.

How a benchmark is asked and averaged is in `benchmark_settings.py`; where its files lie is `benchmark_data.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vidground_hf.examples import build_example
from vidground_hf.extraction import extract_number
from vidground_hf.options import clean_cell
from vidground_hf.schema import Example

Row = Mapping[str, Any]

MVBENCH_TASK = "mvbench_task"
"""The column that says which of MVBench's twenty configurations a row is from; its own rows do not."""

# Where each task's clips lie under `video/`, and whether a row's `start` and `end` cut one: MVBench's own evaluation
# notebook, as open-compass/VLMEvalKit repeats it in vlmeval/dataset/mvbench.py.
MVBENCH_FOLDERS: dict[str, tuple[str, bool]] = {
    "action_antonym": ("ssv2_video", False),
    "action_count": ("perception/videos", False),
    "action_localization": ("sta/sta_video", True),
    "action_prediction": ("star/Charades_v1_480", True),
    "action_sequence": ("star/Charades_v1_480", True),
    "character_order": ("perception/videos", False),
    "counterfactual_inference": ("clevrer/video_validation", False),
    "egocentric_navigation": ("vlnqa", False),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", True),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", False),
    "fine_grained_pose": ("nturgbd", False),
    "moving_attribute": ("clevrer/video_validation", False),
    "moving_count": ("clevrer/video_validation", False),
    "moving_direction": ("clevrer/video_validation", False),
    "object_existence": ("clevrer/video_validation", False),
    "object_interaction": ("star/Charades_v1_480", True),
    "object_shuffle": ("perception/videos", False),
    "scene_transition": ("scene_qa/video", False),
    "state_change": ("perception/videos", False),
    "unexpected_action": ("FunQA_test/test", False),
}
# The zip that a subject's clips are in, from lmms_eval/tasks/videommmu/utils.py.
_VIDEOMMMU_ZIPS: dict[str, tuple[str, ...]] = {
    "Art": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Engineering": ("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics",
                    "Energy_and_Power", "Materials", "Mechanical_Engineering"),
    "Humanities": ("History", "Literature", "Psychology", "Sociology"),
    "Medicine": ("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
                 "Public_Health"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
}  # fmt: skip
_ZIP_OF_SUBJECT = {subject: name for name, subjects in _VIDEOMMMU_ZIPS.items() for subject in subjects}
# `qa_type` tells the three tracks apart; their configurations have the same columns but for `image`.
_TRACKS = {"ocr": "Perception", "asr": "Perception", "comprehension": "Comprehension", "adaptation": "Adaptation",
           "analysis": "Adaptation"}  # fmt: skip
_CAPTION = re.compile(r"^(?:sentence|caption|option) \w+: ", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+%?")
_LETTERED = re.compile(r"\n\(?A[.)] ")


def convert_videomme(row: Row) -> Example:
    """Video-MME (`lmms-lab/Video-MME`); columns from its dataset card.

    The category is `task_type`, the source `duration`: short, medium or long. Clips are `data/<videoID>.mp4`.
    """
    return build_example(
        row_id=row["question_id"],
        question=row["question"],
        options=row["options"],
        answer=row["answer"],
        video=f"data/{row['videoID']}.mp4",
        category=row["task_type"],
        source=row["duration"],
    )


def convert_videommmu(row: Row) -> Example:
    """VideoMMMU (`lmms-lab/VideoMMMU`: Perception, Comprehension, Adaptation).

    `id`, `question`, `options`, `answer` and `question_type` are on its dataset card, `qa_type` in public scripts that
    read it. An id occurs once in each track, so the track goes before it. The category is the track, the source the
    subject's zip; open questions with a number for an answer are numerical. Clips are `<zip>/<id>.mp4`.
    """
    name = clean_cell(row["id"]) or ""
    kind = (clean_cell(row["qa_type"]) or "").casefold()
    track = next((track for word, track in _TRACKS.items() if kind.endswith(word)), None)
    folder = _ZIP_OF_SUBJECT.get("_".join(name.split("_")[1:-1]))
    is_open = not row["options"] or (clean_cell(row["question_type"]) or "").casefold() == "open"
    open_type = "numerical" if _NUMBER.fullmatch(clean_cell(row["answer"]) or "") else "free_form"
    return build_example(
        row_id=f"{track}_{name}",
        question=row["question"],
        options=None if is_open else row["options"],
        answer=row["answer"],
        problem_type=open_type if is_open else "multiple_choice",
        video=f"{folder}/{name}.mp4" if folder else f"{name}.mp4",
        category=track,
        source=folder,
    )


def convert_mmvu(row: Row) -> Example:
    """MMVU (`yale-nlp/MMVU`, multiple choice and open-ended); columns from its README and `data/validation.json`.

    `choices` maps five letters to texts, all of them empty for open-ended questions; `video` is a Hub address. The
    category is the subject.
    """
    is_open = (clean_cell(row["question_type"]) or "") == "open-ended"
    metadata = row.get("metadata")
    return build_example(
        row_id=row["id"],
        question=row["question"],
        options=None if is_open else row["choices"],
        answer=row["answer"],
        problem_type="free_form" if is_open else "multiple_choice",
        video=row["video"],
        category=metadata.get("subject") if isinstance(metadata, Mapping) else None,
    )


def convert_mvbench(row: Row) -> Example:
    """MVBench (`OpenGVLab/MVBench`), rows of a configuration with its name in the column `mvbench_task`.

    `video, question, candidates, answer`, and `start` and `end` (seconds) in five tasks; columns from lmms-eval and
    VLMEvalKit. The clips of `episodic_reasoning` are folders of frames, 3 a second.
    """
    task = clean_cell(row[MVBENCH_TASK]) or ""
    folder, is_cut = MVBENCH_FOLDERS.get(task, ("", False))
    example = build_example(
        row_id=f"{task}_{row['video']}_{row['question']}",
        question=row["question"],
        options=row["candidates"],
        answer=row["answer"],
        video="/".join(part for part in (folder, clean_cell(row["video"])) if part),
        category=task,
    )
    if task == "episodic_reasoning":
        example = replace(example, frame_rate=3.0)
    if not is_cut:
        return example
    start, end = (extract_number(clean_cell(row.get(name)) or "") for name in ("start", "end"))
    return replace(example, start_seconds=start, end_seconds=end)


def convert_mlvu_dev(row: Row) -> Example:
    """MLVU dev, multiple choice, as `sy1998/MLVU_dev` has it for lmms-eval.

    `video_name, duration, question, candidates, answer, task_type`; columns from the card of a set made from it. The
    question repeats the options, which are cut off here; the answer is a letter.
    """
    question = clean_cell(row["question"]) or ""
    return build_example(
        row_id=f"{row['task_type']}_{row['video_name']}_{question}",
        question=_LETTERED.split(question)[0],
        options=row["candidates"],
        answer=row["answer"],
        video=row["video_name"],
        category=row["task_type"],
    )


def convert_tempcompass(row: Row) -> Example:
    """TempCompass (`lmms-lab/TempCompass`: multi-choice, yes_no, caption_matching, captioning).

    `video_id, question, answer, dim` on its dataset card; `mc_question` and `mc_answer` in captioning, from lmms-eval.
    The options stand in the question, a line each. The category is the task, the source the aspect of time (`dim`).
    Yes-or-no questions get these two options. Clips are `videos/<video_id>.mp4`.
    """
    lines = (clean_cell(row["question"]) or "").split("\n")
    answer = clean_cell(row["answer"]) or ""
    options: list[str] | None = lines[1:]
    if row.get("mc_question") is not None:
        task, options = "captioning", None
    elif len(lines) == 1:
        task, options = "yes_no", ["yes", "no"]
    elif _CAPTION.match(lines[1]):
        task, options, answer = (
            "caption_matching",
            [_CAPTION.sub("", one) for one in lines[1:]],
            _CAPTION.sub("", answer),
        )
    else:
        task = "multi-choice"
    return build_example(
        row_id=f"{task}_{row['video_id']}_{row['question']}",
        question=lines[0] if options else row["question"],
        options=options,
        answer=answer,
        problem_type="multiple_choice" if options else "free_form",
        video=f"videos/{row['video_id']}.mp4",
        category=task,
        source=row["dim"],
    )


def convert_longvideobench(row: Row) -> Example:
    """LongVideoBench (`longvideobench/LongVideoBench`, parquet or `lvb_val.json`).

    Columns from the card of `longvideobench/LongVideoBench-Meta`: options are `candidates` (json), or `option0` to
    `option4` with "N/A" where there are fewer; `correct_choice` counts from 0 and is not in the test split. The
    category is `question_category`, the source `duration_group`, the greatest length in seconds. Clips are
    `videos/<video_path>`.
    """
    options = row.get("candidates")
    if options is None:
        texts = [clean_cell(row.get(f"option{k}")) for k in range(5)]
        options = [text for text in texts if text not in (None, "", "N/A")]
    return build_example(
        row_id=row["id"],
        question=row["question"],
        options=options,
        answer=row.get("correct_choice"),
        video=f"videos/{row['video_path']}",
        category=row["question_category"],
        source=row["duration_group"],
    )


def convert_egoschema(row: Row) -> Example:
    """EgoSchema (`lmms-lab/egoschema`; only its `Subset` has answers).

    `question_idx, question, video_idx, option, answer`, the answer a position counted from 0, written as text; columns
    from lmms-eval and other public loaders, not from the card. Clips are `videos/<video_idx>.mp4`.
    """
    position = clean_cell(row["answer"]) or ""
    return build_example(
        row_id=row["question_idx"],
        question=row["question"],
        options=row["option"],
        answer=int(position) if position.isdecimal() else row["answer"],
        video=f"videos/{row['video_idx']}.mp4",
    )


# As `layouts.ADAPTERS`: (function, columns a dataset must have, columns it may have).
BENCHMARK_ADAPTERS: dict[str, tuple[Callable[[Row], Example], tuple[str, ...], tuple[str, ...]]] = {
    "videomme": (
        convert_videomme,
        ("question_id", "videoID", "duration", "task_type", "question", "options", "answer"),
        (),
    ),
    "videommmu": (convert_videommmu, ("id", "question", "options", "answer", "question_type", "qa_type"), ()),
    "mmvu": (
        convert_mmvu,
        ("id", "video", "youtube_url", "question_type", "question", "choices", "answer"),
        ("metadata",),
    ),
    "mvbench": (
        convert_mvbench,
        (MVBENCH_TASK, "video", "question", "candidates", "answer"),
        ("start", "end"),
    ),
    "mlvu_dev": (
        convert_mlvu_dev,
        ("video_name", "duration", "question", "candidates", "answer", "task_type"),
        (),
    ),
    "tempcompass": (convert_tempcompass, ("video_id", "question", "answer", "dim"), ("mc_question",)),
    "longvideobench": (
        convert_longvideobench,
        ("id", "video_path", "subtitle_path", "question", "duration_group", "question_category"),
        ("candidates", "option0", "option1", "option2", "option3", "option4", "correct_choice"),
    ),
    "egoschema": (convert_egoschema, ("question_idx", "question", "video_idx", "option", "answer"), ()),
}
