"""A GRPO group whose video and prompt are computed once, against one that computes them for every completion.

python -m benchmarks.prompt_once --completions 8 --repeats 10

Prints one line of JSON: `ratio` = median seconds of forward and backward, per completion / once. The tiny random
backbone of the tests on one rendered video; both sides do the same work otherwise and give the same log-probs
(`max_abs_diff`).
"""

import argparse
import json
import sys
import tempfile
from typing import Any

import torch

from benchmarks.turns import median_seconds
from configs.data import DataConfig
from configs.model import BridgeConfig, ModelConfig
from configs.sources import SyntheticSource
from data.collate import Batch, collate_inputs
from data.dataset import PromptEncoder
from data.encoding import text_ids
from data.sources import synthetic
from model.build import build_model
from model.tiny_backbone import make_tiny_backbone


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=8, help="of the one prompt")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes; their median counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        once, each = build(folder, arguments.completions)
        medians = median_seconds({"once": once, "each": each}, arguments.repeats)
        difference = float((once() - each()).abs().max())
    result = {
        "benchmark": "prompt_once",
        "completions": arguments.completions,
        "ratio": round(medians["each"] / medians["once"], 3),
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "max_abs_diff": difference,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def build(folder: str, count: int) -> tuple[Any, Any]:
    """Two functions that run forward and backward and return the log-probs."""
    source = SyntheticSource(root=f"{folder}/videos", num_videos={"train": 1})
    synthetic.render(source, num_processes=1)
    samples = synthetic.load(source, "train").samples
    make_tiny_backbone(samples, f"{folder}/backbone")
    data = DataConfig(source=source)
    bridge = BridgeConfig(width=96, num_layers=3, num_heads=4, ffn_width=384)
    config = ModelConfig(backbone=f"{folder}/backbone", dtype="float32", bridge=bridge, freeze_vision=False)
    model, processor = build_model(config, data)
    prompt = PromptEncoder(processor, data)(samples[0])
    answers = [text_ids(processor, f"<time> {i}.0 - 7.5 </time>") for i in range(count)]
    frames = [list(range(8))] * count
    args = {"num_queries": model.num_queries, "pad_id": processor.tokenizer.pad_token_id}
    shared = collate_inputs([prompt], answers, frames, vision_of_row=[0] * count, **args)
    repeated = collate_inputs([prompt] * count, answers, frames, **args)

    def run(batch: Batch) -> torch.Tensor:
        output = model(**batch)
        model.zero_grad()
        (output.logps_BL.sum() + output.grounding.boxes_cxcywh_NBF4.sum()).backward()
        return output.logps_BL.detach()

    return lambda: run(shared), lambda: run(repeated)


if __name__ == "__main__":
    main()
