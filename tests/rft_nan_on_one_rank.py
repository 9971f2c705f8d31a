"""A step of two trainer ranks, the second of which has a NaN reward: how each of them ends. Without an engine.

    torchrun --nproc_per_node 2 tests/rft_nan_on_one_rank.py CONFIG.json

Prints of each rank its error and the weights that it changed.
"""

import json
import os
import sys
from pathlib import Path

import torch
from rft_without_engine import trainer_of, written
from torch import Tensor

from configs.rewards import RewardConfig
from configs.rft import RFTConfig
from data.tubes import TubeBatch
from rewards.composer import RewardComposer
from rft.sampling import StepPrompts
from rft.step_metrics import NonFiniteStep


def broken(tubes: TubeBatch) -> Tensor:
    """A reward term that is never a number."""
    return torch.full([len(tubes.parsed_B)], torch.nan)


def main() -> None:
    """One rank."""
    config = RFTConfig.model_validate_json(Path(sys.argv[1]).read_text())
    trainer, rank = trainer_of(config), int(os.environ["RANK"])
    if rank == 1:
        trainer.rewards = RewardComposer(RewardConfig(own={"rft_nan_on_one_rank:broken": 1.0}))
    samples = [sample for sample in StepPrompts(config, trainer.learner).samples if sample.task == "stvg"]
    before = {name: tensor.clone() for name, tensor in trainer.learner.unwrapped.state_dict().items()}
    record = trainer.accumulate(written(trainer, samples[rank : rank + 1], [0]), None, 0)
    error = None
    try:
        trainer.update(0, record.metrics(trainer.rewards.names))
    except NonFiniteStep as caught:
        error = str(caught)
    after = trainer.learner.unwrapped.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    sys.stdout.write(f"rank {json.dumps({'rank': rank, 'error': error, 'changed': changed})}\n")


if __name__ == "__main__":
    main()
