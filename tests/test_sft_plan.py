"""sft.plan: exact parameters and tokens, memory against that of a real step, and errors that say what is wrong."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import step_memory
import torch
import yaml
from tiny import GROUNDED, Tiny

from configs.base import ConfigError, load_config
from configs.model import BridgeConfig, ModelConfig
from configs.rft import RFTConfig
from configs.run import ROOT
from configs.sft import SFTConfig
from data.dataset import PromptEncoder
from data.encoding import text_ids
from model.backbone import load_mllm
from model.grounding_model import GroundingConfig, GroundingModel
from model.shapes import backbone_config, empty_model
from sft.plan import as_tables, checkpoint_bytes, count_parameters, main, plan, run_size
from sft.plan_memory import Activations, Counts, plan_memory
from sft.plan_tokens import SYNTHETIC_QUERY, sample_tokens
from sft.zero import Zero, read_zero

PRESETS = sorted((ROOT / "configs" / "sft").glob("bridge_*.yaml"))


@pytest.fixture
def config_path(tiny: Tiny, backbone: Path, bridge_config: BridgeConfig, tmp_path: Path) -> Path:
    """SFT of the tiny backbone, with rows enough for its activations to weigh more than what is not counted."""
    tree = {
        "run": {"out": str(tmp_path / "run"), "wandb": "disabled"},
        "data": tiny.data.model_dump(mode="json") | {"tasks": {"stvg": 1.0}},
        "model": {"backbone": str(backbone), "dtype": "float32", "bridge": bridge_config.model_dump(mode="json")},
        "max_steps": 2,
        "per_device_train_batch_size": 48,
    }
    tree["data"]["video"] |= {"cache_gib": 0.0, "timeout_sec": None}
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def parameters(config: SFTConfig) -> dict[str, dict[str, int]]:
    return count_parameters(empty_model(config.model, backbone_config(config.model.backbone)[0]))


@pytest.mark.parametrize("freeze_vision", [True, False])
@pytest.mark.parametrize("grounder", GROUNDED)
def test_parameters_are_exact(config_path: Path, backbone: Path, grounder: str, freeze_vision: bool) -> None:
    """The plan's counts from the config against the weights of the loaded model, by their names."""
    overrides = [f"model.grounder={grounder}", f"model.freeze_vision={str(freeze_vision).lower()}"]
    config = load_config(SFTConfig, config_path, overrides)
    mllm = load_mllm(str(backbone), dtype=torch.float32)
    args = config.model.args_of_grounder()
    model = GroundingModel(GroundingConfig(grounder=grounder, grounder_args=args), mllm)
    real = {"vision": 0, "llm": 0, "grounder": 0}
    for name, parameter in model.named_parameters():
        part = "grounder" if name.startswith("grounder.") else "vision" if ".visual." in name else "llm"
        real[part] += parameter.numel()
    planned = parameters(config)
    for part, count in real.items():
        is_frozen = part == "vision" and freeze_vision
        assert planned[part] == {"trainable": 0 if is_frozen else count, "frozen": count if is_frozen else 0}
    assert sum(planned["total"].values()) == sum(real.values())


def test_adapters_are_what_lora_trains(config_path: Path) -> None:
    """4 layers; q 128, k and v 64 wide out of 128, o 128, an MLP of 256: r x (in + out) for each of its matrices."""
    planned = parameters(load_config(SFTConfig, config_path, ["model.lora={r: 8}"]))
    sums = (128 + 128) + 2 * (128 + 64) + (128 + 128) + 2 * (128 + 256) + (256 + 128)
    assert planned["llm"]["trainable"] == 4 * 8 * sums
    assert planned["vision"]["trainable"] == 0 and planned["grounder"]["frozen"] == 0


def test_tokens_are_exact(tiny: Tiny) -> None:
    """Those of the encoder for the same sentence: 4 s at 4 frames a second in pairs, 4 x 4 patches in cells of 2 x 2."""
    sample = dataclasses.replace(tiny.of_task("stvg")[0], query=SYNTHETIC_QUERY)
    prompt = tiny.encoder(sample)
    tokens = sample_tokens(tiny.data, patch_px=16, num_queries=4, processor=tiny.processor, size=(1280, 720))
    assert tokens.grid == (8, 4, 4) and tokens.vision == prompt.num_cells == 8 * 4
    assert tokens.vision + tokens.text == len(prompt.input_ids_L)
    # "<time> 12.3 - 45.6 </time>" and the end of the turn.
    assert tokens.answer == len(text_ids(tiny.processor, "<time> 12.3 - 45.6 </time>"))


def test_written_boxes_have_their_budget(tiny: Tiny) -> None:
    """The encoder's, for the same question; and counted roughly, by hand.

    64 frames at 2 a second are 32 indices. Two boxes for each: 5 numbers of up to 4 digits, with "." "[" "," "," "," "]" and
    a comma between boxes, are 27 tokens. <time> n - n </time> is 8 with numbers of 4, the other tags 7 each, the end 1.
    """
    sample = dataclasses.replace(tiny.of_task("stvg")[0], query=SYNTHETIC_QUERY)
    prompt = PromptEncoder(tiny.processor, tiny.data, answer_format="tube")(sample)
    args: dict[str, Any] = {"patch_px": 16, "num_queries": 0, "size": (1280, 720), "answer_format": "tube"}
    tokens = sample_tokens(tiny.data, processor=tiny.processor, **args)
    assert tokens.answer == prompt.box_tokens > 0
    assert tokens.vision + tokens.text == len(prompt.input_ids_L)
    data = load_config(SFTConfig, ROOT / "configs" / "sft" / "stvg_o1_2b.yaml").data
    assert sample_tokens(data, processor=None, **args).answer == 32 * 2 * 27 + 8 + 2 * 4 + 2 * 7 + 1


@pytest.mark.parametrize(("grounder", "num_queries"), [("bridge", 4), ("interleaved", 6 + 2), ("text", 0)])
def test_every_grounder_has_a_plan(
    config_path: Path, tiny_of: dict[str, Tiny], grounder: str, num_queries: int
) -> None:
    """Fresh, and of a checkpoint, whose sizes are not the config's. A query for each frame, or as many as there are."""
    fresh = plan(load_config(SFTConfig, config_path, [f"model.grounder={grounder}"]))
    assert fresh["tokens_per_sample"]["queries"] == num_queries
    assert fresh["memory_bytes"]["peak"] > fresh["memory_bytes"]["activations"] > 0
    trained = tiny_of[grounder]
    planned = plan(load_config(SFTConfig, config_path, [f"checkpoint={trained.folder}"]))
    assert planned["parameters"]["grounder"]["trainable"] == sum(p.numel() for p in trained.model.grounder.parameters())


def test_frames_are_resized_to_the_budget() -> None:
    """64 frames of 16:9 within 64 x 336 x 336 px: 448 x 224, the multiples of 32 below 448 x 252. No processor at hand."""
    path = ROOT / "configs" / "sft" / "bridge_2b.yaml"
    data = load_config(SFTConfig, path).data
    tokens = sample_tokens(data, patch_px=16, num_queries=8, processor=None, size=(1280, 720))
    assert tokens.grid == (32, 14, 28) and tokens.vision == 32 * 7 * 14
    assert tokens.text > 32 * 10
    short = data.model_copy(update={"video": data.video.model_copy(update={"max_prompt_tokens": 1000})})
    fewer = sample_tokens(short, patch_px=16, num_queries=8, processor=None, size=(1280, 720))
    assert fewer.vision + fewer.text <= 1000 and fewer.grid[0] < 32


VARIANTS = {
    "frozen tower": [],
    "trained tower": ["model.freeze_vision=false"],
    "checkpointing": ["model.gradient_checkpointing=true", "per_device_train_batch_size=128"],
    "accumulation": ["gradient_accumulation_steps=2"],
    "lora": ["model.lora={r: 8}"],
    "bfloat16": ["model.dtype=bfloat16"],
    "interleaved": ["model.grounder=interleaved"],
    "learned attention": ["model.grounder=interleaved", "model.interleaved.attention=learned"],
}


QUICKEST = "lora"


@pytest.mark.parametrize(
    "variant", [QUICKEST, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name != QUICKEST)]
)
def test_memory_is_that_of_a_real_step(config_path: Path, variant: str) -> None:
    """Within 15 % of the high-water mark of a process that trains: what is held at most beyond what was there before."""
    planned, measured = planned_and_measured(config_path, VARIANTS[variant])
    assert abs(planned / measured - 1) < 0.15, f"planned {planned / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"


@pytest.mark.slow
def test_memory_of_written_tubes_is_planned_for_the_longest(config_path: Path) -> None:
    """An answer may hold the whole clip, and those of a real step are shorter: 1,484 MB planned, 1,104 MB seen."""
    planned, measured = planned_and_measured(config_path, ["model.grounder=text"])
    assert measured < planned < 1.6 * measured, f"planned {planned / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"


def planned_and_measured(config_path: Path, overrides: list[str]) -> tuple[int, int]:
    """Peak memory of a step in bytes, by the plan and in a process of its own."""
    config = load_config(SFTConfig, config_path, overrides)
    config_path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    environment = os.environ | step_memory.ENVIRONMENT
    command = [sys.executable, step_memory.__file__, str(config_path)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-2000:]
    measured = int(result.stdout.split()[-1])
    assert measured > 300e6
    return plan(config)["memory_bytes"]["peak"], measured


COUNTS = Counts(trainable=1000, frozen=200, largest=100)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer", "communication", "step"),
    [
        # 4 ranks, bfloat16: 2 bytes a weight; 12 of the optimizer (a float32 copy and two moments) and 2 of a gradient for
        # each trainable one; two buffers of 10 elements; the step: float32 gradients and a root, 8 bytes for own ones.
        (1, 2400, 2000, 3000, 40, 2000),
        (2, 2400, 500, 3000, 40, 2000),
        # Of 1200 weights each rank has 300, and at most 400 at a time of the others'; one buffer; 100 in a sub-group.
        (3, 600 + 800, 500, 3000, 20, 800),
    ],
)
def test_zero_stages_by_hand(
    stage: int, weights: int, gradients: int, optimizer: int, communication: int, step: int
) -> None:
    zero = Zero(stage=stage, reduce_bucket=10, overlap=True, live_parameters=400, sub_group=100)
    memory = plan_memory(
        COUNTS, Activations(7000, 7010), zero=zero, num_processes=4, weight_bytes=2, accumulation=1, logits=50
    )
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, gradients, optimizer)
    assert (memory.communication, memory.step) == (communication, step)
    # Activations are there when the backward pass has made its first gradient, the largest: 100 x 2 bytes.
    assert memory.peak == weights + optimizer + communication + max(7000 + 50 + 200, gradients + step)


def test_without_deepspeed_by_hand() -> None:
    """float32: 4 bytes a weight, 4 a gradient, 8 of moments; DDP's buckets are another 4 with more than one rank."""
    for processes, buckets in ((1, 0), (2, 4000)):
        memory = plan_memory(
            COUNTS,
            Activations(7000, 7100),
            zero=None,
            num_processes=processes,
            weight_bytes=2,
            accumulation=2,
            logits=50,
        )
        assert (memory.weights, memory.gradients, memory.optimizer) == (4800, 4000, 8000)
        # With accumulation all gradients are there beside the second micro-batch's activations; a layer's backward takes
        # more than the logits.
        assert memory.peak == 4800 + 8000 + buckets + (4000 + 7100)


def test_run_and_checkpoint(config_path: Path) -> None:
    """2 ranks x 3 rows x 5 micro-batches, 4 steps of samples of 100 tokens; bytes on disk by hand."""
    overrides = ["per_device_train_batch_size=3", "gradient_accumulation_steps=5", "max_steps=4"]
    config = load_config(SFTConfig, config_path, overrides)
    size = run_size(config, 2, 100)
    assert (size["global_batch"], size["samples"], size["tokens"]) == (30, 120, 12_000)
    # float32 weights, and two moments of those that are trained.
    assert checkpoint_bytes(config, {"trainable": 10, "frozen": 5}) == {"final": 60, "step": 60 + 80}
    half = config.model_copy(update={"deepspeed": "zero2.json", "model": ModelConfig(dtype="bfloat16")})
    # bfloat16 weights; in a step's folder twice, with the optimizer's float32 copy and two moments.
    assert checkpoint_bytes(half, {"trainable": 10, "frozen": 5}) == {"final": 30, "step": 60 + 120}


def test_output_as_json_and_as_tables(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a config whose attention kernel is not installed here."""
    overrides = ["deepspeed=configs/deepspeed/zero2.json", "max_steps=7", "model.attention=flash_attention_2"]
    main(["--config", str(config_path), "--num-processes", "2", "--json", *overrides])
    result = json.loads(capsys.readouterr().out)
    assert result["run"]["steps"] == 7 and result["memory_bytes"]["peak"] > result["memory_bytes"]["activations"] > 0
    tables = as_tables(result)
    assert "| parameters | trainable | frozen |" in tables and "memory of a rank, ZeRO stage 2" in tables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.backbone=somebody/else"], "model.backbone: somebody/else: expected a folder or a name"),
        (["model.backbone=Qwen/Qwen3-VL-3B"], "no shipped config; expected one of Qwen/Qwen3-VL-2B-Instruct"),
        (["checkpoint=/absent"], "checkpoint: /absent/mllm: expected a folder"),
        (["deepspeed=/absent.json"], "deepspeed: /absent.json: expected a DeepSpeed JSON"),
        (["max_step=3"], "did you mean 'max_steps'?"),
        (["model.grounder=brige"], "model.grounder: expected one of bridge, interleaved, text; got 'brige'"),
        (["--num-processes", "0"], "--num-processes: expected a whole number above 0, got '0'"),
        (["--frame-size", "1280"], "--frame-size: expected WIDTHxHEIGHT"),
    ],
)
def test_what_cannot_be_used_ends_with_status_2(
    config_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--config", str(config_path), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("section", ['{"stage": "two"}', '{"stage": 2, "reduce_bucket_size": "auto"}'])
def test_a_deepspeed_value_that_is_no_number(tmp_path: Path, section: str) -> None:
    (path := tmp_path / "zero.json").write_text(f'{{"zero_optimization": {section}}}')
    with pytest.raises(ConfigError, match=r"zero_optimization\.\w+: expected a number"):
        read_zero(str(path))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_shipped_deepspeed_configs(stage: int) -> None:
    """DeepSpeed itself takes them, with what the Trainer fills in."""
    from deepspeed.runtime.zero.config import get_zero_config

    path = ROOT / "configs" / "deepspeed" / f"zero{stage}.json"
    assert read_zero(str(path)).stage == stage
    tree: dict[str, Any] = json.loads(path.read_text())
    zero = get_zero_config(tree)
    assert int(zero.stage) == stage and zero.reduce_bucket_size == read_zero(str(path)).reduce_bucket


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_valid(path: Path) -> None:
    """Both stages of a size: same backbone's checkpoint, existing DeepSpeed file, and a header that says it all."""
    config = load_config(SFTConfig, path)
    assert config.model.backbone.lower().startswith(f"qwen/qwen3-vl-{path.stem.removeprefix('bridge_')}")
    assert config.deepspeed is not None and (ROOT / config.deepspeed).is_file()
    refined = load_config(RFTConfig, ROOT / "configs" / "rft" / path.name)
    assert refined.checkpoint == f"{config.run.out}/checkpoint"
    for file in (path, ROOT / "configs" / "rft" / path.name):
        header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
        assert all(said in header.lower() for said in ("command:", "hardware:", "memory:", "never run by us"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_memory_in_a_header_is_the_plans(path: Path) -> None:
    said = re.search(r"# +memory: +([\d.]+) GB", path.read_text())
    processes = re.search(r"--nproc_per_node (\d+)", path.read_text())
    assert said is not None and processes is not None
    peak = plan(load_config(SFTConfig, path), num_processes=int(processes[1]))["memory_bytes"]["peak"]
    assert float(said[1]) == pytest.approx(peak / 1e9, abs=0.1)
