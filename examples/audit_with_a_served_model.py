"""How much of a dataset a language model answers without the video, and which of it is no luck.

It needs a server that speaks OpenAI's chat completions, best one that gives log-probabilities of its letters:

    vllm serve Qwen/Qwen3-4B-Instruct-2507
    python examples/audit_with_a_served_model.py lmms-lab/Video-MME --split test

`transformers serve Qwen/Qwen3-4B-Instruct-2507` gives none; there only the letters it writes count.
A key, where the server wants one, is read from $VIDGROUND_ENDPOINT_KEY. Started again, it asks only what is missing.
"""

import argparse

from vidground_hf import EndpointAnswerer, calibrated, curate, open_dataset
from vidground_hf.tables import format_table

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", nargs="?", default="lmms-lab/Video-MME", help="a dataset on the Hub, a file or a folder")
parser.add_argument("--split", help="only this split")
parser.add_argument("--model", default="Qwen/Qwen3-4B-Instruct-2507", help="as the server calls it")
parser.add_argument("--url", default="http://localhost:8000/v1", help="the server")
arguments = parser.parse_args()

dataset = open_dataset(arguments.data, split=arguments.split)
answerer = EndpointAnswerer(arguments.model, base_url=arguments.url, max_tokens=64, logprobs=True)
curation = curate(dataset, answerer=answerer, rule=calibrated(alpha=0.05), view="text", progress=True)
print(format_table(curation.report))
