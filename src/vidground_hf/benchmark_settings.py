"""How each published benchmark is read, asked and averaged: one table of settings.

Nothing is opened, asked or averaged here. Every prompt quotes the source that is named beside it;
`docs/paper_index.md` lists them with the sources of the averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vidground_hf.benchmark_layouts import MVBENCH_FOLDERS
from vidground_hf.prompts import Wording
from vidground_hf.schema import Example, ProblemType

DEFAULT_NUM_FRAMES: tuple[int, ...] = (16, 32, 64)
"""VidGround's tables (arXiv 2604.05117); no benchmark here prescribes a number."""

Average = Literal["questions", "categories"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSettings:
    """One benchmark.

    Attributes:
        name (`str`): its key in `BENCHMARKS`.
        hub_id (`str`): where its questions are.
        split (`str`, *optional*): the split that has answers.
        configs (`tuple[str, ...]`): configurations to read and put one after the other; empty where there is one.
        data_files (`tuple[str, ...]`): the files of questions in a repository that does not say which they are.
        config_column (`str`, *optional*): a column that says which configuration a row is from, where rows do not.
        adapter (`str`): the layout, a key of `adapters.ADAPTERS`.
        wordings (`Mapping[str, Wording]`): the published prompts: by `category/problem_type`, category, problem type,
            or `""` for all others.
        subtitled (`Wording`, *optional*): the published prompt where subtitles are shown.
        average (`str`): what the published figure is the mean over: questions, or the means of the categories.
        only_choices (`bool`): leave open-ended questions out of it, because a language model judges them in the paper,
            or the paper averages multiple choice alone.
        video_file (`str`, *optional*): the file of a clip where rows give a name without an extension.
        folders (`Mapping[str, str]`): the folder of the clips of each category, where rows do not say.
        url (`str`, *optional*): what precedes file names in rows that hold addresses; cut where clips are on the disk.
        subtitle_file (`tuple[str, str]`, *optional*): a column, and the file it names with `{}` for its value.
        download (`str`): what to download and unpack.
        notes (`tuple[str, ...]`): what differs from the paper; printed with the results.
    """

    name: str
    hub_id: str
    adapter: str
    wordings: Mapping[str, Wording]
    download: str
    split: str | None = None
    configs: tuple[str, ...] = ()
    data_files: tuple[str, ...] = ()
    config_column: str | None = None
    subtitled: Wording | None = None
    average: Average = "questions"
    only_choices: bool = False
    video_file: str | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    subtitle_file: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()

    def find_wording(self, example: Example, *, with_subtitles: bool = False) -> Wording:
        """The published prompt for a question (`Wording`)."""
        if with_subtitles and self.subtitled is not None:
            return self.subtitled
        kind, category = example.problem_type, example.category or ""
        keys = (f"{category}/{kind}", category, kind, "")
        return next(self.wordings[key] for key in keys if key in self.wordings)


def _word(
    instruction: str,
    *,
    head: str = "",
    question: str = "{question}",
    option: str = "{letter}. {option}",
    **others: str,
) -> Wording:
    """A wording that ends in one instruction for all problem types but those in `others`."""
    kinds: tuple[ProblemType, ...] = ("multiple_choice", "numerical", "ocr", "free_form", "regression")
    return Wording(
        head=head,
        question=question,
        option=option,
        instructions={kind: others.get(kind, instruction) for kind in kinds},
    )


# "Answer with the option's letter from the given choices directly." is what lmms-eval adds for these sets
# (lmms_eval/tasks/{longvideobench,egoschema}); LongVideoBench's own loader and VLMEvalKit use it, too.
_LETTER_DIRECTLY = _word("Answer with the option's letter from the given choices directly.")
# github.com/MME-Benchmarks/Video-MME, README, as quoted in lmms_eval/tasks/videomme/utils.py.
_VIDEOMME = (
    "Select the best answer to the following multiple-choice question based on the video{also}. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
# lmms_eval/tasks/videommmu/_default_template_yaml; the authors' repository words it otherwise.
_VIDEOMMMU_DIRECT = "Please directly output the option letter/data as the answer."
_VIDEOMMMU_APPLY = (
    f"{_VIDEOMMMU_DIRECT} You should watch and learn the video content. Then apply what you learned to answer the "
    "following {kind} question. The image for this question is at the end of the video."
)
# github.com/yale-nlp/MMVU, utils/constant.py, the prompts for direct answers.
_MMVU = "Do not generate any intermediate reasoning process. {then}"
# MVBench's evaluation notebook (github.com/OpenGVLab/Ask-Anything) and MLVU's choice_bench.py, as in
# VLMEvalKit's vlmeval/dataset/mvbench.py and mlvu.py.
_MVBENCH_HEAD = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question."
)
_MLVU_HEAD = "Carefully watch this video and pay attention to every detail. Based on your observations, "
_MLVU_CHOICE = _word(
    "Only give the best option.",
    head=f"{_MLVU_HEAD}select the best option that accurately addresses the question.",
    question="Question: {question}\nOptions:",
    option="({letter}) {option}",
)

# The last two are generation tasks; their files have other columns.
_MLVU_FOLDERS = {
    "plotQA": "1_plotQA", "findNeedle": "2_needle", "ego": "3_ego", "count": "4_count", "order": "5_order",
    "anomaly_reco": "6_anomaly_reco", "topic_reasoning": "7_topic_reasoning", "subPlot": "8_sub_scene",
    "summary": "9_summary",
}  # fmt: skip

BENCHMARKS: dict[str, BenchmarkSettings] = {
    settings.name: settings
    for settings in (
        BenchmarkSettings(
            name="videomme",
            hub_id="lmms-lab/Video-MME",
            split="test",
            adapter="videomme",
            wordings={"": _word("The best answer is:", head=_VIDEOMME.format(also=""))},
            subtitled=_word("The best answer is:", head=_VIDEOMME.format(also=" and the subtitles")),
            subtitle_file=("videoID", "subtitle/{}.srt"),
            download="videos_chunked_*.zip, which unpack into data/, and subtitle.zip, which unpacks into subtitle/",
            notes=("subtitles are shown whole; the authors show those of the sampled frames",),
        ),
        BenchmarkSettings(
            name="videommmu",
            hub_id="lmms-lab/VideoMMMU",
            split="test",
            configs=("Perception", "Comprehension", "Adaptation"),
            adapter="videommmu",
            wordings={
                "": _word(_VIDEOMMMU_DIRECT),
                "Adaptation/multiple_choice": _word("", head=_VIDEOMMMU_APPLY.format(kind="multi-choice")),
                "Adaptation": _word("", head=_VIDEOMMMU_APPLY.format(kind="open-ended")),
            },
            average="categories",
            download="Art.zip, Business.zip, Engineering.zip, Humanities.zip, Medicine.zip and Science.zip, which "
            "unpack into folders of these names; never question_only, whose clips hold the question alone",
            notes=(
                "the prompts are those of lmms-eval; the authors' own repository does not ask for the letter, and in "
                "Perception and Comprehension asks to ignore the quiz question in the last frame",
                "a question's picture stands at the end of its clip; evenly spread frames may miss it",
                "open questions are compared as numbers to 2 decimals, or with ROUGE; the authors look for the answer "
                "in what was said",
            ),
        ),
        BenchmarkSettings(
            name="mmvu",
            hub_id="yale-nlp/MMVU",
            split="validation",
            adapter="mmvu",
            wordings={
                "": _word(
                    _MMVU.format(then="Answer directly with the option letter from the given choices."),
                    free_form=_MMVU.format(then="Directly output the final short answer."),
                    question="Question: {question}",
                    option="{letter}: {option}",
                )
            },
            only_choices=True,
            url="https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/",
            download="the folder videos",
            notes=("open-ended answers, in the groups, are scored with ROUGE; in the paper a language model judges",),
        ),
        BenchmarkSettings(
            name="mvbench",
            hub_id="OpenGVLab/MVBench",
            split="train",
            configs=tuple(MVBENCH_FOLDERS),
            config_column="mvbench_task",
            adapter="mvbench",
            wordings={
                "": _word(
                    "Only give the best option.",
                    head=_MVBENCH_HEAD,
                    question="Question: {question}\nOptions:",
                    option="({letter}) {option}",
                )
            },
            average="categories",
            download="the zips in video/, unpacked where they lie, with what data0613 adds moved beside them; name "
            "the folder video",
            notes=(
                "the authors begin the model's answer with 'Best option:('; here it begins it itself",
            ),
        ),
        BenchmarkSettings(
            name="mlvu",
            hub_id="MLVU/MVLU",
            data_files=tuple(f"MLVU/json/{folder}.json" for folder in _MLVU_FOLDERS.values() if folder[0] < "8"),
            adapter="mlvu",
            wordings={"": _MLVU_CHOICE, "free_form": _word("", head=f"{_MLVU_HEAD}answer the given questions.")},
            average="categories",
            only_choices=True,
            folders=_MLVU_FOLDERS,
            download="the folder MLVU/video",
            notes=(
                "from the Hub, the seven multiple-choice tasks are read; a local copy of MLVU/json has the other two",
                "the two generation tasks, in the groups, are scored with ROUGE; in the paper a language model judges",
                "the authors begin the model's answer with 'Best option: ('; here it begins it itself",
            ),
        ),
        BenchmarkSettings(
            name="mlvu_dev",
            hub_id="sy1998/MLVU_dev",
            split="test",
            adapter="mlvu_dev",
            wordings={"": _MLVU_CHOICE},
            average="categories",
            only_choices=True,
            download="video_part_*.zip and action_count.zip; name the folder that video_name starts from",
            notes=("the authors begin the model's answer with 'Best option: ('; here it begins it itself",),
        ),
        BenchmarkSettings(
            name="nextqa",
            hub_id="lmms-lab/NExTQA",
            split="test",
            configs=("MC",),
            adapter="nextqa",
            wordings={"": _LETTER_DIRECTLY},
            video_file="NExTVideo/{}.mp4",
            download="videos.zip, which unpacks into NExTVideo/",
            notes=("NExT-QA publishes no prompt; this is the one that lmms-eval uses for sets of its kind",),
        ),
        BenchmarkSettings(
            name="tempcompass",
            hub_id="lmms-lab/TempCompass",
            split="test",
            configs=("multi-choice", "yes_no", "caption_matching"),
            adapter="tempcompass",
            wordings={
                # github.com/llyx97/TempCompass, `answer_prompt` in its run_*.py.
                "": _word("Please directly give the best option:"),
                "yes_no": _word("Please answer yes or no:"),
                "captioning": _word(""),
            },
            only_choices=True,
            download="tempcompass_videos.zip, which unpacks into videos/",
            notes=(
                "the paper reports each task; the first figure here is over the questions of all three",
                "captioning is left out: in the paper a language model judges it (--config captioning asks it)",
                "yes-or-no questions are asked with these two as lettered options",
            ),
        ),
        BenchmarkSettings(
            name="longvideobench",
            hub_id="longvideobench/LongVideoBench",
            split="validation",
            adapter="longvideobench",
            wordings={"": _LETTER_DIRECTLY},
            subtitle_file=("subtitle_path", "subtitles/{}"),
            download="videos.tar.part.*, joined and unpacked to videos/, and subtitles.tar, unpacked to subtitles/",
            notes=("subtitles are shown before the question; the authors put them between the frames",),
        ),
        BenchmarkSettings(
            name="egoschema",
            hub_id="lmms-lab/egoschema",
            split="test",
            configs=("Subset",),
            adapter="egoschema",
            wordings={"": _LETTER_DIRECTLY},
            download="videos_chunked_*.zip, which unpack into videos/",
            notes=("the 500 questions whose answers are public",),
        ),
    )
}  # fmt: skip


def find_benchmark(name: str) -> BenchmarkSettings | None:
    """Finds settings by a benchmark's name or Hub id, whatever the case; `None` for anything else.

    Example:
        >>> find_benchmark("opengvlab/mvbench").name, find_benchmark("my/own")
        ('mvbench', None)
    """
    wanted = name.casefold()
    return next((one for one in BENCHMARKS.values() if wanted in (one.name, one.hub_id.casefold())), None)


def get_benchmark(name: str) -> BenchmarkSettings:
    """The settings of a benchmark (`BenchmarkSettings`), by name or Hub id; raises `ValueError` for an unknown one."""
    found = find_benchmark(name)
    if found is None:
        raise ValueError(f"no ready settings for {name!r}; there are {', '.join(BENCHMARKS)}. Leave the name out for "
                         "other data")  # fmt: skip
    return found
