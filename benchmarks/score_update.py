"""Scoring completions and updating the policy: ours against TRL's GRPOTrainer, on the same images and completions.

python -m benchmarks.score_update --json
python -m benchmarks.score_update --image-px 704 --prompts 2 --completions 8 --completion-tokens 100 --repeats 5

Images are the most that TRL 1.16 trains on: a video in a prompt is not handed to its forward. Both sides start from the same
tiny Qwen3-VL (4 layers of width 128, DeepStack), trained whole in float32, and take one optimizer step of the `grpo` loss on
groups whose log-probs as sampled lie on both sides of the clip. TRL prepares its own batch from messages and images; what it
would have sampled and rewarded is given. Ours computes boxes beside, which the loss does not use. Prints

    ratio               median seconds, TRL / ours, the two sides in turn
    loss, max_abs_diff  of the first step, before any update: ours, and its difference from TRL's
    max_rel_grad        of all gradients of the backbone together: norm of the difference / norm
"""

import argparse
import tempfile
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import transformers
import trl
from PIL import Image
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from benchmarks.turns import median_seconds, show
from configs.data import DataConfig
from configs.model import BridgeConfig, ModelConfig
from configs.optim import RFTOptimConfig
from configs.rft import ObjectiveConfig
from configs.sources import SyntheticSource
from data.collate import Batch, collate_inputs
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt
from data.prompts import build_messages
from data.sources import synthetic
from data.types import GroundingSample
from model.backbone import load_mllm
from model.build import build_model, make_optimizer
from model.grounding_model import GroundingModel
from model.tiny_backbone import make_tiny_backbone
from rft.advantages import group_advantages, group_std
from rft.objective import StepCounts, policy_loss

CLIP = {"epsilon": 0.2, "epsilon_high": 0.28}
OBJECTIVE = ObjectiveConfig(loss_type="grpo", scale_rewards="group", decoder_update="frozen", **CLIP)


@dataclass(frozen=True)
class Given:
    """What both sides are given: prompts, completions of each (row by row), their rewards."""

    samples: list[GroundingSample]
    prompts: list[EncodedPrompt]
    completions: list[list[int]]
    rewards_PG: Tensor

    @property
    def num_generations(self) -> int:
        return self.rewards_PG.shape[1]


class Ours:
    """One prompt pass per group, logits of the completions alone."""

    def __init__(self, model: GroundingModel, processor: Any, given: Given) -> None:
        self.model = model.train()
        self.model.grounder.requires_grad_(False)
        # TRL scores over the whole vocabulary.
        self.model.banned_ids = []
        self.batch: Batch = collate_inputs(
            given.prompts,
            given.completions,
            [[0]] * len(given.completions),
            vision_of_row=[row // given.num_generations for row in range(len(given.completions))],
            num_queries=model.num_queries,
            pad_id=processor.tokenizer.pad_token_id,
        )
        num_tokens = sum(map(len, given.completions))
        longest = max(map(len, given.completions))
        self.counts = StepCounts(len(given.completions), num_tokens, float(num_tokens), longest)
        self.advantages_B = group_advantages(given.rewards_PG, scale=group_std(given.rewards_PG)).flatten()
        self.mask_BL = self.batch["score_mask"].bool()
        self.optimizer = make_optimizer(model, RFTOptimConfig())
        with torch.no_grad():
            logps_BL = model(**self.batch).logps_BL
        noise_BL = torch.randn(logps_BL.shape, generator=torch.Generator().manual_seed(1))
        self.old_BL = torch.where(self.mask_BL, logps_BL + 0.3 * noise_BL, 0.0)

    @property
    def backbone(self) -> Any:
        return self.model.mllm

    def loss(self) -> Tensor:
        logps_BL = self.model(**self.batch).logps_BL
        return policy_loss(logps_BL, self.old_BL, self.advantages_B, self.mask_BL, self.counts, OBJECTIVE)


class Trls:
    """A real GRPOTrainer: its batch, its forward, its loss, its optimizer."""

    def __init__(self, mllm: Any, processor: Any, given: Given, old_BC: Tensor, folder: str) -> None:
        count = len(given.completions)
        arguments = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=count,
            num_generations=given.num_generations,
            max_completion_length=max(map(len, given.completions)),
            loss_type="grpo",
            scale_rewards="group",
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to=[],
            **CLIP,
        )
        self.trainer: Any = GRPOTrainer(
            model=mllm,
            reward_funcs=lambda completions, **columns: given.rewards_PG.flatten().tolist(),
            args=arguments,
            train_dataset=datasets.Dataset.from_dict({"prompt": ["a", "b"]}),
            processing_class=processor,
        )
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer._generate_single_turn = lambda *args, **kwargs: (given.completions, None)
        self.inputs = self.trainer._generate_and_score_completions(_rows(given))
        self.inputs["old_per_token_logps"] = old_BC
        self.optimizer = self.trainer.create_optimizer()

    @property
    def backbone(self) -> Any:
        return self.trainer.model

    def loss(self) -> Tensor:
        return self.trainer.compute_loss(self.trainer.model, self.inputs)


def _rows(given: Given) -> list[dict[str, Any]]:
    """What TRL's data loader would yield: each prompt once for each of its completions."""
    rows = [
        {
            "prompt": build_messages(sample, order="query_video_query"),
            "image": Image.fromarray(prompt.clip.frames_THW3[0]),
        }
        for sample, prompt in zip(given.samples, given.prompts, strict=True)
    ]
    return [row for row in rows for _ in range(given.num_generations)]


def step(side: Ours | Trls) -> None:
    """Score, backward, clip, update."""
    side.loss().backward()
    torch.nn.utils.clip_grad_norm_(side.backbone.parameters(), 1.0)
    side.optimizer.step()
    side.optimizer.zero_grad()


def gradients(side: Ours | Trls) -> Tensor:
    """Of the backbone as one vector; none is kept."""
    side.loss().backward()
    grads = [p.grad.flatten() for _, p in sorted(side.backbone.named_parameters()) if p.grad is not None]
    side.optimizer.zero_grad()
    return torch.cat(grads)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-px", type=int, default=704, help="side of the square images")
    parser.add_argument("--prompts", type=int, default=2, help="of a step")
    parser.add_argument("--completions", type=int, default=8, help="of each prompt")
    parser.add_argument("--completion-tokens", type=int, default=100, help="of each completion")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; their median counts")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(folder, arguments)
    show(result, as_json=arguments.json)


def measure(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same loss and gradients first; then steps of both in turn."""
    ours, theirs, given = sides(folder, arguments)
    with torch.no_grad():
        losses = float(ours.loss()), float(theirs.loss())
    grads = gradients(ours), gradients(theirs)
    medians = median_seconds({"trl": lambda: step(theirs), "ours": lambda: step(ours)}, arguments.repeats)
    return {
        "benchmark": "score_update",
        "prompt_tokens": [len(prompt.input_ids_L) for prompt in given.prompts],
        "completions": given.num_generations,
        "completion_tokens": arguments.completion_tokens,
        "ratio": round(medians["trl"] / medians["ours"], 3),
        "loss": losses[0],
        "max_abs_diff": abs(losses[0] - losses[1]),
        "max_rel_grad": float((grads[0] - grads[1]).norm() / grads[1].norm()),
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "threads": torch.get_num_threads(),
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, trl)},
    }


def sides(folder: str, arguments: argparse.Namespace) -> tuple[Ours, Trls, Given]:
    """Both from one checkpoint, with the same batch."""
    side_px = arguments.image_px
    source = SyntheticSource(root=f"{folder}/videos", num_videos={"train": arguments.prompts}, size_px=side_px)
    synthetic.render(source, num_processes=1)
    samples = synthetic.load(source, "train").samples
    make_tiny_backbone(samples, f"{folder}/backbone")
    data = DataConfig(source=source, tasks={"rec": 1.0})
    bridge = BridgeConfig(num_queries=1, width=32, num_layers=1, num_heads=4, ffn_width=64)
    backbone = f"{folder}/backbone"
    config = ModelConfig(backbone=backbone, dtype="float32", bridge=bridge, freeze_vision=False)
    model, processor = build_model(config, data)
    processor.image_processor.size = {"shortest_edge": 16 * 16, "longest_edge": side_px**2}
    images = [sample for sample in samples if sample.task == "rec"][: arguments.prompts]
    given = _given(images, PromptEncoder(processor, data), arguments)
    ours = Ours(model, processor, given)
    old_BC = _by_completion(ours.old_BL, ours.mask_BL)
    theirs = Trls(load_mllm(backbone, dtype=torch.float32), processor, given, old_BC, f"{folder}/trl")
    return ours, theirs, given


def _given(samples: list[GroundingSample], encoder: PromptEncoder, arguments: argparse.Namespace) -> Given:
    generator = torch.Generator().manual_seed(0)
    shape = (len(samples), arguments.completions)
    ids = torch.randint(300, 500, (shape[0] * shape[1], arguments.completion_tokens), generator=generator).tolist()
    # Completions differ in length, by up to a fifth.
    ids = [row[: len(row) - number % (1 + len(row) // 5)] for number, row in enumerate(ids)]
    return Given(samples, [encoder(sample) for sample in samples], ids, torch.rand(shape, generator=generator))


def _by_completion(values_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """The masked values of each row from its first column on, 0 after them; C columns."""
    rows = [row[mask] for row, mask in zip(values_BL, mask_BL, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


if __name__ == "__main__":
    main()
