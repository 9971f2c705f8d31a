"""What is wanted: reward terms with their weights, and what a failure is worth."""

from typing import Annotated

from pydantic import Field, model_validator

from configs.base import Config

Weight = Annotated[float, Field(ge=0)]


class RewardWeights(Config):
    """Weight of each term of rewards/terms.py. Ours: outcome terms equal, a small one for a readable answer."""

    format: Weight = 0.1
    temporal: Weight = 1.0
    viou: Weight = 1.0


class RewardConfig(Config):
    """Weighted sum of terms, each in [0, 1] (rewards/terms.py)."""

    weights: RewardWeights = RewardWeights()
    parse_failure: Annotated[float, Field(le=0)] = 0.0
    """Added to the reward of an answer that cannot be parsed, on top of every term being 0."""

    @model_validator(mode="after")
    def _some_weight(self) -> "RewardConfig":
        if not any(self.weights.model_dump().values()):
            raise ValueError(f"weights: expected at least one positive weight, got {self.weights}")
        return self
