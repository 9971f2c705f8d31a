"""Targets on vision tokens, and answers of imprecise annotation."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny import Tiny

from configs.data import AnnotationErrorConfig, ExposureConfig
from configs.run import RunConfig
from configs.sft import SFTConfig
from data.answers import SpanSec, parse_span
from data.collate import collate_targets
from data.sources import load_samples
from sft.train import training_rows


def test_a_box_marks_the_cells_that_it_covers(tiny: Tiny) -> None:
    """64 px in 2 x 2 cells: a box within a cell gives 1 there, one over two cells its share of a cell in each."""
    sample = tiny.of_task("stvg")[0]
    prompt = tiny.encoder(sample)
    inside = [sample.span.start <= frame < sample.span.end for frame in prompt.clip.frame_idx_T.tolist()]
    for box, expected in (
        ((36.0, 4.0, 56.0, 24.0), [0.0, 1.0, 0.0, 0.0]),
        ((0.0, 0.0, 64.0, 32.0), [1.0, 1.0, 0.0, 0.0]),
        ((16.0, 0.0, 48.0, 16.0), [0.5, 0.5, 0.0, 0.0]),
    ):
        marked = replace(sample, boxes_xyxy_px=(box,) * len(sample.span))
        targets = collate_targets([marked], [prompt], [[]], temporal_patch_size=2)
        cells_TS = targets["target_cells"].reshape(-1, 4)
        share_T = torch.tensor([(a + b) / 2 for a, b in list(pairwise(map(float, inside)))[::2]])
        torch.testing.assert_close(cells_TS, share_T[:, None] * torch.tensor(expected))
        assert targets["target_cells_mask"].all()


def test_only_samples_with_boxes_have_cells(tiny: Tiny) -> None:
    samples = [tiny.of_task(task)[0] for task in ("temporal", "qa", "rec")]
    targets = collate_targets(samples, [tiny.encoder(s) for s in samples], [[]] * 3, temporal_patch_size=2)
    assert targets["target_cells_mask"].any(dim=1).tolist() == [False, False, True]


@pytest.mark.parametrize("error_sec", [0.0, 0.5])
def test_imprecise_annotation_moves_the_text_alone(tiny: Tiny, error_sec: float) -> None:
    """Each end by at most the error; the sample, and with it every other target, keeps the truth."""
    config = SFTConfig(
        run=RunConfig(out="unused"),
        data=tiny.data.model_copy(update={"tasks": {"stvg": 1.0}}),
        exposure=ExposureConfig(probability=0.0),
        annotation_error=AnnotationErrorConfig(max_error_sec=error_sec),
        max_steps=12,
    )
    rows = training_rows(config, load_samples(config.data, "train"), tiny.encoder, world_size=1)
    samples, said = [rows.samples[i] for i in rows.order], {}
    errors = []
    for position, sample in enumerate(samples):
        row = rows.row(position)
        answer = parse_span(tiny.processor.tokenizer.decode(row.answer_ids[:-1]))
        assert isinstance(answer, SpanSec) and row.is_scored and row.sample == sample
        assert said.setdefault(sample.sample_id, answer) == answer  # an annotator is wrong once
        start_sec, end_sec = sample.span_sec
        errors += [abs(answer.start_sec - start_sec), abs(answer.end_sec - end_sec)]
    assert max(errors) <= error_sec + 0.051  # answers have one decimal
    assert len(said) < len(samples)
    assert (max(errors) > 0.2) == (error_sec > 0)
