"""What GRPO says of a wrong folder or name; a test that fails here has started Ray."""

from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.checkpoints import CheckpointError
from configs.rewards import RewardConfig
from configs.rft import RFTConfig
from configs.run import RunConfig
from configs.sources import SyntheticSource
from rft.train import train


@pytest.fixture
def named(source: SyntheticSource, tmp_path: Path) -> RFTConfig:
    """From a folder that has what a checkpoint is told by, and nothing else of one."""
    (tmp_path / "sft" / "checkpoint" / "mllm").mkdir(parents=True)
    (tmp_path / "sft" / "checkpoint" / "config.json").write_text('{"grounder": "bridge"}')
    return RFTConfig.model_validate(
        {
            "run": RunConfig(out=str(tmp_path / "run"), wandb="disabled"),
            "checkpoint": str(tmp_path / "sft" / "checkpoint"),
            "data": {"source": source.model_dump(mode="json")},
        }
    )


def test_a_checkpoint_without_its_config(named: RFTConfig) -> None:
    (Path(named.checkpoint) / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"^checkpoint=.*: expected a checkpoint folder with .* config\.json in it$"
    ):
        train(named)


def test_a_run_folder_is_told_its_checkpoint(named: RFTConfig) -> None:
    with pytest.raises(CheckpointError, match=rf"did you mean {named.checkpoint}\?$"):
        train(named.model_copy(update={"checkpoint": str(Path(named.checkpoint).parent)}))


@pytest.mark.parametrize(
    ("name", "expected"), [("my_rewrds:centre", "No module named 'my_rewrds'"), ("math:center", "'center'")]
)
def test_a_term_of_ones_own_that_is_not_there(name: str, expected: str, named: RFTConfig) -> None:
    with pytest.raises(ConfigError, match=rf"^rewards\.own: {name} cannot be imported: .*{expected}"):
        train(named.model_copy(update={"rewards": RewardConfig(own={name: 1.0})}))
