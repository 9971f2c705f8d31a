"""The stopwatch by hand, and which part of a real forward it counts for."""

from itertools import chain, repeat

import pytest
import torch
from matplotlib import pyplot
from shared_prompt import groups_of
from tiny import Tiny

from configs.rft import PHASES, Phase
from evaluation.curves import PANELS, draw_panel
from model.grounding_model import GroundingModel
from rft.phase_seconds import PhaseSeconds, split_forward


def test_phases_nest_and_add_up() -> None:
    """Read at 0, when rollout begins (1), when wait begins (3) and ends (7), when rollout ends (8), for metrics (10)."""
    times = iter([0.0, 1.0, 3.0, 7.0, 8.0, 10.0])
    seconds = PhaseSeconds(clock=lambda: next(times))
    with seconds.timed("rollout"), seconds.timed("wait"):
        pass
    metrics = seconds.metrics()
    expected = {"rollout": 3.0, "wait": 4.0, "other": 3.0}
    assert {phase: metrics[f"seconds/{phase}"] for phase in PHASES} == dict.fromkeys(PHASES, 0.0) | expected
    assert sum(metrics[f"share/{phase}"] for phase in PHASES) == pytest.approx(1.0)
    assert metrics["share/wait"] == 0.4


def test_seconds_can_belong_to_another_phase() -> None:
    times = iter([0.0, 0.0, 5.0, 5.0])
    seconds = PhaseSeconds(clock=lambda: next(times))
    with seconds.timed("rollout"):
        seconds.move(2.0, source="rollout", to="wait")
    metrics = seconds.metrics()
    assert (metrics["seconds/rollout"], metrics["seconds/wait"]) == (3.0, 2.0)


def test_a_step_begins_with_nothing() -> None:
    seconds = PhaseSeconds()
    with seconds.timed("update"):
        torch.ones(1000, 1000).sum()
    seconds.clear()
    assert seconds.metrics()["seconds/update"] == 0.0


class Recording(PhaseSeconds):
    """Remembers which phases were begun. A clock that stands still."""

    def __init__(self) -> None:
        super().__init__(clock=chain(repeat(0.0)).__next__)
        self.begun: list[str] = []

    def begin(self, phase: Phase) -> None:
        self.begun.append(phase)
        super().begin(phase)


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared prompt", "whole rows"])
def test_parts_of_the_forward(is_shared: bool, model: GroundingModel, tiny: Tiny) -> None:
    """In their order, within `scoring` alone; the numbers are those without a stopwatch."""
    batch = groups_of(tiny.encoder, tiny.of_task("stvg"), 2)[0 if is_shared else 1]
    with torch.inference_mode():
        before = model(**batch).logps_BL
    seconds = Recording()
    split_forward(model, seconds)
    with torch.inference_mode(), seconds.timed("scoring"):
        assert torch.equal(model(**batch).logps_BL, before)
    language = ["prompt", "completions"] if is_shared else ["completions"]
    assert seconds.begun == ["scoring", "vision", *language, "decoder"]
    with torch.inference_mode(), seconds.timed("reference"):
        model(**batch)
    assert seconds.begun[4 + len(language) - 1 :] == ["reference"]
    assert seconds.phase == "other"


def test_shares_are_drawn_on_top_of_each_other() -> None:
    """Two steps of 3 : 1 and 1 : 1 without other phases; the legend has the means, and nothing of phases that took no time."""
    shares = [{"share/rollout": 0.75, "share/update": 0.25}, {"share/rollout": 0.5, "share/update": 0.5}]
    nothing = {f"share/{phase}": 0.0 for phase in PHASES}
    rows = [{"stage": "rft", "step": step} | nothing | row for step, row in enumerate(shares, start=1)]
    (panel,) = (panel for panel in PANELS if panel.is_stacked)
    figure, axis = pyplot.subplots()
    draw_panel(axis, panel, [rows])
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["rollout 62%", "update 38%"]
    lower, upper = (area.get_paths()[0].vertices for area in axis.collections)
    assert {tuple(point) for point in lower.tolist()} == {(1, 0), (1, 0.75), (2, 0), (2, 0.5)}
    assert {tuple(point) for point in upper.tolist()} == {(1, 0.75), (1, 1), (2, 0.5), (2, 1)}
    pyplot.close(figure)
