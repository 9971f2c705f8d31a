"""GRPO: the loop of one trainer rank.

prompts ─▶ rollout (vLLM, n = G) ─▶ forward ─▶ rewards ─▶ advantages, loss ─▶ update ─▶ push weights ─▶ again
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DeepSpeedPlugin, set_seed
from tqdm import tqdm
from transformers import get_scheduler

from configs.rft import RFTConfig
from configs.run import Run
from data.dataset import PromptEncoder, model_inputs
from data.mixture import draw_order
from data.sources import load_samples
from data.types import GroundingSample
from evaluation.vllm_engine import Rollout, RolloutError, SamplingArgs, request_seed
from model.backbone import checkpoint_names, freeze_vision_tower
from model.build import as_trained, load_checkpoint, parameter_groups
from model.grounding_model import MLLM_FOLDER
from rewards.composer import RewardComposer
from rft.advantages import RunningStd
from rft.objective import StepCounts
from rft.rollout import EngineClient
from rft.step import answered_tubes, make_batch, rollout_loss


class GRPOTrainer:
    """One rank. Its engine holds the weights of version `step` when step `step` samples."""

    def __init__(self, config: RFTConfig, engine: EngineClient, run: Run | None) -> None:
        set_seed(config.run.seed)
        self.config, self.engine, self.run = config, engine, run
        self.accelerator = make_accelerator(config)
        model, self.processor = load_checkpoint(config.checkpoint, dtype="float32")
        self.encoder = PromptEncoder(self.processor, as_trained(config.data, model.config))
        model.train()
        if config.freeze_vision:
            freeze_vision_tower(model.mllm)
        if config.objective.decoder_update == "frozen":
            model.grounder.requires_grad_(False)
        optim = config.optim
        groups = parameter_groups(
            model, learning_rate=optim.learning_rate, grounder_learning_rate=optim.grounder_learning_rate
        )
        optimizer = torch.optim.AdamW(groups, betas=(0.9, optim.adam_beta2), weight_decay=optim.weight_decay)
        schedule = get_scheduler(optim.lr_scheduler_type, optimizer, optim.warmup_steps, config.max_steps)
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(model, optimizer, schedule)
        self.rewards = RewardComposer(config.rewards)
        self.running_std = RunningStd(decay=config.objective.std_decay, floor=config.objective.std_floor)
        self.sampling = SamplingArgs(
            num_generations=config.rollout.num_generations,
            temperature=config.rollout.temperature,
            max_completion_length=config.rollout.max_completion_length,
            eos_id=self.processor.tokenizer.eos_token_id,
            banned_ids=tuple(model.banned_ids),
        )
        self.seconds: dict[str, float] = defaultdict(float)

    def train(self) -> None:
        """All steps, then the checkpoint."""
        steps = self.prompts_of_steps()
        with tqdm(total=self.config.max_steps, desc="grpo", unit="step", disable=self.run is None) as bar:
            for step, samples in enumerate(steps):
                metrics = self.step(step, samples)
                bar.set_postfix(reward=f"{metrics['reward/total']:.3f}", refresh=False)
                bar.update()
                if self.run is not None and step % self.config.run.log_every == 0:
                    self.run.log(metrics, step=step)
        self.save(Path(self.config.run.out) / "checkpoint")

    def step(self, step: int, samples: Sequence[GroundingSample]) -> dict[str, float]:
        """Sample, score, update, push."""
        config = self.config
        self.seconds.clear()
        with self.timed("encode"):
            prompts = [self.encoder(sample) for sample in samples]
        with self.timed("rollout"):
            seeds = [request_seed(config.run.seed, step, prompt.unexpanded_ids) for prompt in prompts]
            groups = self.engine.generate(prompts, self.sampling, seeds=seeds, version=step)
        counts = step_counts(groups, config)
        collected: dict[str, list[float]] = defaultdict(list)
        for start in range(0, len(samples), config.prompts_per_micro_batch):
            part = slice(start, start + config.prompts_per_micro_batch)
            rng = np.random.default_rng([config.run.seed, 2, step, start])
            batch = make_batch(
                samples[part],
                prompts[part],
                groups[part],
                self.processor,
                config,
                num_queries=self.unwrapped.num_queries,
                temporal_patch_size=self.unwrapped.temporal_patch_size,
                rng=rng,
            )
            with self.timed("forward"):
                inputs = {k: v.to(self.accelerator.device) for k, v in model_inputs(batch.inputs).items()}
                output = self.model(temperature=config.rollout.temperature, **inputs)
            with self.timed("reward"):
                rewards = self.rewards(answered_tubes(batch, output))
                loss, metrics = rollout_loss(batch, output, rewards, self.running_std, counts, config)
            check_mismatch(metrics["mismatch/mean"], config.rollout.max_logprob_mismatch, step)
            with self.timed("backward"):
                self.accelerator.backward(loss)
            for name, value in metrics.items():
                collected[name].append(value)
        with self.timed("update"):
            grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.max_grad_norm)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        with self.timed("push"):
            self.push(version=step + 1)
        return self.summary(collected, groups, float(grad_norm or 0.0))

    def push(self, *, version: int) -> None:
        """The MLLM's weights to the engine; the grounder stays here. Every rank takes part in gathering."""
        state = self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            mllm = {name.removeprefix("mllm."): value for name, value in state.items() if name.startswith("mllm.")}
            self.engine.push(checkpoint_names(mllm, self.unwrapped.mllm.config), version=version)
        self.accelerator.wait_for_everyone()

    def save(self, folder: Path) -> None:
        """The checkpoint folder, by rank 0."""
        state = self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            self.unwrapped.save_pretrained(folder, state_dict=state)
            self.processor.save_pretrained(folder / MLLM_FOLDER)

    def prompts_of_steps(self) -> Iterator[list[GroundingSample]]:
        """This rank's samples, step by step: a slice of one order that all ranks share."""
        samples = load_samples(self.config.data, "train")
        size, world = self.config.rollout.prompts_per_step, self.accelerator.num_processes
        total = self.config.max_steps * size * world
        order = draw_order(samples, self.config.data.tasks, total=total, seed=self.config.run.seed)
        for rows in order.reshape(self.config.max_steps, world, size)[:, self.accelerator.process_index]:
            yield [samples[index] for index in rows]

    def summary(
        self, collected: dict[str, list[float]], groups: list[list[Rollout]], grad_norm: float
    ) -> dict[str, float]:
        """One line of metrics: means over micro-batches, lengths, and where the time went."""
        lengths = [len(rollout.completion_ids) for group in groups for rollout in group]
        truncated = [rollout.is_truncated for group in groups for rollout in group]
        return {
            **{name: float(np.mean(values)) for name, values in collected.items()},
            "completion/mean_length": float(np.mean(lengths)),
            "completion/truncated": float(np.mean(truncated)),
            "optim/grad_norm": grad_norm,
            "optim/lr": self.schedule.get_last_lr()[0],
            **{f"seconds/{name}": round(value, 4) for name, value in self.seconds.items()},
        }

    @property
    def unwrapped(self) -> Any:
        """The model without DDP or DeepSpeed around it."""
        return self.accelerator.unwrap_model(self.model)

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the duration of a phase to this step's seconds."""
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start


def make_accelerator(config: RFTConfig) -> Accelerator:
    """accelerate with the config's precision and DeepSpeed file."""
    plugin = DeepSpeedPlugin(hf_ds_config=config.deepspeed) if config.deepspeed else None
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if config.dtype == "bfloat16" else "no",
        deepspeed_plugin=plugin,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def step_counts(groups: list[list[Rollout]], config: RFTConfig) -> StepCounts:
    """Completions and tokens of the whole step."""
    rollouts = [rollout for group in groups for rollout in group]
    return StepCounts(
        num_completions=len(rollouts),
        num_tokens=sum(len(rollout.completion_ids) for rollout in rollouts),
        max_completion_length=config.rollout.max_completion_length,
    )


def check_mismatch(mean: float, limit: float, step: int) -> None:
    """Raise RolloutError where trainer and engine disagree on the log-probs of the engine's own samples."""
    if not mean <= limit:
        raise RolloutError(f"step {step}: log-probs of trainer and vLLM differ by {mean:.4f} on average, limit {limit}")
