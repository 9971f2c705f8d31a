"""GRPO: the loop of one trainer rank.

prompts ─▶ rollout (vLLM, n = G) ─▶ forward ─▶ rewards ─▶ advantages, loss ─▶ update ─▶ push weights ─▶ again
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from configs.checkpoints import CheckpointStore
from configs.rft import RFTConfig
from configs.run import Run
from data.dataset import model_inputs
from data.encoding import EncodedPrompt
from data.types import GroundingSample
from evaluation.vllm_engine import request_seed
from rewards.composer import RewardComposer
from rft.advantages import RunningStd
from rft.checkpointing import load_state, push_weights, save_final, save_state
from rft.objective import StepCounts
from rft.reference import ReferencePolicy
from rft.rollout import EngineClient
from rft.setup import build_learner, prompts_of_steps, sampling_args
from rft.step import RolloutBatch, answered_tubes, make_batch, rollout_loss
from rft.step_metrics import Groups, PhaseSeconds, check_mismatch, combine, completion_metrics, step_counts
from rft.validation import greedy_rewards


class GRPOTrainer:
    """One rank. The engine holds the weights of version `step` when step `step` samples; steps count from 0.

    resumed: the checkpoint of this run to go on from.
    """

    def __init__(
        self, config: RFTConfig, engine: EngineClient, run: Run | None, store: CheckpointStore, resumed: Path | None
    ) -> None:
        self.config, self.engine, self.run, self.store = config, engine, run, store
        self.learner = build_learner(config, resumed=resumed)
        self.rewards = RewardComposer(config.rewards)
        objective = config.objective
        self.running_std = RunningStd(
            initial=objective.std_initial, decay=objective.std_decay, floor=objective.std_floor
        )
        self.first_step = 0 if resumed is None else load_state(self.learner, resumed, self.running_std)
        self.sampling = sampling_args(config, self.learner)
        learner = self.learner
        self.reference = (
            ReferencePolicy(config, learner.unwrapped, learner.accelerator.device) if objective.beta > 0 else None
        )
        self.totals: list[torch.Tensor] = []
        self.seconds = PhaseSeconds()

    def train(self) -> None:
        """The steps that are left, then the final checkpoint."""
        config, main = self.config, self.run is not None
        self.push(version=self.first_step)
        if self.first_step == 0:
            self.log({}, self.validate(version=0), step=0)
        steps = prompts_of_steps(config, self.learner, first_step=self.first_step)
        with tqdm(total=config.max_steps, initial=self.first_step, desc="grpo", unit="step", disable=not main) as bar:
            for step, samples in enumerate(steps, start=self.first_step):
                metrics = self.step(step, samples)
                validation = self.validate(version=step + 1)
                bar.set_postfix(reward=f"{metrics['reward/total']:.3f}", refresh=False)
                bar.update()
                self.log(metrics, validation, step=step + 1)
                if self.store.is_due(step + 1):
                    value = validation.get("validation/reward")
                    save_state(self.learner, self.store, self.running_std, step=step + 1, value=value)
        save_final(self.learner, Path(config.run.out) / "checkpoint")

    def log(self, metrics: dict[str, float], validation: dict[str, float], *, step: int) -> None:
        """A line for every `log_every` steps and every validation."""
        if self.run is not None and (validation or (metrics and step % self.config.run.log_every == 0)):
            self.run.log(metrics | validation, step=step)

    def step(self, step: int, samples: Sequence[GroundingSample]) -> dict[str, float]:
        """The algorithm box."""
        self.seconds.clear()
        self.totals.clear()
        collected: dict[str, list[float]] = defaultdict(list)
        prompts, groups = self.rollout(step, samples)
        counts = step_counts(groups, self.config, self.learner.mean_over_ranks)
        for batch in self.micro_batches(step, samples, prompts, groups):
            metrics = self.accumulate(batch, counts)
            if "mismatch/mean" in metrics:  # there were tokens
                check_mismatch(metrics["mismatch/mean"], self.config.rollout.max_logprob_mismatch, step)
            for name, value in metrics.items():
                collected[name].append(value)
        grad_norm = self.update()
        self.running_std.update(self.learner.all_ranks(torch.cat(self.totals)))
        self.push(version=step + 1)
        return {
            **combine(collected),
            **completion_metrics(groups),
            "optim/grad_norm": grad_norm,
            "optim/lr": self.learner.schedule.get_last_lr()[0],
            **self.seconds.metrics(),
        }

    def rollout(self, step: int, samples: Sequence[GroundingSample]) -> tuple[list[EncodedPrompt], Groups]:
        """Read the videos, sample G completions of each prompt."""
        with self.seconds.timed("encode"):
            prompts = [self.learner.encoder(sample) for sample in samples]
        with self.seconds.timed("rollout"):
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
        with self.seconds.timed("forward"):
            inputs = {name: tensor.to(accelerator.device) for name, tensor in model_inputs(batch.inputs).items()}
            output = self.learner.model(temperature=self.config.rollout.temperature, **inputs)
        with self.seconds.timed("reference"):
            ref_logps_BL = None if self.reference is None else self.reference.logps(inputs)
        with self.seconds.timed("reward"):
            rewards = self.rewards(answered_tubes(batch, output))
            self.totals.append(rewards.total_B.detach())
            scale = self.running_std.scale
            loss, metrics = rollout_loss(batch, output, rewards, scale, counts, self.config, ref_logps_BL)
        with self.seconds.timed("backward"):
            accelerator.backward(loss)
        return metrics

    def update(self) -> float:
        """One optimizer step; -> the gradient's norm before clipping."""
        learner = self.learner
        with self.seconds.timed("update"):
            norm = learner.accelerator.clip_grad_norm_(learner.model.parameters(), self.config.optim.max_grad_norm)
            learner.optimizer.step()
            learner.schedule.step()
            learner.optimizer.zero_grad()
        assert norm is not None
        return float(norm)

    def push(self, *, version: int) -> None:
        """The MLLM's weights to the engine; the grounder stays here."""
        with self.seconds.timed("push"):
            push_weights(self.learner, self.engine, version=version)

    def validate(self, *, version: int) -> dict[str, float]:
        """Rewards of greedy answers to the validation samples; nothing where they are not due after this many steps."""
        every = self.config.validation.every_steps
        if every is None or version % every:
            return {}
        with self.seconds.timed("validate"):
            return greedy_rewards(self.learner, self.engine, self.rewards, self.config, version=version)
