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
from tqdm import tqdm

from configs.rft import RFTConfig
from configs.run import Run
from data.dataset import model_inputs
from data.encoding import EncodedPrompt
from data.types import GroundingSample
from evaluation.vllm_engine import request_seed
from model.backbone import checkpoint_names
from model.build import save_checkpoint
from rewards.composer import RewardComposer
from rft.advantages import RunningStd
from rft.objective import StepCounts
from rft.rollout import EngineClient
from rft.setup import build_learner, prompts_of_steps, sampling_args
from rft.step import RolloutBatch, answered_tubes, make_batch, rollout_loss
from rft.step_metrics import Groups, check_mismatch, combine, completion_metrics, step_counts


class GRPOTrainer:
    """One rank. The engine holds the weights of version `step` when step `step` samples."""

    def __init__(self, config: RFTConfig, engine: EngineClient, run: Run | None) -> None:
        self.config, self.engine, self.run = config, engine, run
        self.learner = build_learner(config)
        self.rewards = RewardComposer(config.rewards)
        objective = config.objective
        self.running_std = RunningStd(
            initial=objective.std_initial, decay=objective.std_decay, floor=objective.std_floor
        )
        self.totals: list[torch.Tensor] = []
        self.sampling = sampling_args(config, self.learner)
        self.seconds: dict[str, float] = defaultdict(float)

    def train(self) -> None:
        """All steps, then the checkpoint."""
        steps = prompts_of_steps(self.config, self.learner.accelerator)
        with tqdm(total=self.config.max_steps, desc="grpo", unit="step", disable=self.run is None) as bar:
            for step, samples in enumerate(steps):
                metrics = self.step(step, samples)
                bar.set_postfix(reward=f"{metrics['reward/total']:.3f}", refresh=False)
                bar.update()
                if self.run is not None and step % self.config.run.log_every == 0:
                    self.run.log(metrics, step=step)
        self.save(Path(self.config.run.out) / "checkpoint")

    def step(self, step: int, samples: Sequence[GroundingSample]) -> dict[str, float]:
        """The algorithm box."""
        self.seconds.clear()
        self.totals.clear()
        collected: dict[str, list[float]] = defaultdict(list)
        prompts, groups = self.rollout(step, samples)
        counts = step_counts(groups, self.config)
        for batch in self.micro_batches(step, samples, prompts, groups):
            metrics = self.accumulate(batch, counts)
            check_mismatch(metrics["mismatch/mean"], self.config.rollout.max_logprob_mismatch, step)
            for name, value in metrics.items():
                collected[name].append(value)
        grad_norm = self.update()
        self.running_std.update(self.all_ranks(torch.cat(self.totals)))
        self.push(version=step + 1)
        return {
            **combine(collected),
            **completion_metrics(groups),
            "optim/grad_norm": grad_norm,
            "optim/lr": self.learner.schedule.get_last_lr()[0],
            **{f"seconds/{name}": round(value, 4) for name, value in self.seconds.items()},
        }

    def rollout(self, step: int, samples: Sequence[GroundingSample]) -> tuple[list[EncodedPrompt], Groups]:
        """Read the videos, sample G completions of each prompt."""
        with self.timed("encode"):
            prompts = [self.learner.encoder(sample) for sample in samples]
        with self.timed("rollout"):
            seeds = [request_seed(self.config.run.seed, step, sample.sample_id) for sample in samples]
            return prompts, self.engine.generate(prompts, self.sampling, seeds=seeds, version=step)

    def micro_batches(
        self, step: int, samples: Sequence[GroundingSample], prompts: list[EncodedPrompt], groups: Groups
    ) -> Iterator[RolloutBatch]:
        """Whole groups at a time."""
        model, size = self.learner.unwrapped, self.config.prompts_per_micro_batch
        for start in range(0, len(samples), size):
            part = slice(start, start + size)
            yield make_batch(
                samples[part],
                prompts[part],
                groups[part],
                self.learner.processor,
                self.config,
                num_queries=model.num_queries,
                temporal_patch_size=model.temporal_patch_size,
                rng=np.random.default_rng([self.config.run.seed, 2, step, start]),
            )

    def accumulate(self, batch: RolloutBatch, counts: StepCounts) -> dict[str, float]:
        """Forward, rewards, loss, backward of one micro-batch."""
        accelerator = self.learner.accelerator
        with self.timed("forward"):
            inputs = {name: tensor.to(accelerator.device) for name, tensor in model_inputs(batch.inputs).items()}
            output = self.learner.model(temperature=self.config.rollout.temperature, **inputs)
        with self.timed("reward"):
            rewards = self.rewards(answered_tubes(batch, output))
            self.totals.append(rewards.total_B.detach())
            loss, metrics = rollout_loss(batch, output, rewards, self.running_std.scale, counts, self.config)
        with self.timed("backward"):
            accelerator.backward(loss)
        return metrics

    def update(self) -> float:
        """One optimizer step; -> the gradient's norm before clipping."""
        learner = self.learner
        with self.timed("update"):
            norm = learner.accelerator.clip_grad_norm_(learner.model.parameters(), self.config.optim.max_grad_norm)
            learner.optimizer.step()
            learner.schedule.step()
            learner.optimizer.zero_grad()
        assert norm is not None
        return float(norm)

    def all_ranks(self, values_B: torch.Tensor) -> torch.Tensor:
        """The values of every rank."""
        gathered: Any = self.learner.accelerator.gather(values_B)
        return gathered

    def push(self, *, version: int) -> None:
        """The MLLM's weights to the engine; the grounder stays here."""
        with self.timed("push"):
            state = self.learner.gathered_state()
            if self.learner.accelerator.is_main_process:
                mllm = {name.removeprefix("mllm."): value for name, value in state.items() if name.startswith("mllm.")}
                self.engine.push(checkpoint_names(mllm, self.learner.unwrapped.mllm.config), version=version)
            self.learner.accelerator.wait_for_everyone()

    def save(self, folder: Path) -> None:
        """The checkpoint folder, by the main rank."""
        state = self.learner.gathered_state()
        if self.learner.accelerator.is_main_process:
            save_checkpoint(self.learner.unwrapped, self.learner.processor, folder, state=state)

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the duration of a phase to this step's seconds."""
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start
