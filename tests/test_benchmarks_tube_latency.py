"""What the latency of a tube is measured on: 20 boxes for every grounder, as many tokens as the true answers have."""

from typing import Any

import pytest

from benchmarks.tube_latency import NAMES, TubeQuestion, grounders, in_milliseconds, in_turn, random_backbone, rendered
from benchmarks.tube_latency import table as written_table
from data.encoding import EncodedPrompt, completion_text
from data.tube_text import parse_tubes
from model.backbone import load_processor

WIDTH, LAYERS = 64, 2
MEDIANS_SEC = {"bridge": 0.25, "interleaved": 0.2, "text": 4.0, "prompt": 0.05, "vision": 0.0125}
WRITING_SEC = {"bridge": 0.15, "interleaved": 0.15, "text": 3.999}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TubeQuestion]:
    """Every grounder's question; in place of an engine something that gives as many tokens as it is asked for."""
    folder = str(tmp_path_factory.mktemp("tube_latency"))
    samples, data = rendered(folder, size_px=64)
    backbone = random_backbone(samples, folder, WIDTH, LAYERS)
    models, processor = grounders(backbone, data, "float32"), load_processor(backbone)
    return {name: TubeQuestion(samples[0], models[name], processor, data, _zeros) for name in NAMES}


def _zeros(prompt: EncodedPrompt, num_tokens: int) -> list[int]:
    return [0] * num_tokens


def _text(question: TubeQuestion) -> str:
    return completion_text(question.predictor.encoder.processor, question.answer_ids)


def test_the_written_tube_has_twenty_indices_in_both_sequences(asked: dict[str, TubeQuestion]) -> None:
    tube = parse_tubes([_text(asked["text"])]).row(0)
    indices = list(range(tube.start, tube.start + 20))
    assert tube.end - tube.start == 19
    assert list(tube.think_boxes) == list(tube.final_boxes) == indices


@pytest.mark.parametrize("name", ["bridge", "interleaved"])
def test_the_others_write_the_interval_alone(name: str, asked: dict[str, TubeQuestion]) -> None:
    """Ten seconds, the end token after it."""
    start_sec, end_sec = asked[name].sample.span_sec
    assert end_sec - start_sec == pytest.approx(10.0)
    assert _text(asked[name]) == f"<time> {start_sec:.1f} - {end_sec:.1f} </time>"
    assert asked[name].answer_ids[-1] == asked[name].predictor.encoder.processor.tokenizer.eos_token_id


def test_a_written_box_costs_what_its_digits_cost(asked: dict[str, TubeQuestion]) -> None:
    """Every digit is a token, in every answer; and a tube has 2 x 20 boxes of at least 4 digits and an index."""
    for question in asked.values():
        assert len(question.answer_ids) > sum(map(str.isdigit, _text(question)))
    assert sum(map(str.isdigit, _text(asked["text"]))) >= 2 * 20 * 5


@pytest.mark.parametrize("name", NAMES)
def test_a_call_gives_the_whole_tube_at_the_shown_frames(name: str, asked: dict[str, TubeQuestion]) -> None:
    """The shown frames are every fifth of the video; the interval is the true one."""
    question = asked[name]
    prediction, span = question(), question.sample.span
    assert span is not None
    assert prediction.failure == ""
    assert list(prediction.boxes) == [frame for frame in range(0, 160, 5) if span.start <= frame < span.end]
    assert len(prediction.boxes) == question.num_boxes == 20
    assert len(question.writing_sec) > 0


def test_all_grounders_share_the_weights_of_one_mllm(asked: dict[str, TubeQuestion]) -> None:
    mllm = asked["text"].model.mllm
    assert all(question.model.mllm is mllm for question in asked.values())
    assert (mllm.config.text_config.hidden_size, mllm.config.text_config.num_hidden_layers) == (WIDTH, LAYERS)


def test_an_engine_that_stops_early_is_an_error(asked: dict[str, TubeQuestion]) -> None:
    question = TubeQuestion(
        asked["text"].sample,
        asked["text"].model,
        asked["text"].predictor.encoder.processor,
        asked["text"].predictor.encoder.data,
        lambda prompt, num_tokens: [0],
    )
    with pytest.raises(RuntimeError, match=rf"expected {len(question.answer_ids)} tokens of the engine, got 1"):
        question()


def test_ratios_and_parts_of_given_medians() -> None:
    """4 / 0.25 and 4 / 0.2; what is not writing is the forward or the reading."""
    assert in_milliseconds(MEDIANS_SEC, WRITING_SEC) == {
        "bridge_ratio": 16.0,
        "interleaved_ratio": 20.0,
        "tube_ms": {"bridge": 250.0, "interleaved": 200.0, "text": 4000.0},
        "generation_ms": {"bridge": 150.0, "interleaved": 150.0, "text": 3999.0},
        "boxes_ms": {"bridge": 100.0, "interleaved": 50.0, "text": 1.0},
        "prompt_ms": 50.0,
        "vision_ms": 12.5,
    }


def test_the_table_has_a_line_of_each_grounder() -> None:
    tokens = {"bridge": 17, "interleaved": 18, "text": 900}
    told: dict[str, Any] = dict.fromkeys(("backbone", "boxes", "repeats", "threads", "versions"), 1)
    result = in_milliseconds(MEDIANS_SEC, WRITING_SEC) | told | {"prompt_tokens": tokens, "answer_tokens": tokens}
    lines = [line.split() for line in written_table(result).splitlines()]
    assert lines[1] == ["bridge", "17", "17", "150.0", "100.0", "250.0", "16.0"]
    assert lines[2] == ["interleaved", "18", "18", "150.0", "50.0", "200.0", "20.0"]
    assert lines[3] == ["text", "900", "900", "3999.0", "1.0", "4000.0", "1.0"]


def test_the_caches_are_emptied_before_every_call() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("one", "two")}
    for turn in in_turn(calls, lambda: order.append("forget")).values():
        turn()
    assert order == ["forget", "one", "forget", "two"]
