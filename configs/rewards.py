"""What is wanted: reward terms with their weights, and what a failure is worth."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.base import Config, ConfigError

Term = Literal["format", "temporal", "viou", "spatial", "gated", "consistency", "both_spatial", "think"]
WRITTEN_TERMS = ("consistency", "both_spatial", "think")
"""Terms of boxes that are written in the answer: the grounder `text` alone can earn them."""
Weight = Annotated[float, Field(ge=0)]
OwnTerm = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]

PRESETS: dict[str, dict[str, float]] = {
    # Ours: outcome terms equal, a small one for a readable answer.
    "bridge": {"format": 0.1, "temporal": 1.0, "viou": 1.0},
    # SARL-STG: 2 R_ST + 0.6 R_F + 0.4 R_Th, without the reward of its thoughts, which our answers do not have.
    "sarl": {"format": 0.6, "gated": 2.0},
    # STVG-o1 (2511.21375), Eq. 10.
    "stvg_o1": {"format": 1.0, "consistency": 1.0, "temporal": 1.0, "both_spatial": 1.0, "think": 0.5},
}


class RewardWeights(Config):
    """Weight of each term of rewards/terms.py."""

    format: Weight = 0.0
    temporal: Weight = 0.0
    viou: Weight = 0.0
    spatial: Weight = 0.0
    gated: Weight = 0.0
    consistency: Weight = 0.0
    both_spatial: Weight = 0.0
    think: Weight = 0.0


class RewardConfig(Config):
    """Weighted sum of terms (rewards/terms.py), after their gates and clips."""

    preset: Literal["bridge", "sarl", "stvg_o1"] = "bridge"
    """Where weights come from that are not given."""
    weights: RewardWeights = RewardWeights(**PRESETS["bridge"])
    gates: dict[Term, Term] = {}
    """term: by which other term it is multiplied, for example {viou: temporal}."""
    clips: dict[Term, tuple[float, float]] = {}
    """term: the lowest and highest value that counts, for example {spatial: [0, 1]}."""
    spatial_floor: Annotated[float, Field(ge=-5, le=0)] | None = None
    """Lowest value of the mean GIoU - L1 of either written box sequence, in both_spatial and think. None is the paper's: there
    no overlap in time is worth more than a bad box. 0 mends it; a clip of both_spatial would pay for bad think boxes."""
    own: dict[OwnTerm, Weight] = {}
    """Terms of your own, `module:function` to weight; the function maps a TubeBatch to [B], like those of rewards/terms.py."""
    parse_failure: Annotated[float, Field(le=0)] = 0.0
    """What an answer that cannot be parsed is worth: no term pays for it."""

    @model_validator(mode="before")
    @classmethod
    def _weights_of_the_preset(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or not isinstance(tree.get("weights", {}), dict):
            return tree
        preset = PRESETS.get(tree.get("preset", "bridge"), {})
        return tree | {"weights": preset | tree.get("weights", {})}

    @property
    def written_terms(self) -> list[str]:
        """The terms with a weight, or used as a gate, that need boxes written in the answer."""
        weights = self.weights.model_dump()
        return [term for term in WRITTEN_TERMS if weights[term] > 0 or term in self.gates.values()]

    @model_validator(mode="after")
    def _usable(self) -> "RewardConfig":
        if not any([*self.weights.model_dump().values(), *self.own.values()]):
            raise ValueError(f"weights: expected at least one positive weight, got {self.weights}")
        for term, (lowest, highest) in self.clips.items():
            if lowest >= highest:
                raise ValueError(f"clips.{term}: expected lowest < highest, got {lowest}, {highest}")
        if unweighted := [term for term in self.written_terms if self.weights.model_dump()[term] == 0]:
            raise ValueError(f"gates: {unweighted[0]} is computed where it has a weight alone, and has none")
        chained = [term for term, gate in self.gates.items() if gate in self.gates]
        if chained:
            raise ValueError(f"gates: {chained[0]} is multiplied by a term that has a gate itself")
        return self


def check_grounder(config: RewardConfig, grounder: str, can_earn: Collection[str]) -> None:
    """Raise ConfigError where a term has a weight that the answers of a grounder cannot earn; can_earn: those they can."""
    impossible = [term for term, weight in config.weights.model_dump().items() if weight > 0 and term not in can_earn]
    if impossible:
        raise ConfigError(
            f"rewards.preset={config.preset}, rewards.weights: {', '.join(impossible)} cannot be earned by the answers of "
            f"the grounder {grounder}; expected weights of {', '.join(sorted(can_earn))} alone"
        )
