"""The export folder in a process that cannot see this repository, and as a plain MLLM."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GROUNDED, Tiny
from transformers import Qwen3VLForConditionalGeneration

from configs.base import ConfigError
from configs.checkpoints import CheckpointError
from configs.run import ROOT
from data.encoding import text_ids
from data.types import GroundingSample
from evaluation.predictor import Predictor, transformers_generate
from model.grounders import GROUNDERS, locate_grounder
from scripts.export import export, needed_modules, relative_imports


def ask(exported: Path, folder: Path, tiny: Tiny, sample: GroundingSample, answer: str | None) -> dict:
    question = {
        "video": sample.video_path,
        "query": sample.query,
        "frame_idx": tiny.encoder(sample).clip.frame_idx_T.tolist(),
        "fps": sample.fps,
        "num_frames": len(sample.clip),
        "max_new_tokens": 12,
        "answer": answer,
    }
    command = [sys.executable, str(ROOT / "scripts" / "reload_export.py"), str(exported), json.dumps(question)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_reload_in_a_clean_process_writes_the_same_text(exported: Path, tiny: Tiny, tmp_path: Path) -> None:
    """from_pretrained(folder, trust_remote_code=True) alone, greedy."""
    sample = tiny.of_task("stvg")[0]
    generate = transformers_generate(tiny.model, tiny.processor, max_completion_length=12)
    ours = Predictor(tiny.model, tiny.encoder, generate)([sample])[0]
    assert len(ours.text) > 0
    assert ask(exported, tmp_path, tiny, sample, None)["text"] == ours.text


@pytest.mark.parametrize("grounder", GROUNDED)
def test_reload_in_a_clean_process_gives_the_same_boxes(
    grounder: str, tiny_of: dict[str, Tiny], tmp_path: Path
) -> None:
    """Within 1e-5 of the image's side, for an answer that parses: a random model would not write one by itself."""
    tiny, exported = tiny_of[grounder], tmp_path / "export"
    export(tiny.folder, exported)
    sample, text = tiny.of_task("stvg")[0], "<time> 1.0 - 3.0 </time>"
    if grounder == "text":
        boxes = "1. [100, 200, 300, 400], 2. [150, 200, 350, 400]"
        text = f"<time> 1 - 2 </time>\n<think_bbox> {boxes} </think_bbox>\n<pred_bbox> {boxes} </pred_bbox>"
    ours = Predictor(tiny.model, tiny.encoder, lambda prompts: [text_ids(tiny.processor, text)])([sample])[0]
    theirs = ask(exported, tmp_path, tiny, sample, text)
    assert tuple(theirs["span"]) == ours.span == (4, 12) and len(ours.boxes) == (2 if grounder == "text" else 8)
    assert sorted(map(int, theirs["boxes"])) == sorted(ours.boxes)
    for frame, box in ours.boxes.items():
        np.testing.assert_allclose(np.array(theirs["boxes"][str(frame)]) / 64, np.array(box) / 64, atol=1e-5)


def test_the_mllm_part_is_a_plain_checkpoint(exported: Path, tiny: Tiny) -> None:
    """transformers loads it under the released names; that vLLM does too is what the engine's tests stand on."""
    mllm, info = Qwen3VLForConditionalGeneration.from_pretrained(exported / "mllm", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours = tiny.model.mllm.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in mllm.state_dict().items())


def test_only_safetensors_and_text_are_exported(exported: Path) -> None:
    kinds = {path.suffix for path in exported.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".py", ".md", ".jinja"}


def test_exported_modules_need_nothing_else_of_ours() -> None:
    modules = needed_modules("model.grounding_model", *(f"model{locate_grounder(name)[0]}" for name in GROUNDERS))
    assert {"data.geometry", "model.bridge_grounder"} < modules
    assert not any(name.startswith("configs") for name in modules)
    assert relative_imports("from data.geometry import box_iou\nimport torch\n    from model.grounder import X\n") == (
        "from .geometry import box_iou\nimport torch\n    from .grounder import X\n"
    )


def test_the_code_of_other_grounders_is_not_exported(exported: Path) -> None:
    assert (exported / "bridge_grounder.py").is_file() and not (exported / "interleaved_grounder.py").exists()


def test_a_run_folder_is_told_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(CheckpointError, match=r"^--checkpoint .*did you mean .*/checkpoint\?"):
        export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_export_is_not_replaced(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(ConfigError, match="exists and is no export"):
        export(tiny.folder, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "all of it"
