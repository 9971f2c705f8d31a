"""What constrained decoding costs: seconds of an answer under the grammar of tubes, and of as many tokens drawn freely.

python -m benchmarks.constrained_decoding
python -m benchmarks.constrained_decoding --width 1024 --layers 12 --repeats 5
python -m benchmarks.constrained_decoding --backbone FOLDER --dtype bfloat16 --size-px 448

One vLLM engine, one question about a video of 16 s, asked `--batch` times at once, greedy. No model here is trained: under the
grammar it writes a tube, cut off at `--tokens`, and without it something as long. Both in turn, after the prompt is cached
and the grammar compiled. Prints medians of

    free_ms, constrained_ms    an answer: a call / its answers
    ratio                      constrained_ms / free_ms
    per_token_us               what the grammar adds to each token of an answer
    first_ms                   what it adds to the first call, in which it is compiled
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.tube_latency import random_backbone, rendered, versions
from benchmarks.turns import median_seconds, show
from configs.run import quiet_environment
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt
from evaluation.vllm_engine import SamplingArgs, VllmEngine
from model.backbone import load_processor
from model.build import DTYPES


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="folder of a Qwen3-VL; a random one is made without it")
    parser.add_argument("--width", type=int, default=128, help="of the random one's LLM")
    parser.add_argument("--layers", type=int, default=4, help="of the random one's LLM")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of the MLLM")
    parser.add_argument("--size-px", type=int, default=64, help="side of the square video")
    parser.add_argument("--batch", type=int, default=8, help="answers at once")
    parser.add_argument("--tokens", type=int, default=200, help="where an answer is cut off that goes on")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which medians are taken")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    quiet_environment()
    with tempfile.TemporaryDirectory() as folder:
        samples, data = rendered(folder, size_px=arguments.size_px)
        backbone = arguments.backbone or random_backbone(samples, folder, arguments.width, arguments.layers)
        processor = load_processor(backbone)
        prompt = replace(PromptEncoder(processor, data, answer_format="tube")(samples[0]), box_tokens=0)
        longest = len(prompt.input_ids_L) + arguments.tokens
        engine = VllmEngine(backbone, max_model_len=longest, dtype=arguments.dtype)
        args = SamplingArgs(1, 0.0, arguments.tokens, processor.tokenizer.eos_token_id, banned_ids=())
        costs = measure(engine, [prompt] * arguments.batch, args, repeats=arguments.repeats)
    described = {"width": arguments.width, "layers": arguments.layers, "backbone": arguments.backbone or "random"}
    show({"benchmark": "constrained_decoding", **described, **costs, "versions": versions()}, as_json=arguments.json)


def measure(
    engine: Any, prompts: list[EncodedPrompt], args: SamplingArgs, *, repeats: int, version: int = 0
) -> dict[str, Any]:
    """Of answers to the same prompts, with the grammar and without it. engine: a VllmEngine, or one in an actor.

    Raises RuntimeError where answers have several lengths.
    """

    def draw(one: SamplingArgs) -> set[int]:
        groups = engine.generate(prompts, one, seeds=[0] * len(prompts), version=version)
        return {len(rollout.completion_ids) for group in groups for rollout in group}

    draw(replace(args, exact_tokens=1))  # the prompt is cached from here on
    start = time.perf_counter()
    lengths = draw(replace(args, constrained=True))
    first_sec = time.perf_counter() - start
    if len(lengths) != 1:
        raise RuntimeError(f"expected answers of one length, got lengths {sorted(lengths)}")
    (num_tokens,) = lengths
    calls = {
        "free": lambda: draw(replace(args, max_completion_length=num_tokens)),
        "constrained": lambda: draw(replace(args, constrained=True)),
    }
    # Not by `exact_tokens`, which masks the end token at every step: that takes time too.
    if (free := calls["free"]()) != lengths:
        raise RuntimeError(f"expected free answers of {num_tokens} tokens, got lengths {sorted(free)}")
    medians = median_seconds(calls, repeats)
    return in_milliseconds(medians, first_sec, num_answers=len(prompts), num_tokens=num_tokens) | {"repeats": repeats}


def in_milliseconds(
    medians_sec: Mapping[str, float], first_sec: float, *, num_answers: int, num_tokens: int
) -> dict[str, Any]:
    """Seconds of whole calls -> what is reported of them."""
    free, constrained = medians_sec["free"], medians_sec["constrained"]
    return {
        "answers": num_answers,
        "answer_tokens": num_tokens,
        "ratio": round(constrained / free, 3),
        "free_ms": round(1e3 * free / num_answers, 2),
        "constrained_ms": round(1e3 * constrained / num_answers, 2),
        "per_token_us": round(1e6 * (constrained - free) / (num_answers * num_tokens), 1),
        "first_ms": round(1e3 * (first_sec - constrained), 1),
    }


if __name__ == "__main__":
    main()
