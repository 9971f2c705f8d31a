"""Drawing further prompts on two trainer ranks: a run that is killed goes on as if it had not been."""

from pathlib import Path

import pytest
import torch
from runs import RFT_STEPS, finished_steps, kill, rft_run_config, rows_of, run, start, wait_for, write_config
from safetensors.torch import load_file
from tiny import Tiny


@pytest.mark.slow
def test_drawing_again_on_two_ranks_goes_on_after_a_kill(tiny: Tiny, sft_run: Path, tmp_path: Path) -> None:
    """Ranks may draw different numbers of prompts and keep different numbers of groups; micro-batches stay as many.

    At a low temperature answers to some prompts are all alike. What two ranks count is in tests/test_rft_micro_batches.py.
    """
    ends = [tmp_path / "whole", tmp_path / "killed"]
    for out in ends:
        config = rft_run_config(tiny.data.model_dump(mode="json"), sft_run / "checkpoint", out)
        config["rollout"] |= {"max_resamples": 2, "prompts_per_step": 2, "temperature": 0.2}
        config["objective"] |= {"zero_variance": "drop"}
        config["ray"] |= {"num_workers": 2}
        config["max_tokens_per_micro_batch"] = 300  # more than one group of about 190 tokens, less than two
        path = write_config(tmp_path, f"{out.name}.yaml", config)
        if out.name == "killed":
            process = start("rft.train", path, tmp_path / "log")
            wait_for(lambda: finished_steps(ends[1]) > 2, process)  # checkpoints are every two steps
            kill(process)
        run("rft.train", "--config", str(path))
    whole = rows_of(ends[0])
    assert whole == rows_of(ends[1])
    drawn = [row["rollout/prompts"] for row in whole if "rollout/prompts" in row]
    assert len(drawn) == RFT_STEPS and max(drawn) > 2
    tensors = [load_file(out / "checkpoint" / "mllm" / "model.safetensors") for out in ends]
    assert [name for name in tensors[0] if not torch.equal(tensors[0][name], tensors[1][name])] == []
