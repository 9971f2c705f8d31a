"""What is wanted: reward terms with their weights, and what a failure is worth."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.base import Config, ConfigError

Term = Literal["format", "temporal", "viou", "spatial", "gated", "consistency", "both_spatial", "think", "choice"]
WRITTEN_TERMS = ("consistency", "both_spatial", "think")
"""Terms of boxes that are written in the answer: the grounder `text` alone can earn them."""
OtherTask = Literal["temporal", "rec", "qa"]
TASK_TERMS: dict[str, tuple[Term, ...]] = {
    "temporal": ("format", "temporal"),
    "rec": ("format", "viou", "spatial"),
    "qa": ("format", "choice"),
}
"""What the samples of a task other than stvg can earn (rewards/tasks.py)."""
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
    tasks: dict[OtherTask, dict[Term, Weight]] = {}
    """Weights of the terms of TASK_TERMS for samples of other tasks than stvg, whose are `weights`. A task that is trained on
    must be here, for example {temporal: {format: 0.1, temporal: 1}, rec: {format: 0.1, viou: 1}, qa: {format: 0.1, choice: 1}}."""
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
    def terms_by_task(self) -> dict[str, list[str]]:
        """The terms with a weight of each task."""
        by_task = {"stvg": self.weights.model_dump()} | self.tasks
        return {task: [term for term, weight in terms.items() if weight > 0] for task, terms in by_task.items()}

    @property
    def written_terms(self) -> list[str]:
        """The terms with a weight, or used as a gate, that need boxes written in the answer."""
        weights = self.weights.model_dump()
        return [term for term in WRITTEN_TERMS if weights[term] > 0 or term in self.gates.values()]

    @model_validator(mode="after")
    def _earned_by_their_tasks(self) -> "RewardConfig":
        for task, weights in self.tasks.items():
            if unknown := [term for term in weights if term not in TASK_TERMS[task]]:
                raise ValueError(f"tasks.{task}: expected terms of {', '.join(TASK_TERMS[task])}; got {unknown[0]}")
            if not any(weights.values()):
                raise ValueError(f"tasks.{task}: expected at least one positive weight, got {weights}")
        return self

    @model_validator(mode="after")
    def _usable(self) -> "RewardConfig":
        if not any([*self.weights.model_dump().values(), *self.own.values()]):
            raise ValueError(f"weights: expected at least one positive weight, got {self.weights}")
        if "choice" in self.gates.values() and not any("choice" in terms for terms in self.tasks.values()):
            raise ValueError("gates: choice is computed where rewards.tasks.qa gives it a weight alone, and has none")
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
