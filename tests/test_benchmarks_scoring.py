"""The benchmarks of scoring at a small size: both sides compute the same, and what is printed has its values."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import packed_group, score_update


def printed(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The values of the one line of JSON; what libraries print before it is not looked at."""
    capsys.readouterr()
    packed_group.show(result, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_group_with_its_prompt_once(
    gradient_checkpointing: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three completions of five tokens. Every row of the other side has the prompt again, so it reads two prompts more."""
    arguments = Namespace(
        prompt_tokens=200,
        completions=3,
        completion_tokens=5,
        repeats=1,
        gradient_checkpointing=gradient_checkpointing,
    )
    result = printed(packed_group.measure(str(tmp_path), arguments), capsys)
    assert set(result) == {
        "benchmark", "prompt_tokens", "completions", "completion_tokens", "gradient_checkpointing", "ratio", "memory_ratio",
        "memory_ratio_of_the_group", "max_abs_diff", "max_rel_grad", "llm_tokens", "seconds", "saved_mib", "threads", "torch",
    }  # fmt: skip
    assert result["prompt_tokens"] >= 200
    assert result["llm_tokens"]["each"] - result["llm_tokens"]["once"] == 2 * result["prompt_tokens"]
    assert result["max_abs_diff"] <= 1e-5 and result["max_rel_grad"] <= 1e-5


def test_a_step_against_trls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same loss and the same gradients; the loss is not 0, since many of its tokens are clipped."""
    arguments = Namespace(image_px=64, prompts=2, completions=2, completion_tokens=6, repeats=1)
    result = printed(score_update.measure(str(tmp_path), arguments), capsys)
    assert set(result) == {
        "benchmark", "prompt_tokens", "completions", "completion_tokens", "ratio", "loss", "max_abs_diff", "max_rel_grad",
        "seconds", "threads", "versions",
    }  # fmt: skip
    assert len(result["prompt_tokens"]) == 2 and result["completions"] == 2
    assert abs(result["loss"]) > 1e-3
    assert result["max_abs_diff"] <= 1e-6 and result["max_rel_grad"] <= 1e-4
