"""GRPO: the loop of one trainer rank. The objective, line by line: docs/objective.md.

prompts ─▶ rollout (vLLM, n = G) ─▶ forward ─▶ rewards ─▶ advantages, loss ─▶ update ─▶ push weights ─▶ again
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from configs.checkpoints import CheckpointStore
from configs.rft import RFTConfig
from configs.run import Run
from rewards.composer import RewardBreakdown, RewardComposer
from rft.advantages import RunningStd, split_by_task
from rft.checkpointing import load_state, push_weights, save_final, save_state
from rft.micro_batches import inputs_of, micro_batches, sum_of_targets
from rft.objective import StepCounts
from rft.parity import check_parity
from rft.phase_seconds import PhaseSeconds, split_forward
from rft.reference import ReferencePolicy
from rft.resampling import RolledOut
from rft.rollout import EngineClient
from rft.sampling import Sampler, StepPrompts
from rft.setup import build_learner
from rft.step import RolloutBatch, answered_tubes, rollout_loss
from rft.step_metrics import check_finite, check_mismatch, completion_metrics, step_counts
from rft.step_record import StepRecord
from rft.validation import greedy_rewards


class GRPOTrainer:
    """One rank. The engine holds the weights of version `step` when step `step` samples; steps count from 0.

    resumed: the checkpoint of this run to go on from.
    """

    def __init__(
        self, config: RFTConfig, engine: EngineClient, run: Run | None, store: CheckpointStore, resumed: Path | None
    ) -> None:
        self.config, self.engine, self.run, self.store = config, engine, run, store
        learner = self.learner = build_learner(config, resumed=resumed)
        self.rewards = RewardComposer(config.rewards)
        given = config.objective
        self.running_std = RunningStd(initial=given.std_initial, decay=given.std_decay, floor=given.std_floor)
        self.first_step = 0 if resumed is None else load_state(self.learner, resumed, self.running_std)
        self.seconds = PhaseSeconds()
        if config.split_forward_time:
            split_forward(self.learner.unwrapped, self.seconds)
        self.sampler = Sampler(config, self.learner, engine, self.rewards, self.seconds)
        has_kl = given.beta > 0
        self.reference = ReferencePolicy(config, learner.unwrapped, learner.accelerator) if has_kl else None

    def train(self) -> None:
        """The steps that are left, then the final checkpoint."""
        config, main = self.config, self.run is not None
        self.push(version=self.first_step)
        prompts = StepPrompts(config, self.learner)
        if self.first_step == 0:
            check_parity(self.sampler, prompts.of_step(0), version=0)
            self.log({}, self.validate(version=0), step=0)
        with tqdm(total=config.max_steps, initial=self.first_step, desc="grpo", unit="step", disable=not main) as bar:
            for step in range(self.first_step, config.max_steps):
                self.seconds.clear()
                metrics = self.step(step, prompts)
                validation = self.validate(version=step + 1)
                bar.set_postfix(reward=f"{metrics['reward/total']:.3f}", refresh=False)
                bar.update()
                self.log(metrics | self.seconds.metrics(), validation, step=step + 1)
                if self.store.is_due(step + 1):
                    value = validation.get("validation/reward")
                    save_state(self.learner, self.store, self.running_std, step=step + 1, value=value)
        save_final(self.learner, Path(config.run.out) / "checkpoint")

    def log(self, metrics: dict[str, float], validation: dict[str, float], *, step: int) -> None:
        """A line for every `log_every` steps and every validation."""
        if self.run is not None and (validation or (metrics and step % self.config.run.log_every == 0)):
            self.run.log(metrics | validation, step=step)

    def step(self, step: int, prompts: StepPrompts) -> dict[str, float]:
        """The algorithm box; the numbers are those of docs/objective.md."""
        rolled, signal, sampling = self.sampler.step(step, prompts)  # 1: y_i ~ pi, G for each prompt; some drawn again
        record = self.accumulate(rolled, signal, step)  # 2 to 6: N, R_i, advantages, both terms of L, gradient
        metrics = record.metrics(self.rewards.names)
        optim = self.update(step, metrics)
        with self.seconds.timed("wait"):
            everyones_N2 = self.learner.all_ranks(record.rewards_N2)
        self.running_std.update(split_by_task(*everyones_N2.unbind(dim=1)))  # 7: s of the next step
        self.push(version=step + 1)
        return metrics | sampling | completion_metrics([one.group for one in rolled]) | optim

    def accumulate(self, rolled: Sequence[RolledOut], signal: Sequence[bool] | None, step: int) -> StepRecord:
        """The gradient of a step, one micro-batch after another."""
        config = self.config
        with self.seconds.timed("wait"):  # ranks meet here
            counts = step_counts([one.group for one in rolled], signal, config, self.learner.mean_over_ranks)  # 2: N
        batches = micro_batches(rolled, self.learner, config, step=step)
        if config.max_tokens_per_micro_batch is not None and config.objective.decoder_update == "supervised":
            batches = list(batches)
            counts = replace(counts, targets=sum_of_targets(batch for _, batch in batches))
        record = StepRecord(config)
        for positions, batch in batches:
            rewards, metrics = self.backward(batch, counts, signal and [signal[place] for place in positions])  # 3 to 6
            check_mismatch(metrics, config.logprob_mismatch_limit, step)
            record.add(batch, rewards, metrics)
        return record

    def backward(
        self, batch: RolloutBatch, counts: StepCounts, signal_P: Sequence[bool] | None
    ) -> tuple[RewardBreakdown, dict[str, float]]:
        """Forward, rewards, loss, backward of one micro-batch."""
        with self.seconds.timed("scoring"):
            inputs = inputs_of(batch, self.learner.accelerator.device)
            output = self.learner.model(temperature=self.config.rollout.temperature, **inputs)
        with self.seconds.timed("reference"):
            ref_logps_BL = None if self.reference is None else self.reference.logps(inputs)
        with self.seconds.timed("reward"):
            rewards = self.rewards(answered_tubes(batch, output))  # 3
            given = (batch, output, rewards, self.running_std.scale, counts, self.config, ref_logps_BL)
            loss, metrics = rollout_loss(*given, signal=signal_P, all_ranks=self.learner.all_ranks)  # 4, 5
        with self.seconds.timed("backward"):
            self.learner.accelerator.backward(loss)  # 6
        return rewards, metrics

    def update(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """One optimizer step, unless the gradient is not finite; -> its norm before clipping, the learning rate after."""
        learner = self.learner
        with self.seconds.timed("update"):
            norm = learner.clip_gradient(self.config.optim.max_grad_norm)
            check_finite(norm, metrics, step)
            learner.optimizer.step()
            learner.schedule.step()
            learner.optimizer.zero_grad()
        return {"optim/grad_norm": norm, "optim/lr": learner.schedule.get_last_lr()[0]}

    def push(self, *, version: int) -> None:
        """The MLLM's weights to the engine; the grounder stays here."""
        with self.seconds.timed("push"):
            push_weights(self.learner, self.engine, version=version)
        with self.seconds.timed("wait"):
            self.learner.accelerator.wait_for_everyone()

    def validate(self, *, version: int) -> dict[str, float]:
        """Rewards of greedy answers to the validation samples; nothing where they are not due after this many steps."""
        every = self.config.validation.every_steps
        if every is None or version % every:
            return {}
        with self.seconds.timed("validate"):
            return greedy_rewards(self.learner, self.engine, self.rewards, self.config, version=version)
