"""What longer videos cost the `bridge` grounder, where the answered interval stays the same four frames.

python -m benchmarks.decoder_time --json
python -m benchmarks.decoder_time --repeats 50

One rendered video of 16 s, cut to its first 8, 16, 32, 64 and 128 frames, all of them sampled; the interval is frames 2
to 5. The grounder has its default size, the backbone is the tiny one of the tests. Prints, in turn in one run,

    decoder     the spatial decoder (QGSL), which is called with the interval's frames
    alignment   temporal alignment (ETA), which scores every frame of the video, as the answer may be anywhere
    grounder    all of it

as median milliseconds of a forward and as floating point operations for each length, and `*_ratio`, longest / shortest.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import median_seconds
from configs.data import DataConfig
from configs.model import ModelConfig
from configs.sources import SyntheticSource
from configs.video import VideoConfig
from data.collate import collate_inputs
from data.dataset import PromptEncoder
from data.encoding import text_ids
from data.sources import synthetic
from data.types import FrameSpan
from model.build import build_model
from model.tiny_backbone import make_tiny_backbone

LENGTHS, INTERVAL = (8, 16, 32, 64, 128), (2, 3, 4, 5)
FPS, SIZE_PX = 8.0, 128
PARTS = ("decoder", "alignment", "grounder")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="timed passes; their median counts")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(calls_of_lengths(folder, LENGTHS), arguments.repeats)
    sys.stdout.write(json.dumps(result) + "\n" if arguments.json else table(result))


def measure(calls: dict[int, dict[str, Callable[[], Any]]], repeats: int) -> dict[str, Any]:
    """calls: number of sampled frames -> part -> its forward. -> milliseconds and operations by part and length."""
    flat = {f"{part} {length}": call for length, parts in calls.items() for part, call in parts.items()}
    with torch.no_grad():
        medians = median_seconds(flat, repeats)
        counted = {name: flops(call) for name, call in flat.items()}
    shortest, longest = min(calls), max(calls)
    result: dict[str, Any] = {"benchmark": "decoder_time", "interval_frames": len(INTERVAL), "repeats": repeats}
    for part in PARTS:
        result[f"{part}_ratio"] = round(medians[f"{part} {longest}"] / medians[f"{part} {shortest}"], 3)
        result[f"{part}_ms"] = {length: round(1e3 * medians[f"{part} {length}"], 3) for length in calls}
        result[f"{part}_flops"] = {length: counted[f"{part} {length}"] for length in calls}
    return result | {"threads": torch.get_num_threads(), "torch": torch.__version__}


def table(result: dict[str, Any]) -> str:
    """Milliseconds and operations, a line for each length."""
    lines = ["frames  " + "".join(f"{part + ' ms':>14}{'MFLOP':>10}" for part in PARTS)]
    for length in result["decoder_ms"]:
        cells = [f"{result[f'{part}_ms'][length]:14.3f}{result[f'{part}_flops'][length] / 1e6:10.3f}" for part in PARTS]
        lines.append(f"{length:<8}" + "".join(cells))
    lines.append("ratio   " + "".join(f"{result[f'{part}_ratio']:14.3f}{'':10}" for part in PARTS))
    return "\n".join(lines) + "\n"


def flops(call: Callable[[], Any]) -> int:
    """Floating point operations of the matrix products of a call, those of attention too."""
    # The counter does not know the CPU's fused attention; written out, attention is two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def calls_of_lengths(folder: str, lengths: tuple[int, ...]) -> dict[int, dict[str, Callable[[], Any]]]:
    """Number of sampled frames -> part -> a call of it, with the inputs that it has in a forward of the whole model."""
    source = SyntheticSource(
        root=f"{folder}/videos",
        num_videos={"train": 1},
        size_px=SIZE_PX,
        fps=FPS,
        duration_sec=(max(lengths) + 1) / FPS,
        min_interval_sec=0.5,
        max_interval_sec=0.75,
    )
    synthetic.render(source, num_processes=1)
    samples = synthetic.load(source, "train").samples
    make_tiny_backbone(samples, f"{folder}/backbone")
    # Without a bound of pixels of its own, the processor would make the frames of the longest video smaller.
    video = VideoConfig(sample_fps=FPS, max_frames=max(lengths), max_pixels=max(lengths) * SIZE_PX**2)
    data = DataConfig(source=source, video=video)
    model, processor = build_model(ModelConfig(backbone=f"{folder}/backbone", dtype="float32"), data)
    encode, answer = PromptEncoder(processor, data), text_ids(processor, "<time> 0.25 - 0.75 </time>")
    args = {"num_queries": model.num_queries, "pad_id": processor.tokenizer.pad_token_id}
    calls = {}
    for length in lengths:
        sample = replace(samples[0], clip=FrameSpan(0, length), span=None, boxes_xyxy_px=None)
        batch = collate_inputs([encode(sample)], [answer], [INTERVAL], **args)
        calls[length] = calls_of_parts(model.eval(), batch)
    return calls


def calls_of_parts(model: nn.Module, batch: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """One forward of the whole model; its parts are called again with what they were given."""
    grounder: Any = model.grounder
    parts = {"decoder": grounder.decoder, "alignment": grounder.alignment, "grounder": grounder}
    calls: dict[str, Callable[[], Any]] = {}

    def keep(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        calls[name] = partial(module, *args, **kwargs)

    hooks = [module.register_forward_pre_hook(partial(keep, name), with_kwargs=True) for name, module in parts.items()]
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return calls


if __name__ == "__main__":
    main()
