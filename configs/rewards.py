"""What is wanted: reward terms with their weights, and what a failure is worth."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.base import Config

Term = Literal["format", "temporal", "viou", "spatial", "gated"]
Weight = Annotated[float, Field(ge=0)]
OwnTerm = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]

PRESETS: dict[str, dict[str, float]] = {
    # Ours: outcome terms equal, a small one for a readable answer.
    "bridge": {"format": 0.1, "temporal": 1.0, "viou": 1.0},
    # SARL-STG: 2 R_ST + 0.6 R_F + 0.4 R_Th, without the reward of its thoughts, which our answers do not have.
    "sarl": {"format": 0.6, "gated": 2.0},
}


class RewardWeights(Config):
    """Weight of each term of rewards/terms.py."""

    format: Weight = 0.0
    temporal: Weight = 0.0
    viou: Weight = 0.0
    spatial: Weight = 0.0
    gated: Weight = 0.0


class RewardConfig(Config):
    """Weighted sum of terms (rewards/terms.py), after their gates and clips."""

    preset: Literal["bridge", "sarl"] = "bridge"
    """Where weights come from that are not given."""
    weights: RewardWeights = RewardWeights(**PRESETS["bridge"])
    gates: dict[Term, Term] = {}
    """term: by which other term it is multiplied, for example {viou: temporal}."""
    clips: dict[Term, tuple[float, float]] = {}
    """term: the lowest and highest value that counts, for example {spatial: [0, 1]}."""
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

    @model_validator(mode="after")
    def _usable(self) -> "RewardConfig":
        if not any([*self.weights.model_dump().values(), *self.own.values()]):
            raise ValueError(f"weights: expected at least one positive weight, got {self.weights}")
        for term, (lowest, highest) in self.clips.items():
            if lowest >= highest:
                raise ValueError(f"clips.{term}: expected lowest < highest, got {lowest}, {highest}")
        chained = [term for term, gate in self.gates.items() if gate in self.gates]
        if chained:
            raise ValueError(f"gates: {chained[0]} is multiplied by a term that has a gate itself")
        return self
