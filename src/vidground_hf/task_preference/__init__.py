"""Task preference optimization: a vision-language model that learns to look from spans, boxes and masks.

Needs the `models` extra (torch, transformers); `import vidground_hf` does not load it.
"""

from vidground_hf.task_preference.adapters_lora import add_lora as add_lora
from vidground_hf.task_preference.configuration import TASKS as TASKS
from vidground_hf.task_preference.configuration import TaskPreferenceConfig as TaskPreferenceConfig
from vidground_hf.task_preference.generation import TaskPreferenceAnswer as TaskPreferenceAnswer
from vidground_hf.task_preference.media_facts import MediaFacts as MediaFacts
from vidground_hf.task_preference.modeling import TaskPreferenceModel as TaskPreferenceModel
from vidground_hf.task_preference.tokens import add_task_tokens as add_task_tokens
