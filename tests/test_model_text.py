"""The `text` grounder on a tiny model: it learns to write tubes, and evaluation, rewards and budgets read what it wrote."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Tiny

from configs.base import ConfigError
from configs.data import ExposureConfig, FrameChoiceConfig
from configs.evaluation import AnsweringConfig, EvaluationConfig
from configs.model import LossConfig, ModelConfig
from configs.rewards import RewardConfig
from configs.rft import ObjectiveConfig, RFTConfig
from configs.sources import SyntheticSource
from data.collate import collate_inputs, collate_targets
from data.completion_budget import box_tokens, num_indices
from data.dataset import PromptEncoder, SupervisedRows, model_inputs
from data.encoding import completion_text, text_ids
from data.sources import synthetic
from data.tube_text import BOX_PATTERN, TubeText, format_tube, parse_tubes, tube_pattern
from data.types import DecodedClip, GroundingSample
from data.written_answers import AnswerStyle, write_answer
from evaluation.metrics import score
from evaluation.predictor import Predictor, transformers_generate
from evaluation.vllm_engine import Rollout
from model.build import build_model, load_checkpoint, save_checkpoint
from model.criterion import supervised_loss
from model.grounding_model import GroundingModel
from rewards.composer import RewardComposer
from rft.step import answered_tubes, make_batch
from rft.train import check_answers


@pytest.fixture(scope="module")
def text(tiny: Tiny, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A random checkpoint, saved and loaded; indices are frames."""
    data = tiny.data.model_copy(update={"prompt": tiny.data.prompt.model_copy(update={"tube_unit": "frames"})})
    torch.manual_seed(0)
    config = ModelConfig(backbone=str(backbone), dtype="float32", grounder="text", freeze_vision=False)
    folder = tmp_path_factory.mktemp("checkpoint_text")
    save_checkpoint(*build_model(config, data), folder)
    model, processor = load_checkpoint(folder, dtype="float32")
    assert isinstance(data.source, SyntheticSource)
    samples = synthetic.load(data.source, "train").samples
    return Tiny(folder, data, samples, model, processor, PromptEncoder(processor, data, answer_format="tube"))


def target(text: Tiny, sample: GroundingSample) -> str:
    return write_answer(sample, text.encoder(sample).clip.frame_idx_T, text.encoder.style)


def answering(text: Tiny, texts: list[str]) -> Predictor:
    """A predictor of a model that writes these."""
    return Predictor(text.model, text.encoder, lambda prompts: [text_ids(text.processor, one) for one in texts])


def train(text: Tiny, samples: list[GroundingSample], *, num_steps: int, lr: float = 2e-3) -> GroundingModel:
    """All weights, on one batch of target texts."""
    model, _ = load_checkpoint(text.folder, dtype="float32")
    model.train()
    torch.manual_seed(0)
    prompts = [text.encoder(sample) for sample in samples]
    answers = [text_ids(text.processor, target(text, sample)) for sample in samples]
    nothing: list[list[int]] = [[] for _ in samples]
    pad_id = text.processor.tokenizer.pad_token_id
    batch = collate_inputs(prompts, answers, nothing, num_queries=model.num_queries, pad_id=pad_id)
    batch |= collate_targets(samples, prompts, nothing, temporal_patch_size=model.temporal_patch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=num_steps)
    for _ in range(num_steps):
        loss, terms = supervised_loss(model(**model_inputs(batch)), batch, LossConfig())
        assert set(terms) == {"text"}
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def test_the_model_learns_single_boxes_by_heart(text: Tiny) -> None:
    """Four images: what it writes by itself is the target, and its IoU with the truth is one of rounding alone."""
    samples = text.of_task("rec")[:4]
    model = train(text, samples, num_steps=60)
    generate = transformers_generate(model, text.processor, max_completion_length=16)
    predictions = Predictor(model, text.encoder, generate)(samples)
    assert [prediction.text for prediction in predictions] == [target(text, sample) for sample in samples]
    for prediction, sample in zip(predictions, samples, strict=True):
        assert sample.boxes_xyxy_px is not None and sample.boxes_xyxy_px[0] is not None
        # Half of a thousandth of 64 px.
        np.testing.assert_allclose(prediction.boxes[sample.clip.start], sample.boxes_xyxy_px[0], atol=0.033)


@pytest.mark.slow
def test_the_model_overfits_one_batch_of_tubes(text: Tiny) -> None:
    """Four videos, written greedily: m_vIoU >= 0.95."""
    samples = text.of_task("stvg")[:4]
    model = train(text, samples, num_steps=250)
    generate = transformers_generate(model, text.processor, max_completion_length=16)
    assert score(samples, Predictor(model, text.encoder, generate)(samples)).viou.mean() >= 0.95


def test_target_texts_score_as_the_truth(text: Tiny) -> None:
    """Of every frame that the model is shown, which here are all: boxes are off by half of a thousandth."""
    samples = text.of_task("stvg")[:4]
    predictions = answering(text, [target(text, sample) for sample in samples])(samples)
    scores = score(samples, predictions)
    assert scores.tiou.mean() == 1.0 and scores.parsed.mean() == 1.0
    assert scores.viou.mean() > 0.97 and scores.gt_viou.mean() > 0.97


def test_supervised_rows_teach_text_alone(text: Tiny) -> None:
    """No answer is shifted to be seen and not learned, since nothing else would be; an annotator's error moves the tube."""
    samples = text.of_task("stvg")[:4]
    args = {"frames": FrameChoiceConfig(), "exposure": ExposureConfig(probability=1.0), "seed": 0}
    exact = SupervisedRows(samples, np.arange(4), text.encoder, **args)
    for position, sample in enumerate(samples):
        row = exact.row(position)
        assert row.is_scored and row.answer_ids == text_ids(text.processor, target(text, sample))
    shifted = SupervisedRows(samples, np.arange(4), text.encoder, max_error_sec=1.0, **args)
    texts = [completion_text(text.processor, shifted.row(position).answer_ids) for position in range(4)]
    assert parse_tubes(texts).reasons == ("",) * 4
    assert texts != [target(text, sample) for sample in samples]


def test_failures_and_other_tasks(text: Tiny) -> None:
    samples = [text.of_task("stvg")[0], text.of_task("temporal")[0], text.of_task("qa")[0]]
    texts = ["<time> 0 - 1 </time>", "<time> 0.5 - 1.0 </time>", "<answer> A </answer>"]
    got = answering(text, texts)(samples)
    assert [one.failure for one in got] == ["grammar", "", ""]
    assert got[0].span is None and not got[0].boxes and not got[0].boxes_in_true_span
    assert got[1].span_sec == (0.5, 1.0) and got[2].choice == "A"


def test_grpo_scores_written_tubes(text: Tiny) -> None:
    """The target earns 1 + 1 + 1 + 2 (STVG-o1), and a failure nothing; the text is trained by its log-probs."""
    sample = text.of_task("stvg")[0]
    ids = [text_ids(text.processor, one) for one in (target(text, sample), "what?")]
    group = [Rollout(row, [-1.0] * len(row), False, 0) for row in ids]
    batch = make_batch(
        [sample], [text.encoder(sample)], [group], text.processor,
        num_queries=0, temporal_patch_size=2, style=text.encoder.style,
    )  # fmt: skip
    output = text.model(**model_inputs(batch.inputs))
    got = RewardComposer(RewardConfig(preset="stvg_o1"))(answered_tubes(batch, output))
    assert got.total_B.tolist() == pytest.approx([5.0, 0.0], abs=0.05)
    bridge = RewardComposer(RewardConfig())(answered_tubes(batch, output))
    assert bridge.total_B.tolist() == pytest.approx([2.1, 0.0], abs=0.03)


@pytest.mark.parametrize("answer", [None, "true"])
def test_a_question_is_answered_as_by_the_predictor(answer: str | None, text: Tiny) -> None:
    """`ground`, which an export has, and evaluation read the same tube."""
    sample = text.of_task("stvg")[0]
    prompt = text.encoder(sample)
    written = None if answer is None else target(text, sample)
    ours = text.model.ground(
        text.processor, query=sample.query, frames_THW3=prompt.clip.frames_THW3, frame_idx_T=prompt.clip.frame_idx_T,
        fps=sample.fps, num_frames=len(sample.clip), max_new_tokens=4, answer=written,
    )  # fmt: skip
    generate = transformers_generate(text.model, text.processor, max_completion_length=4)
    predictor = Predictor(text.model, text.encoder, generate) if written is None else answering(text, [written])
    theirs = predictor([sample])[0]
    assert (ours.text, ours.span) == (theirs.text, theirs.span)
    assert list(ours.boxes_xyxy_px) == list(theirs.boxes)
    for frame, box in ours.boxes_xyxy_px.items():
        np.testing.assert_allclose(box, theirs.boxes[frame], atol=1e-5)


def test_no_answer_is_longer_than_the_budget(text: Tiny) -> None:
    """Boxes of any numbers at all 16 frames of a clip; and no more than a quarter of it is left over at its longest."""
    tokenizer, style = text.processor.tokenizer, text.encoder.style
    prompt = text.encoder(text.of_task("stvg")[0])
    assert prompt.box_tokens == box_tokens(tokenizer, style, prompt.clip)
    count = num_indices(style, prompt.clip)
    assert count == 16
    lengths = []
    for box in ((0.0, 0.0, 1.0, 1.0), (0.123, 0.456, 0.789, 0.987), (1.0, 1.0, 1.0, 1.0)):
        boxes = dict.fromkeys(range(count), box)
        lengths.append(len(text_ids(text.processor, format_tube(TubeText(0, count - 1, boxes, boxes)))))
    assert 0.75 * prompt.box_tokens < max(lengths) <= prompt.box_tokens


@pytest.mark.parametrize(("times", "expected"), [((0.0, 0.5, 1.0, 1.5), 2), ((0.0, 0.5, 1.0), 2), ((0.0,), 1)])
def test_seconds_of_a_clip(times: tuple[float, ...], expected: int) -> None:
    """The last frame lasts as long as the others: 2.0 s, 1.5 s, and one frame."""
    clip = DecodedClip(np.zeros((len(times), 2, 2, 3), np.uint8), np.arange(len(times)), np.array(times))
    assert num_indices(AnswerStyle("tube", tube_unit="seconds"), clip) == expected


def test_answers_without_boxes_have_no_budget_and_no_pattern(tiny: Tiny, text: Tiny) -> None:
    prompt = tiny.encoder(tiny.of_task("stvg")[0])
    assert (prompt.box_tokens, prompt.answer_pattern) == (0, None)
    prompts = [text.encoder(text.of_task(task)[0]) for task in ("stvg", "rec", "temporal", "qa")]
    assert [prompt.answer_pattern for prompt in prompts] == [tube_pattern(16), BOX_PATTERN, None, None]
    assert [prompt.box_tokens > 0 for prompt in prompts] == [True, True, False, False]


def test_the_engines_grammar_takes_the_target_texts_alone(text: Tiny) -> None:
    """xgrammar, which vLLM constrains decoding with."""
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string

    tube, box = (xgrammar.Grammar.from_regex(pattern) for pattern in (tube_pattern(16), BOX_PATTERN))
    assert _is_grammar_accept_string(tube, target(text, text.of_task("stvg")[0]))
    assert _is_grammar_accept_string(box, target(text, text.of_task("rec")[0]))
    assert not _is_grammar_accept_string(tube, "<time> 5 - 7 </time>")
    assert not _is_grammar_accept_string(box, "<pred_bbox> [01, 2, 3, 4] </pred_bbox>")


def test_no_decoder_looks_at_frames(text: Tiny) -> None:
    with pytest.raises(ConfigError, match="the boxes are in the text"):
        Predictor(text.model, text.encoder, list, answering=AnsweringConfig(margin_sec=0.5))  # type: ignore[arg-type]


def test_constrained_decoding_needs_vllm(tiny: Tiny) -> None:
    args = {"checkpoint": "a", "out": "b", "data": tiny.data, "constrained_decoding": True}
    assert EvaluationConfig(engine="vllm", **args).constrained_decoding
    with pytest.raises(ValueError, match="constrained_decoding: needs engine=vllm"):
        EvaluationConfig(**args)


def test_grpo_checks_what_the_checkpoints_grounder_can_earn(tiny: Tiny, text: Tiny, rft_config: RFTConfig) -> None:
    """Before anything is started."""
    frozen = {"rewards": RewardConfig(preset="stvg_o1"), "objective": ObjectiveConfig(decoder_update="frozen")}
    written = rft_config.model_copy(update=frozen)
    check_answers(written.model_copy(update={"checkpoint": str(text.folder)}))
    with pytest.raises(ConfigError, match=r"consistency, both_spatial, think cannot be earned by .* bridge"):
        check_answers(written.model_copy(update={"checkpoint": str(tiny.folder)}))
    for update, expected in ({"decoder_update": "supervised"}, "no decoder"), ({"decoder_update": "pathwise"}, "no decoder"), (
        {"decoder_update": "frozen", "loss_type": "dr_grpo"}, "one longest length"
    ):  # fmt: skip
        refused = {"checkpoint": str(text.folder), "objective": ObjectiveConfig.model_validate(update)}
        with pytest.raises(ConfigError, match=expected):
            check_answers(rft_config.model_copy(update=refused))


def test_a_checkpoint_without_weights_of_its_own(text: Tiny, tmp_path: Path) -> None:
    """Saved and read again, strictly; the MLLM is bit-equal."""
    assert not text.model.grounder.state_dict()
    save_checkpoint(text.model, text.processor, tmp_path)
    ours, theirs = text.model.state_dict(), load_checkpoint(tmp_path, dtype="float32")[0].state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
