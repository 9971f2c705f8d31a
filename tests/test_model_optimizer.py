"""Which parameters have which learning rate."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.optim import OptimConfig
from configs.rft import RFTConfig
from configs.sft import SFTConfig
from model.backbone import freeze_vision_tower
from model.build import make_optimizer
from model.grounding_model import GroundingModel

RATES: dict[str, Any] = {"learning_rate": 1e-3, "grounder_learning_rate": 1e-4}


def names_by_rate(model: GroundingModel, **rates: float) -> list[tuple[float, list[str]]]:
    """Of each group in turn, its learning rate and the names of its parameters."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, OptimConfig(**RATES | rates)).param_groups
    return [(group["lr"], [names[id(parameter)] for parameter in group["params"]]) for group in groups]


def part_of(name: str) -> str:
    return "vision" if name.startswith("mllm.model.visual.") else name.split(".")[0]


def test_without_a_rate_of_its_own_the_tower_has_that_of_the_mllm(model: GroundingModel) -> None:
    """Two groups, in the model's order, tower first: what checkpoints of earlier versions hold the state of."""
    names = [name for name, _ in model.named_parameters()]
    (rate, mllm), (grounder_rate, grounder) = names_by_rate(model)
    assert (rate, grounder_rate) == (1e-3, 1e-4)
    assert mllm == [name for name in names if name.startswith("mllm.")]
    assert grounder == [name for name in names if name.startswith("grounder.")]
    assert any(part_of(name) == "vision" for name in mllm)


def test_three_rates(model: GroundingModel) -> None:
    """Every parameter is in the group of its part, and in no other."""
    groups = names_by_rate(model, vision_learning_rate=1e-5)
    assert [(rate, {part_of(name) for name in names}) for rate, names in groups] == [
        (1e-3, {"mllm"}),
        (1e-5, {"vision"}),
        (1e-4, {"grounder"}),
    ]
    grouped = [name for _, names in groups for name in names]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())


def test_frozen_parameters_are_in_no_group(model: GroundingModel) -> None:
    freeze_vision_tower(model.mllm)
    parts = {part_of(name) for _, names in names_by_rate(model) for name in names}
    assert parts == {"mllm", "grounder"}


@pytest.mark.parametrize("stage", ["sft", "rft"])
def test_a_rate_for_a_frozen_tower_is_refused(stage: str) -> None:
    """The tower is frozen by default in either stage."""
    common = {"run": {"out": "unused"}, "data": {"source": {"type": "synthetic", "root": "unused"}}}
    optim = {"optim": {"vision_learning_rate": 1e-6}}
    schemas = {
        "sft": (SFTConfig, common, {"model": {"freeze_vision": False}}),
        "rft": (RFTConfig, common | {"checkpoint": "unused"}, {"freeze_vision": False}),
    }
    schema, config, trained = schemas[stage]
    with pytest.raises(ValidationError, match=r"optim.vision_learning_rate: the vision tower is frozen.*got 1e-06"):
        schema.model_validate(config | optim)
    assert schema.model_validate(config | optim | trained).optim.vision_learning_rate == 1e-6
    schema.model_validate(config)
