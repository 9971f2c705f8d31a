"""What is wanted: reward terms with their weights, and what a failure is worth."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Config

RewardTerm = Literal["format", "temporal", "viou"]


class RewardConfig(Config):
    """Weighted sum of terms, each in [0, 1] (rewards/terms.py)."""

    weights: dict[RewardTerm, Annotated[float, Field(ge=0)]] = {"format": 0.1, "temporal": 1.0, "viou": 1.0}
    """Weight of each term. The default is ours: outcome terms equal, a small one for a readable answer."""
    parse_failure: Annotated[float, Field(le=0)] = 0.0
    """Added to the reward of an answer that cannot be parsed, on top of every term being 0."""

    @model_validator(mode="after")
    def _some_weight(self) -> "RewardConfig":
        if not any(self.weights.values()):
            raise ValueError(f"weights: expected at least one positive weight, got {self.weights}")
        return self
