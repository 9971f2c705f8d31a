"""A NaN on one of two trainer ranks ends the step on both: DDP's gradient is one, and so is its norm."""

import json
import os
from pathlib import Path

import pytest
from rft_without_engine import with_fields
from runs import run

from configs.rft import RFTConfig
from configs.run import ROOT
from rft.step_metrics import NonFiniteStep, check_finite


def test_what_is_not_finite_is_named() -> None:
    metrics = {"reward/total": float("nan"), "reward/viou": 0.5, "loss/policy": float("-inf")}
    check_finite(3.0, metrics, 7)
    with pytest.raises(
        NonFiniteStep, match=r"^step 7: .* norm is inf; not finite: reward/total=nan, loss/policy=-inf$"
    ):
        check_finite(float("inf"), metrics, 7)


@pytest.mark.slow
def test_both_ranks_raise(rft_config: RFTConfig, tmp_path: Path) -> None:
    """The one to blame names the term; neither has updated anything."""
    (tmp_path / "config.json").write_text(with_fields(rft_config).model_dump_json())
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2"]
    script = str(ROOT / "tests" / "rft_nan_on_one_rank.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    output = run("torch.distributed.run", *launch, script, str(tmp_path / "config.json"), env=environment)
    found = [json.loads(line.removeprefix("rank ")) for line in output.splitlines() if line.startswith("rank ")]
    healthy, broken = sorted(found, key=lambda one: one["rank"])
    for one in (healthy, broken):
        assert one["error"].startswith("step 0: expected a finite gradient, its norm is nan; ") and not one["changed"]
    assert "none of this rank's metrics" in healthy["error"]
    assert "reward/rft_nan_on_one_rank:broken=nan" in broken["error"]
