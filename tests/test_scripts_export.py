"""The export folder in a process that cannot see this repository, and as a plain MLLM."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Tiny
from transformers import Qwen3VLForConditionalGeneration

from configs.run import ROOT
from evaluation.predict import Predictor, transformers_generate
from scripts.export import needed_modules, relative_imports


def test_reload_in_a_clean_process(exported: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Same text and boxes within 1e-5 of the image, through from_pretrained(folder, trust_remote_code=True) alone."""
    sample = tiny.of_task("stvg")[0]
    # A random model does not write an answer, so both sides complete the same one: nothing is generated after it.
    prompt = tiny.encoder(sample)
    question = {
        "video": sample.video_path,
        "query": sample.query,
        "frame_idx": prompt.clip.frame_idx_T.tolist(),
        "fps": sample.fps,
        "num_frames": len(sample.clip),
        "max_new_tokens": 12,
    }
    script = str(ROOT / "scripts" / "reload_export.py")
    result = subprocess.run(
        [sys.executable, script, str(exported), json.dumps(question)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    theirs = json.loads(result.stdout.splitlines()[-1])
    generate = transformers_generate(tiny.model, tiny.processor, max_completion_length=12)
    ours = Predictor(tiny.model, tiny.encoder, generate)([sample])[0]
    assert theirs["text"] == ours.text
    assert len(theirs["text"]) > 0


def test_boxes_of_the_exported_code_equal_ours(exported: Path, tiny: Tiny) -> None:
    """`ground` of the export's own modules against Predictor, on an answer that parses."""
    import transformers

    model = transformers.AutoModel.from_pretrained(exported, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules")
    sample = tiny.of_task("stvg")[0]
    clip = tiny.encoder(sample).clip
    answer = tiny.processor.tokenizer("<time> 1.0 - 3.0 </time><|im_end|>")["input_ids"]
    sys.modules[type(model).__module__.rpartition(".")[0] + ".answering"].generate_greedy = lambda *a, **k: [answer]
    theirs = model.ground(
        tiny.processor,
        query=sample.query,
        frames_THW3=clip.frames_THW3,
        frame_idx_T=clip.frame_idx_T,
        fps=sample.fps,
        num_frames=len(sample.clip),
        max_new_tokens=12,
    )
    ours = Predictor(tiny.model, tiny.encoder, lambda prompts: [answer])([sample])[0]
    assert theirs.span == ours.span and theirs.boxes_xyxy_px.keys() == ours.boxes.keys() and len(ours.boxes) == 8
    for frame, box in ours.boxes.items():
        np.testing.assert_allclose(np.array(theirs.boxes_xyxy_px[frame]) / 64, np.array(box) / 64, atol=1e-5)


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
    modules = needed_modules("model.grounding_model")
    assert "data.geometry" in modules and not any(name.startswith("configs") for name in modules)
    assert relative_imports("from data.geometry import box_iou\nimport torch\n") == (
        "from .geometry import box_iou\nimport torch\n"
    )


def test_a_folder_that_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    from scripts.export import export

    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        export(tmp_path, tmp_path / "out")
