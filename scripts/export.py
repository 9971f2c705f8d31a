"""Export a checkpoint as a Hugging Face folder that loads without this repository.

    python -m scripts.export --checkpoint outputs/demo/rft/checkpoint --out outputs/demo/export

    model = AutoModel.from_pretrained("outputs/demo/export", trust_remote_code=True)

The folder is the checkpoint plus the modules that the model needs, copied from this very code with their imports made
relative, plus a model card. `mllm/` in it is an ordinary Qwen3-VL checkpoint for vLLM and transformers.
"""

import argparse
import ast
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.base import ConfigError
from configs.checkpoints import CheckpointError, check_checkpoint
from configs.command_line import explained
from configs.run import ROOT, setup_logging
from model.grounders import GrounderError, locate_grounder

logger = logging.getLogger("scripts.export")

ENTRY = "model.grounding_model"
OURS = ("model", "data")

CARD = """---
library_name: transformers
pipeline_tag: video-text-to-text
license: apache-2.0
tags: [spatio-temporal-video-grounding, video, qwen3_vl]
---

# Bridge-STG

Spatio-temporal video grounding: a sentence in, an interval and one box per sampled frame out. Grounder
`{grounder}` on a Qwen3-VL backbone (`mllm/`, which vLLM and transformers load on its own).

```python
import decord
import numpy as np
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("PATH_OR_NAME", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("PATH_OR_NAME", subfolder="mllm")

video = decord.VideoReader("video.mp4")
fps = video.get_avg_fps()
{choose_frames}
answer = model.ground(
    processor,
    query="the child in red watches the ball",
    frames_THW3=video.get_batch(frame_idx).asnumpy(),
    frame_idx_T=frame_idx,
    fps=fps,
    num_frames=len(video),
    max_new_tokens=32,
)
answer.span            # (first frame, frame after the last), None when the text is no answer
answer.boxes_xyxy_px   # frame index -> (left, top, right, bottom)
```

Instead of decord, any reader will do that gives exactly the frames at `frame_idx`, in presentation order and as RGB bytes
[frames, height, width, 3].

Trained with prompt order `{prompt_order}`, {frames}.
Only safetensors and JSON are stored.
"""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint folder of a run")
    parser.add_argument("--out", required=True, type=Path, help="folder to write; an export that is there is replaced")
    arguments = parser.parse_args()
    setup_logging()
    with explained(CheckpointError, GrounderError):
        export(arguments.checkpoint, arguments.out)
    logger.info("exported to %s", arguments.out)


def export(checkpoint: Path, out: Path) -> None:
    """Write the export folder; an existing one is replaced.

    Raises CheckpointError for a folder that is no checkpoint, and ConfigError for one that is no export to replace.
    """
    check_checkpoint(checkpoint, origin="--checkpoint ")
    if out.exists() and not (out / "config.json").is_file():
        raise ConfigError(f"--out {out}: exists and is no export; expected a new folder, or an export to replace")
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(checkpoint, out)
    config = json.loads((out / "config.json").read_text())
    entry = ENTRY.rpartition(".")[2]
    config["architectures"] = ["GroundingModel"]
    config["auto_map"] = {"AutoConfig": f"{entry}.GroundingConfig", "AutoModel": f"{entry}.GroundingModel"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    copy_code(out, config["grounder"])
    (out / "README.md").write_text(CARD.format(**config, **config["prompt"], **sampling_of_card(config["video"])))


def copy_code(out: Path, grounder: str) -> None:
    """Write the modules that a checkpoint with this grounder needs."""
    module, cls = locate_grounder(grounder)
    for name in tqdm(sorted(needed_modules(ENTRY, f"model{module}")), desc="export code", unit="module"):
        target = out / f"{name.rpartition('.')[2]}.py"
        if target.exists():
            raise RuntimeError(f"two exported modules are named {target.name}")
        target.write_text(relative_imports(_source(name)))
    with (out / "grounders.py").open("a") as stream:
        # transformers takes the files along that import statements name; GROUNDERS names its modules in strings.
        stream.write(f"\nfrom {module} import {cls} as {cls}\n")


def sampling_of_card(video: dict[str, Any]) -> dict[str, str]:
    """How frames are chosen, as code and in words; a budget of prompt tokens is left to the reader's prompts."""
    if video.get("num_frames") is not None:
        count = f"min({video['num_frames']}, len(video))"
        code = f"frame_idx = np.linspace(0, len(video) - 1, {count}).astype(int)"
        return {"choose_frames": code, "frames": f"{video['num_frames']} frames, the first and the last among them"}
    step = f"step = max(fps / {video['sample_fps']}, len(video) / {video['max_frames']})"
    code = f"{step}\nframe_idx = np.floor(np.arange(0, len(video), step)).astype(int)"
    frames = f"{video['sample_fps']} frames per second, at most {video['max_frames']} frames"
    return {"choose_frames": code, "frames": frames}


def needed_modules(*entries: str) -> set[str]:
    """The entries and every module of ours that they import, directly or not."""
    found, pending = set(), list(entries)
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            pending += _imports_of_ours(_source(module), module)
    return found


def _source(module: str) -> str:
    return (ROOT / Path(*module.split("."))).with_suffix(".py").read_text()


def _imports_of_ours(source: str, module: str) -> list[str]:
    imports = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            package = name.partition(".")[0]
            if package in OURS:
                imports.append(name)
            elif package in ("configs", "rewards", "evaluation", "sft", "rft", "scripts"):
                raise RuntimeError(f"{module} imports {name}, which an export does not carry")
    return imports


def relative_imports(source: str) -> str:
    """`from data.geometry import x` -> `from .geometry import x`."""
    packages = "|".join(OURS)
    return re.sub(rf"^( *)from (?:{packages})\.(\w+) import", r"\1from .\2 import", source, flags=re.MULTILINE)


if __name__ == "__main__":
    main()
