"""Videos that turn out in training not to be readable: their rows add nothing to the step, and are counted."""

import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from runs import rows_of, run, sft_config, write_config
from tiny import Tiny

from configs.base import load_config
from configs.data import ExposureConfig, FrameChoiceConfig
from configs.model import BridgeConfig, LossConfig
from configs.sft import SFTConfig, UnreadableVideosConfig
from data.collate import Batch
from data.dataset import SupervisedRows, model_inputs
from data.sources import load_samples
from data.types import GroundingSample
from data.unreadable import BlankPrompt, SkippingCollator, SkippingEncoder
from model.criterion import supervised_loss
from model.grounding_model import GroundingModel
from sft.errors import TooManyUnreadableError
from sft.train import training_rows
from sft.unreadable import UnreadableRows


@pytest.fixture()
def encoder(tiny: Tiny) -> SkippingEncoder:
    return SkippingEncoder(tiny.processor, tiny.data)


def rows_of_samples(samples: list[GroundingSample], encoder: SkippingEncoder) -> SupervisedRows:
    """In their order, all scored."""
    return SupervisedRows(
        samples, torch.arange(len(samples)).numpy(), encoder,
        frames=FrameChoiceConfig(num_positive=2, num_negative=1), exposure=ExposureConfig(probability=0.0), seed=0,
    )  # fmt: skip


def collated(rows: SupervisedRows, positions: list[int], tiny: Tiny) -> Batch:
    collate = SkippingCollator(num_queries=4, pad_id=tiny.processor.tokenizer.pad_token_id, temporal_patch_size=2)
    return collate([{"rows": [rows.row(position) for position in positions]}])


def loss_and_gradients(model: GroundingModel, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss, _ = supervised_loss(model(**model_inputs(batch)), batch, LossConfig())
    loss.backward()
    return loss.detach(), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("task", ["stvg", "temporal", "rec", "qa"])
def test_a_skipped_row_adds_nothing(
    task: str, tiny: Tiny, encoder: SkippingEncoder, model: GroundingModel, tmp_path: Path
) -> None:
    """Loss and every gradient are those of the batch without it."""
    good = [tiny.of_task("stvg")[0], tiny.of_task("temporal")[1]]
    bad = replace(tiny.of_task(task)[2], video_path=str(tmp_path / "none.mp4"))
    rows = rows_of_samples([good[0], bad, good[1]], encoder)
    model.train()
    loss, gradients = loss_and_gradients(model, collated(rows, [0, 1, 2], tiny))
    expected_loss, expected = loss_and_gradients(model, collated(rows, [0, 2], tiny))
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)


def test_a_step_of_nothing_else_has_no_gradient(
    tiny: Tiny, encoder: SkippingEncoder, model: GroundingModel, tmp_path: Path
) -> None:
    bad = [replace(sample, video_path=str(tmp_path / "none.mp4")) for sample in tiny.of_task("stvg")[:2]]
    loss, gradients = loss_and_gradients(model, collated(rows_of_samples(bad, encoder), [0, 1], tiny))
    assert loss == 0
    assert all(gradient.count_nonzero() == 0 for gradient in gradients.values())


def test_causes_and_shapes(
    tiny: Tiny, encoder: SkippingEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Shapes are those of the real video; each file is named once, however often it comes."""
    good = tiny.of_task("stvg")[0]
    (tmp_path / "text.mp4").write_text("no video")
    missing = replace(good, sample_id="a", video_path=str(tmp_path / "none.mp4"))
    text = replace(good, sample_id="b", video_path=str(tmp_path / "text.mp4"))
    samples = [good, missing, text, missing]
    with caplog.at_level(logging.WARNING, logger="data.unreadable"):  # Ray raises the level of the root
        prompts = [encoder(sample) for sample in samples]
    assert [getattr(prompt, "cause", None) for prompt in prompts] == [None, "missing", "undecodable", "missing"]
    for blank in prompts[1:]:
        assert isinstance(blank, BlankPrompt) and not blank.clip.frames_THW3.any()
        assert blank.input_ids_L.tolist() == prompts[0].input_ids_L.tolist()
        assert blank.pixel_values_VC.shape == prompts[0].pixel_values_VC.shape
    batch = collated(rows_of_samples(samples, encoder), [0, 1, 2, 3], tiny)
    assert batch["target_unreadable"].tolist() == [0, 1, 2, 1]
    assert "target_unreadable" not in model_inputs(batch)
    assert [caplog.text.count(f"skipped in training: {sample.video_path}: ") for sample in (missing, text)] == [1, 1]


def test_a_run_ends_above_the_share() -> None:
    """0.1 of 40 rows are 4: the fifth is one too many."""
    PartialState(cpu=True)
    rows = UnreadableRows(UnreadableVideosConfig(policy="skip", max_share=0.1), total_rows=40)
    micro_batches = [{"target_unreadable": torch.tensor([0, 1, 0])}, {"target_unreadable": torch.tensor([2, 2, 0])}]
    assert rows.add(micro_batches) == {"data/unreadable/missing": 1, "data/unreadable/undecodable": 2}
    assert rows.add([{"target_unreadable": torch.tensor([0, 1])}])["data/unreadable/missing"] == 1
    with pytest.raises(
        TooManyUnreadableError, match=r"{'missing': 2, 'undecodable': 3} of the run's 40 rows.*max_share=0.1"
    ):
        rows.add([{"target_unreadable": torch.tensor([2, 0])}])


def test_a_run_counts_what_it_skips(tiny: Tiny, backbone: Path, bridge_config: BridgeConfig, tmp_path: Path) -> None:
    """Two steps of eight: the metrics have as many rows of each cause as the order of samples has of the two videos."""
    source = tiny.data.model_dump(mode="json")
    source["source"]["root"] = str(shutil.copytree(source["source"]["root"], tmp_path / "videos"))
    tree = sft_config(source, backbone, bridge_config, tmp_path / "run") | {"max_steps": 2}
    tree |= {"checkpoints": {}, "validation": {}, "unreadable_videos": {"policy": "skip", "max_share": 1.0}}
    path = write_config(tmp_path, "sft.yaml", tree)
    config = load_config(SFTConfig, path)
    rows = training_rows(config, load_samples(config.data, "train"), tiny.encoder, world_size=1)
    videos = Counter(rows.samples[i].video_path for i in rows.order)
    (gone, num_gone), (broken, num_broken) = videos.most_common(2)
    Path(gone).unlink()
    Path(broken).write_text("no video")
    output = run("sft.train", "--config", str(path))
    logged = rows_of(tmp_path / "run")
    assert [sum(row[f"data/unreadable/{cause}"] for row in logged) for cause in ("missing", "undecodable")] == [
        num_gone,
        num_broken,
    ]
    assert all(output.count(f"skipped in training: {name}: ") == 1 for name in (gone, broken))
    assert (tmp_path / "run" / "checkpoint").is_dir()
