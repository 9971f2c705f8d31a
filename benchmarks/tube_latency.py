"""From an encoded prompt to a tube of 20 boxes: `bridge` and `interleaved` against `text`, on one backbone.

python -m benchmarks.tube_latency --json
python -m benchmarks.tube_latency --width 1024 --layers 12 --repeats 3
python -m benchmarks.tube_latency --backbone FOLDER --dtype bfloat16 --size-px 448

One rendered video of 16 s, of which the model is shown 2 frames a second, 20 of them in the true interval. One question at a
time, greedy, by the evaluator's own Predictor. One vLLM engine writes the answers of all three, whose MLLM is the same; then
`bridge` and `interleaved` take one forward for the boxes of 20 frames, and `text` reads them.

No model here is trained, and a random one writes no answer. So the engine draws exactly as many tokens as the true answer
has, whatever they are, and the true answer then stands in their place. Its caches (prompts, processed videos, encoder) are
emptied before every call, outside of the time: every call processes, encodes and reads the video anew. Prints medians of

    tube_ms        all of it: generation_ms, in the engine, and boxes_ms, the forward or the reading
    *_ratio        tube_ms of text / tube_ms of the other
    prompt_ms      of every generation_ms, what comes with the first token: processing, encoding and reading the video
    vision_ms      of the forward, the vision tower: it encodes the video again, as the engine keeps what it had for itself
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.turns import median_seconds
from configs.checkpoints import write_atomically
from configs.data import DataConfig, PromptConfig
from configs.model import ModelConfig
from configs.run import quiet_environment
from configs.sources import SyntheticSource
from configs.video import VideoConfig
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt, text_ids
from data.sources import synthetic
from data.types import GroundingSample
from data.written_answers import write_answer
from evaluation.predictions import Prediction
from evaluation.predictor import Predictor, Question
from evaluation.vllm_engine import SamplingArgs, VllmEngine
from model.backbone import encode_vision, load_mllm, load_processor
from model.build import DTYPES
from model.grounding_model import GroundingConfig, GroundingModel
from model.tiny_backbone import make_tiny_backbone

NAMES = ("bridge", "interleaved", "text")
NUM_FRAMES, SAMPLE_FPS, DURATION_SEC = 20, 2.0, 16.0
# Times of its frames have one decimal, as those of an answer: the answered interval is the true one.
FPS = 10.0

Write = Callable[[EncodedPrompt, int], list[int]]
"""A prompt and a number of tokens -> so many, drawn by a model."""


class TubeQuestion:
    """The sample, asked of one grounder.

    answer_ids: of the true answer. writing_sec: of each call, the time of `write`. num_boxes: of the last tube.
    """

    def __init__(
        self, sample: GroundingSample, model: GroundingModel, processor: Any, data: DataConfig, write: Write
    ) -> None:
        encoder = PromptEncoder(processor, data, answer_format=model.grounder.answer_format)
        self.sample, self.model, self.prompt, self.write = sample, model, encoder(sample), write
        self.answer_ids = text_ids(processor, write_answer(sample, self.prompt.clip.frame_idx_T, encoder.style))
        self.predictor = Predictor(model, encoder, self._generate)
        self.writing_sec: list[float] = []
        self.num_boxes = 0

    def __call__(self) -> Prediction:
        """The whole tube."""
        (prediction,) = self.predictor.answer([self.sample], [Question(self.sample, self.prompt)])
        self.num_boxes = len(prediction.boxes)
        return prediction

    def _generate(self, prompts: list[EncodedPrompt]) -> list[list[int]]:
        start = time.perf_counter()
        (prompt,) = prompts
        drawn = self.write(prompt, len(self.answer_ids))
        self.writing_sec.append(time.perf_counter() - start)
        if len(drawn) != len(self.answer_ids):
            raise RuntimeError(f"expected {len(self.answer_ids)} tokens of the engine, got {len(drawn)}")
        return [self.answer_ids]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="folder of a Qwen3-VL; a random one is made without it")
    parser.add_argument("--width", type=int, default=128, help="of the random one's LLM")
    parser.add_argument("--layers", type=int, default=4, help="of the random one's LLM")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of the MLLM")
    parser.add_argument("--size-px", type=int, default=128, help="side of the square video")
    parser.add_argument("--repeats", type=int, default=9, help="rounds, of which medians are taken")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument("--out", type=Path, help="file that gets the JSON too")
    arguments = parser.parse_args()
    quiet_environment()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(folder, arguments)
    if arguments.out is not None:
        write_atomically(arguments.out, json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n" if arguments.json else table(result))


def measure(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything in turn on one engine, whose caches are emptied in between."""
    samples, data = rendered(folder, size_px=arguments.size_px)
    backbone = arguments.backbone or random_backbone(samples, folder, arguments.width, arguments.layers)
    models, processor = grounders(backbone, data, arguments.dtype), load_processor(backbone)
    engine: VllmEngine | None = None

    def write(prompt: EncodedPrompt, num_tokens: int) -> list[int]:
        assert engine is not None
        eos_id, banned_ids = processor.tokenizer.eos_token_id, tuple(models["text"].banned_ids)
        args = SamplingArgs(1, 0.0, num_tokens, eos_id, banned_ids, exact_tokens=num_tokens)
        ((rollout,),) = engine.generate([prompt], args, seeds=[0], version=0)
        return rollout.completion_ids

    asked = {name: TubeQuestion(samples[0], models[name], processor, data, write) for name in NAMES}
    longest = max(len(question.prompt.input_ids_L) + len(question.answer_ids) for question in asked.values())
    engine = VllmEngine(backbone, max_model_len=longest, dtype=arguments.dtype)
    parts = {
        "prompt": lambda: write(asked["bridge"].prompt, 1),
        "vision": lambda: encoded_again(asked["bridge"]),
    }
    medians = median_seconds(in_turn({**asked, **parts}, engine.forget), arguments.repeats)
    writing = {name: statistics.median(asked[name].writing_sec[-arguments.repeats :]) for name in NAMES}
    return {
        "benchmark": "tube_latency",
        "backbone": described(models["text"]),
        "frames": NUM_FRAMES,
        "boxes": {name: asked[name].num_boxes for name in NAMES},
        "prompt_tokens": {name: len(asked[name].prompt.input_ids_L) for name in NAMES},
        "answer_tokens": {name: len(asked[name].answer_ids) for name in NAMES},
        **in_milliseconds(medians, writing),
        "repeats": arguments.repeats,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def in_turn(calls: Mapping[str, Callable[[], Any]], forget: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """Each call with a turn of its own for `forget` before it."""
    turns: dict[str, Callable[[], Any]] = {}
    for name, call in calls.items():
        turns |= {f"forget before {name}": forget, name: call}
    return turns


def in_milliseconds(medians_sec: Mapping[str, float], writing_sec: Mapping[str, float]) -> dict[str, Any]:
    """Seconds of whole tubes, of `prompt` and of `vision`; of writing alone -> what is reported of times."""
    return {
        "bridge_ratio": round(medians_sec["text"] / medians_sec["bridge"], 2),
        "interleaved_ratio": round(medians_sec["text"] / medians_sec["interleaved"], 2),
        "tube_ms": {name: round(1e3 * medians_sec[name], 2) for name in NAMES},
        "generation_ms": {name: round(1e3 * writing_sec[name], 2) for name in NAMES},
        "boxes_ms": {name: round(1e3 * (medians_sec[name] - writing_sec[name]), 2) for name in NAMES},
        "prompt_ms": round(1e3 * medians_sec["prompt"], 2),
        "vision_ms": round(1e3 * medians_sec["vision"], 2),
    }


def table(result: Mapping[str, Any]) -> str:
    """A line for each grounder, and what is behind them."""
    columns = ("prompt_tokens", "answer_tokens", "generation_ms", "boxes_ms", "tube_ms")
    lines = [f"{'':<12}" + "".join(f"{column:>15}" for column in columns) + f"{'text / it':>12}"]
    for name in NAMES:
        cells = "".join(f"{result[column][name]:>15}" for column in columns)
        lines.append(f"{name:<12}{cells}{result.get(f'{name}_ratio', 1.0):>12}")
    told = ("prompt_ms", "vision_ms", "backbone", "boxes", "repeats", "threads", "versions")
    return "\n".join([*lines, *(f"{key} {result[key]}" for key in told)]) + "\n"


def rendered(folder: str, *, size_px: int) -> tuple[list[GroundingSample], DataConfig]:
    """The samples of one video with one shape; the first one is asked about a tube."""
    interval_sec = NUM_FRAMES / SAMPLE_FPS
    source = SyntheticSource(
        root=f"{folder}/videos",
        num_videos={"train": 1},
        num_objects=(1, 1),
        size_px=size_px,
        fps=FPS,
        duration_sec=DURATION_SEC,
        min_interval_sec=interval_sec,
        max_interval_sec=interval_sec,
    )
    synthetic.render(source, num_processes=1)
    data = DataConfig(source=source, video=VideoConfig(sample_fps=SAMPLE_FPS), prompt=PromptConfig(tube_unit="frames"))
    return synthetic.load(source, "train").samples, data


def random_backbone(samples: list[GroundingSample], folder: str, width: int, num_layers: int) -> str:
    """Its folder; the tokenizer knows the answers of all grounders."""
    backbone = str(Path(folder) / "backbone")
    make_tiny_backbone(samples, backbone, answer_formats=("span", "tube"), width=width, num_layers=num_layers)
    return backbone


def grounders(backbone: str, data: DataConfig, dtype: str) -> dict[str, GroundingModel]:
    """A fresh one of each name with its default sizes, all on one MLLM."""
    mllm = load_mllm(backbone, dtype=DTYPES[dtype])
    models = {}
    for name in NAMES:
        args = ModelConfig(grounder=name).args_of_grounder()
        config = GroundingConfig(grounder=name, grounder_args=args, prompt=data.prompt.model_dump())
        models[name] = GroundingModel(config, mllm).eval()
        if torch.cuda.is_available():
            torch.nn.Module.cuda(models[name])
    return models


def encoded_again(question: TubeQuestion) -> None:
    """The vision tower on the question's video."""
    prompt, device = question.prompt, question.model.device
    with torch.inference_mode():
        vision = encode_vision(question.model.mllm, prompt.pixel_values_VC.to(device), prompt.grid_3[None].to(device))
    # Waits for an accelerator.
    vision.merged[0].cpu()


def described(model: GroundingModel) -> dict[str, Any]:
    """Sizes of an MLLM."""
    text = model.mllm.config.text_config
    parameters = sum(parameter.numel() for parameter in model.mllm.parameters())
    return {
        "width": text.hidden_size,
        "layers": text.num_hidden_layers,
        "parameters": parameters,
        "dtype": str(model.mllm.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    import vllm

    return {module.__name__: module.__version__ for module in (torch, transformers, vllm)}


if __name__ == "__main__":
    main()
