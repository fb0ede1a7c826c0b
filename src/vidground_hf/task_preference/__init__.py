"""Task preference optimization: a vision-language model that learns to look from spans, boxes and masks.

Needs the `models` extra (torch, transformers); `import vidground_hf` does not load it.
"""

from vidground_hf.task_preference.adapters_lora import add_lora as add_lora
from vidground_hf.task_preference.collating import TaskPreferenceCollator as TaskPreferenceCollator
from vidground_hf.task_preference.configuration import TASKS as TASKS
from vidground_hf.task_preference.configuration import TaskPreferenceConfig as TaskPreferenceConfig
from vidground_hf.task_preference.evaluation import answer_rows as answer_rows
from vidground_hf.task_preference.evaluation import measure_forgetting as measure_forgetting
from vidground_hf.task_preference.evaluation import score_answers as score_answers
from vidground_hf.task_preference.generation import TaskPreferenceAnswer as TaskPreferenceAnswer
from vidground_hf.task_preference.media_facts import MediaFacts as MediaFacts
from vidground_hf.task_preference.modeling import TaskPreferenceModel as TaskPreferenceModel
from vidground_hf.task_preference.targets import Targets as Targets
from vidground_hf.task_preference.task_rows import BadRowError as BadRowError
from vidground_hf.task_preference.task_rows import TaskRow as TaskRow
from vidground_hf.task_preference.task_rows import read_rows as read_rows
from vidground_hf.task_preference.tokens import add_task_tokens as add_task_tokens
from vidground_hf.task_preference.trainer import TaskPreferenceTrainer as TaskPreferenceTrainer
from vidground_hf.task_preference.trainer_stages import STAGES as STAGES
from vidground_hf.task_preference.trainer_stages import TrainingStage as TrainingStage
