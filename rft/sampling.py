"""The samples of a step with their rollouts: prompts in the run's order, G completions of each, resampled where asked for."""

from collections.abc import Iterator, Sequence

import numpy as np

from configs.rft import RFTConfig
from data.mixture import draw_order, sample_groups
from data.sources import load_samples
from data.token_budget import report_budget
from data.types import GroundingSample
from evaluation.vllm_engine import request_seed
from rewards.composer import RewardComposer
from rft.advantages import has_signal
from rft.micro_batches import micro_batches, rewards_without_gradient
from rft.phase_seconds import PhaseSeconds
from rft.resampling import RolledOut, further_rows, resample
from rft.rollout import EngineClient
from rft.setup import Learner, sampling_args


def occurrences_before(rows_N: np.ndarray) -> np.ndarray:
    """How often each value is there before: 0, 0, 1, 2 for 7, 3, 7, 7."""
    return np.array([np.count_nonzero(rows_N[:place] == row) for place, row in enumerate(rows_N)])


class StepPrompts:
    """This rank's samples of each step: a slice of one order that all ranks share, a function of seed and step."""

    def __init__(self, config: RFTConfig, learner: Learner) -> None:
        self.config, accelerator = config, learner.accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.samples = load_samples(config.data, config.data.train_split)
        report_budget(self.samples, learner.encoder.budget, config.data.train_split)
        self.groups = sample_groups(self.samples, config.data)
        size = config.rollout.prompts_per_step
        order = draw_order(self.groups, total=config.max_steps * self.world * size, seed=config.run.seed)
        self.rows = order.reshape(config.max_steps, self.world, size)

    def of_step(self, step: int) -> list[GroundingSample]:
        """The P samples that the step begins with."""
        return [self.samples[index] for index in self.rows[step, self.rank]]

    def times_before(self, step: int) -> list[int]:
        """How often each of them is in the step before, on this rank or one before it: an epoch may end within a step."""
        return occurrences_before(self.rows[step].flatten()).reshape(self.world, -1)[self.rank].tolist()

    def further(self, step: int) -> Iterator[GroundingSample]:
        """Those that it may draw beside them, none of which any rank has."""
        taken = self.rows[step].flatten()
        count = self.config.rollout.max_resamples * len(taken)
        rows = further_rows(self.groups, taken, count=count, seed=self.config.run.seed, step=step)
        return (self.samples[index] for index in rows[self.rank :: self.world])


class Sampler:
    """Asks the engine, and looks for signal where the config does something about groups without it."""

    def __init__(
        self,
        config: RFTConfig,
        learner: Learner,
        engine: EngineClient,
        rewards: RewardComposer,
        seconds: PhaseSeconds,
    ) -> None:
        self.config, self.learner, self.engine, self.rewards, self.seconds = config, learner, engine, rewards, seconds
        self.args = sampling_args(config, learner)
        self.looks_for_signal = config.objective.zero_variance == "drop" or config.rollout.max_resamples > 0

    def roll(
        self, step: int, samples: Sequence[GroundingSample], times_before: Sequence[int] | None = None
    ) -> list[RolledOut]:
        """Read the videos, sample G completions of each prompt. times_before: see `request_seed`; None: each sample is new."""
        with self.seconds.timed("encode"):
            prompts = [self.learner.encoder(sample) for sample in samples]
        with self.seconds.timed("rollout"):
            asked = zip(samples, times_before or [0] * len(samples), strict=True)
            seeds = [request_seed(self.config.run.seed, step, sample.sample_id, before) for sample, before in asked]
            groups = self.engine.generate(prompts, self.args, seeds=seeds, version=step)
            self.seconds.move(self.engine.waited_sec, source="rollout", to="wait")
        return [RolledOut(*row) for row in zip(samples, prompts, groups, strict=True)]

    def step(self, step: int, prompts: StepPrompts) -> tuple[list[RolledOut], list[bool] | None, dict[str, float]]:
        """P groups; which of them have signal, None where nobody asks; how many prompts it took."""
        first = self.roll(step, prompts.of_step(step), prompts.times_before(step))
        if not self.looks_for_signal:
            return first, None, {}
        rolled, num_kept, drawn = resample(
            first,
            prompts.further(step),
            lambda samples: self.roll(step, samples),
            self.signal,
            max_resamples=self.config.rollout.max_resamples,
        )
        return rolled, [row < num_kept for row in range(len(rolled))], {"rollout/prompts": float(drawn)}

    def signal(self, rolled: Sequence[RolledOut]) -> list[bool]:
        """Which groups have signal, by a forward without gradient: boxes count too."""
        found: dict[int, bool] = {}
        with self.seconds.timed("signal"):
            for positions, batch in micro_batches(rolled, self.learner, self.config):
                scored, paid_PGK = rewards_without_gradient(batch, self.learner, self.rewards)
                signal_P = has_signal(paid_PGK, scored.names, self.config.signal_terms)
                found |= dict(zip(positions, signal_P.tolist(), strict=True))
        return [found[position] for position in range(len(rolled))]
