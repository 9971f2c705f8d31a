"""The attention kernels: the same numbers, and a clear error where one is missing."""

import pytest
import torch
from tiny import Tiny

from configs.base import ConfigError
from configs.model import ModelConfig
from data.collate import collate_inputs
from data.encoding import text_ids
from model.attention import check_attention
from model.build import build_model, continue_model, load_checkpoint

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA has what is asked for here")


def three_rows(tiny: Tiny) -> dict[str, torch.Tensor]:
    """Questions and answers of different lengths about two videos and an image, each row with a prompt of its own."""
    prompts = [tiny.encoder(tiny.of_task(task)[0]) for task in ("stvg", "qa", "rec")]
    answers = [text_ids(tiny.processor, text) for text in ("<time> 0.5 - 2.0 </time>", "no", "<box> </box>")]
    return collate_inputs(prompts, answers, [[0, 1], [1], [0]], num_queries=4, pad_id=0)


@pytest.mark.parametrize("attention", ["eager", "flex"])
def test_kernels_give_the_same_numbers(tiny: Tiny, attention: str) -> None:
    """Log-probs and boxes are those of sdpa."""
    batch = three_rows(tiny)
    other = load_checkpoint(tiny.folder, dtype="float32", attention=attention)[0]
    assert other.mllm.model.visual.config._attn_implementation == ("eager" if attention == "eager" else "sdpa")
    with torch.inference_mode():
        expected, got = tiny.model(**batch), other(**batch)
    torch.testing.assert_close(got.logps_BL, expected.logps_BL, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.grounding.boxes_cxcywh_NBF4, expected.grounding.boxes_cxcywh_NBF4, atol=1e-5, rtol=0)


def test_eager_gives_the_same_gradients(tiny: Tiny) -> None:
    """Of the first layer's keys, through everything above it."""
    batch, gradients = three_rows(tiny), []
    for attention in ("sdpa", "eager"):
        model = load_checkpoint(tiny.folder, dtype="float32", attention=attention)[0]
        output = model(**batch)
        (output.logps_BL.sum() + output.grounding.boxes_cxcywh_NBF4.sum()).backward()
        gradients.append(model.mllm.model.language_model.layers[0].self_attn.k_proj.weight.grad)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


@NO_GPU
def test_flex_has_no_gradient_on_a_cpu(tiny: Tiny) -> None:
    """The reason for the error below; it also shows that flex is what runs. When torch has one, the error can go."""
    model = load_checkpoint(tiny.folder, dtype="float32", attention="flex")[0]
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        model(**three_rows(tiny))


@NO_GPU
@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("flex", "model.attention=flex: has no backward pass on CPU"),
        ("flash_attention_2", "model.attention=flash_attention_2: needs a CUDA device and the package flash-attn"),
    ],
)
def test_a_missing_kernel_is_an_error_before_weights_are_read(tiny: Tiny, attention: str, message: str) -> None:
    config = ModelConfig(backbone="no/such-folder", attention=attention)
    with pytest.raises(ConfigError, match=message):
        build_model(config, tiny.data)
    with pytest.raises(ConfigError, match=message):
        continue_model(config, tiny.data, "no/such-folder")


def test_what_runs_everywhere_is_no_error() -> None:
    for name in ("sdpa", "eager"):
        check_attention(name, "float32")
