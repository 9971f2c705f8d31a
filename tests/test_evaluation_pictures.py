"""The contact sheet, the curves, and the search for a temperature of equal entropy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import Tiny

from data.collate import true_box_px
from data.sources.jsonl import write_samples
from data.video import READERS
from evaluation.contact_sheet import GAP_PX, HEADER_PX, TILE_PX, contact_sheet
from evaluation.curves import Panel, draw_curves, of_stage
from evaluation.draw import GREEN, ORANGE, main
from evaluation.matched_entropy import Drawn, match
from evaluation.metrics import Scores
from evaluation.predictions import Prediction, write_predictions

NO_SCORES = Scores(*(np.zeros(1),) * 4)


def test_the_sheet_shows_boxes_in_their_intervals(tiny: Tiny) -> None:
    """A tile has green where the frame is in the true interval and orange where it is in the answered one."""
    sample = tiny.of_task("stvg")[0]
    assert sample.span is not None
    last = len(sample.clip) - 1
    prediction = Prediction(
        sample.sample_id, sample.query, "<time> 0.0 - 1.0 </time>", "", (0, 4), {0: (2.0, 2.0, 9.0, 9.0)}, {}
    )
    sheet = np.asarray(contact_sheet([sample], [prediction], num_frames=4))
    for column, frame in enumerate(np.linspace(0, last, 4).round().astype(int).tolist()):
        left = GAP_PX + column * (TILE_PX + GAP_PX)
        tile = sheet[2 * HEADER_PX : 2 * HEADER_PX + TILE_PX, left : left + TILE_PX].reshape(-1, 3)
        has_green, has_orange = ((tile == colour).all(axis=1).sum() > 20 for colour in (GREEN, ORANGE))
        assert has_green == (true_box_px(sample, frame) is not None)
        assert has_orange == (frame < 4)


def test_a_mixtures_ids_are_files_of_one_folder(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`part/id`, and one that would lead out of the folder."""
    ids = ["part/1", "part%2F1", "../2"]
    first = tiny.of_task("stvg")[0]
    samples = [replace(first, sample_id=sample_id) for sample_id in ids]
    write_samples(tmp_path / "samples.jsonl", samples)
    write_predictions(tmp_path / "p.jsonl", [Prediction(sample_id, first.query) for sample_id in ids])
    command = ["draw", "--annotations", "samples.jsonl", "--predictions", "p.jsonl", "--out", "drawn", "--count", "3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", command)
    main()
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == ["..%2F2.mp4", "part%252F1.mp4", "part%2F1.mp4"]
    assert len(READERS["pyav"](tmp_path / "drawn" / names[0], np.array([len(first.clip) - 1]))[0]) == 1


def test_curves_draw_what_was_logged(tmp_path: Path) -> None:
    rows = [{"stage": "rft", "step": i, "reward/total": 0.1 * i, "reward/total_group_std": 0.05} for i in range(5)]
    draw_curves([rows], tmp_path / "curves.png")
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 5
    with pytest.raises(ValueError, match="nothing to draw among 0 rows"):
        draw_curves([], tmp_path / "none.png")


def test_runs_of_one_stage_follow_each_other() -> None:
    """Steps 1, 2 and 1, 2 of two supervised runs become 1, 2 and 3, 4; GRPO counts for itself."""
    runs = [[{"stage": stage, "step": i, "loss/total": 1.0} for i in (1, 2)] for stage in ("sft", "rft", "sft")]
    panel = Panel("", "sft", {"total": "loss/total"})
    assert [[row["step"] for row in rows] for rows in of_stage(panel, runs)] == [[1, 2], [], [3, 4]]


def test_equal_entropy_is_found_by_bisection() -> None:
    """Entropy grows with temperature; a value that no temperature gives is an error."""
    asked = []

    def draw(temperature: float) -> Drawn:
        asked.append(temperature)
        return Drawn(temperature, entropy=0.5 * temperature**2, scores=NO_SCORES)

    found = match(draw, 0.18, first=1.0, tolerance=1e-3, tries=12)
    assert found.temperature == pytest.approx(0.6, abs=2e-3)
    assert asked[0] == 1.0
    with pytest.raises(ValueError, match="no temperature in 12 tries"):
        match(draw, 9.0, first=1.0, tolerance=1e-3, tries=12)
