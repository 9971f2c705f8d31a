"""Rewards as TRL's reward functions: signature, columns, refusals, and a step of a real GRPOTrainer."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from test_rewards import SAMPLE
from test_rewards_tasks import IMAGE, QUESTION
from tiny import Tiny
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from configs.base import ConfigError
from configs.rewards import RewardConfig
from data.parquet import to_table
from data.types import GroundingSample
from data.written_answers import AnswerStyle
from rewards.terms import TERMS
from rewards.trl import as_reward_func

# The truth of SAMPLE is 1.0 to 3.0 of 4 s.
EXACT, HALF, WHOLE = "<time> 1.0 - 3.0 </time>", "<time> 1.0 - 2.0 </time>", "<time> 0.0 - 4.0 </time>"


def columns_of(samples: list[GroundingSample]) -> dict[str, Any]:
    """As TRL hands them over: one value for each completion."""
    return to_table(samples).to_pydict()


def called(reward: str | RewardConfig, texts: list[Any]) -> list[float]:
    columns = columns_of([SAMPLE] * len(texts)) | {"trainer_state": None, "log_extra": print}
    return as_reward_func(reward)(
        prompts=["?"] * len(texts), completions=texts, completion_ids=[[1]] * len(texts), **columns
    )


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("format", [1.0, 1.0, 1.0, 0.0]),
        ("temporal", [1.0, 0.5, 0.5, 0.0]),
        (RewardConfig.model_validate({"weights": {"format": 0.5, "temporal": 2.0, "viou": 0.0}}), [2.5, 1.5, 1.5, 0.0]),
    ],
)
def test_values_by_hand(reward: str | RewardConfig, expected: list[float]) -> None:
    """1 of 2 s, and 2 of 4 s, are half; text around an answer is a failure."""
    texts = [EXACT, HALF, WHOLE, f"I think {EXACT}"]
    assert called(reward, texts) == pytest.approx(expected)
    assert called(reward, [[{"role": "assistant", "content": text}] for text in texts]) == pytest.approx(expected)


def test_names_are_what_trl_logs() -> None:
    assert [as_reward_func(name).__name__ for name in ("format", "temporal")] == ["format", "temporal"]
    with_boxes = AnswerStyle(answer_format="tube")
    assert as_reward_func("stvg_o1", style=with_boxes).__name__ == "stvg_o1"


@pytest.mark.parametrize(
    "reward",
    ["viou", "spatial", "gated", "consistency", "both_spatial", "think", "bridge", "sarl", "stvg_o1", RewardConfig()],
)
def test_boxes_of_the_decoder_are_refused(reward: str | RewardConfig) -> None:
    with pytest.raises(ConfigError, match="boxes come from the spatial decoder"):
        as_reward_func(reward)


def test_what_is_no_reward_is_named() -> None:
    with pytest.raises(ConfigError, match="got 'tiou'"):
        as_reward_func("tiou")
    with pytest.raises(ConfigError, match="tube_unit"):
        as_reward_func("viou", style=AnswerStyle(answer_format="tube", tube_unit="frames"))


def test_written_boxes_earn_every_term() -> None:
    """10 frames a second, truth 10 to 30: seconds 1 and 2. Final boxes are the truth, so vIoU is 1; gated 1 + 1.

    The draft is shifted by half of its width: GIoU is its IoU 1/3, L1 .1 + .1, so its R_spa is 1/3 - .2 = 2/15, and the final
    boxes' is 1. A letter is not asked for.
    """
    draft, final = (f"1. {box}, 2. {box}" for box in ("[300, 200, 500, 600]", "[200, 200, 400, 600]"))
    text = f"<time> 1 - 2 </time>\n<think_bbox> {draft} </think_bbox>\n<pred_bbox> {final} </pred_bbox>"
    style = AnswerStyle(answer_format="tube")
    columns = columns_of([SAMPLE, SAMPLE])
    expected = {
        "format": 1.0,
        "temporal": 1.0,
        "viou": 1.0,
        "spatial": 1.0,
        "gated": 2.0,
        "consistency": 1.0,
        "both_spatial": 17 / 15,
        "think": 13 / 15,
        "choice": 0.0,
    }
    assert list(expected) == list(TERMS)
    preset = {"stvg_o1": 1 + 1 + 1 + 17 / 15 + 0.5 * 13 / 15}
    for reward, value in (expected | preset).items():
        got = as_reward_func(reward, style=style)(["?"] * 2, [text, EXACT], **columns)
        assert got == pytest.approx([value, 0.0], abs=1e-6), reward


def test_tasks_mixed_with_written_boxes() -> None:
    """A tube of the truth earns 5 of stvg_o1, the true letter 3, the box of an image IoU 1 x 2; a letter alone is no answer."""
    box = "[200, 200, 400, 600]"
    boxes = f"1. {box}, 2. {box}"
    tube = f"<time> 1 - 2 </time>\n<think_bbox> {boxes} </think_bbox>\n<pred_bbox> {boxes} </pred_bbox>"
    tasks = {"qa": {"choice": 3.0}, "rec": {"viou": 2.0}}
    reward = as_reward_func(
        RewardConfig.model_validate({"preset": "stvg_o1", "tasks": tasks}), style=AnswerStyle(answer_format="tube")
    )
    rows = [
        (SAMPLE, tube),
        (QUESTION, "<answer> B </answer>"),
        (IMAGE, f"<pred_bbox> {box} </pred_bbox>"),
        (QUESTION, "B"),
    ]
    got = reward(["?"] * 4, [text for _, text in rows], **columns_of([sample for sample, _ in rows]))
    assert got == pytest.approx([5.0, 3.0, 2.0, 0.0], abs=1e-6)


def test_the_box_of_an_image_is_not_in_the_text() -> None:
    with pytest.raises(ValueError, match="the boxes of rec samples come from the spatial decoder"):
        as_reward_func("format")(["?"], ["<box> </box>"], **columns_of([IMAGE]))


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected the columns of data/parquet.py .* got \['solution'\]"):
        as_reward_func("temporal")(["?"], [EXACT], solution=["x"])
    columns = columns_of([SAMPLE])
    del columns["clip"]
    with pytest.raises(ValueError, match="no column 'clip'"):
        as_reward_func("temporal")(["?"], [EXACT], **columns)


def test_a_step_of_a_real_grpo_trainer(tiny: Tiny, tmp_path: Path) -> None:
    """The model is made to say HALF after one prompt and WHOLE, unfinished, after the other.

    Four completions of each: format 1 and 0, mean .5; temporal .5 and 0, mean .25; their sum 1.5 and 0, mean .75.
    """
    tokenizer = tiny.processor.tokenizer
    answers = {"red": HALF, "green": WHOLE[:-1]}
    rows = columns_of([SAMPLE, SAMPLE]) | {"prompt": list(answers), "sample_id": ["a", "b"]}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=48,
        max_steps=1,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        generation_kwargs={"sequence_bias": [row for pair in answers.items() for row in forced(tokenizer, *pair)]},
    )
    trainer = GRPOTrainer(
        model=Qwen3ForCausalLM(Qwen3Config(vocab_size=1024, num_key_value_heads=1, head_dim=8, **sizes)),
        reward_funcs=[as_reward_func("format"), as_reward_func("temporal")],
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["rewards/format/mean"] == pytest.approx(0.5)
    assert logged["rewards/temporal/mean"] == pytest.approx(0.25)
    assert logged["reward"] == pytest.approx(0.75)


def forced(tokenizer: Any, prompt: str, answer: str) -> list[list[Any]]:
    """A bias for each token of the answer, after all that stands before it; then the end of the turn."""
    start, ids = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
    return [[start + ids[: number + 1], 1e4 * 2.0 ** min(number, 10)] for number in range(len(ids))]
