"""docs/rewards.md says what the code does: terms, presets, what cheating earns, the commands of the ablations."""

import re
import shlex
from pathlib import Path

import pytest
from test_rewards_shaping import CHEATS, HONEST, HONEST_BOX, earned

from configs.base import load_config
from configs.rewards import PRESETS, RewardConfig
from configs.rft import RFTConfig
from rewards.terms import TERMS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/rewards.md").read_text()
ROWS = {
    "honest": ["honest"],
    "whole-video span": ["whole-video span"],
    "full-frame box": ["full-frame box"],
    "no overlap in time": ["no overlap in time"],
    "one confident frame": ["one confident frame"],
    "a huge number, which is cut to the clip": ["a huge number"],
    "two answers; truncated; reversed; no number; unicode digits; text around it; nothing": [
        "two answers", "truncated answer", "reversed span", "a number that is none", "unicode digits",
        "text around the answer", "nothing",
    ],
}  # fmt: skip


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def first_column(title: str) -> list[str]:
    return re.findall(r"^\| `(\w+)`", section(title), re.MULTILINE)


def test_terms_and_presets_are_all_there() -> None:
    assert first_column("Terms") == list(TERMS)
    assert first_column("Presets") == list(PRESETS)
    for name, weights in PRESETS.items():
        written = re.search(rf"^\| `{name}`[^|]*\|([^|]*)\|", section("Presets"), re.MULTILINE)
        assert written is not None
        assert {term: float(weight) for term, weight in re.findall(r"`(\w+)` ([\d.]+)", written[1])} == weights


@pytest.mark.parametrize("row", list(ROWS))
def test_what_cheating_earns(row: str) -> None:
    written = re.search(rf"^\| {re.escape(row)} \|([^|]*)\|([^|]*)\|", section("What cheating earns"), re.MULTILINE)
    assert written is not None
    answers = CHEATS | {"honest": (HONEST, HONEST_BOX)}
    for name in ROWS[row]:
        for preset, value in zip(("bridge", "sarl"), written.groups(), strict=True):
            assert earned(*answers[name], preset=preset) == pytest.approx(float(value), abs=5e-4), (name, preset)


def test_the_commands_of_the_ablations_are_configs() -> None:
    commands = [shlex.split(line)[1:] for line in section("Ablations").splitlines() if line.startswith("$train")]
    assert len(commands) == 5
    configs = [load_config(RFTConfig, ROOT / "configs/rft/bridge_2b.yaml", overrides) for overrides in commands]
    bridge, sarl, tiou, spatial, own = (config.rewards for config in configs)
    assert bridge == RewardConfig()
    assert sarl.weights.gated == 2 and sarl.weights.viou == 0
    assert tiou.weights.viou == 0 and tiou.weights.temporal == 1
    assert spatial.clips == {"spatial": (0.0, 1.0)} and spatial.gates == {"spatial": "temporal"}
    assert own.own == {"my_rewards:centre": 0.5}
