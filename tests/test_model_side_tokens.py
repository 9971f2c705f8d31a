"""Slots beside their frame, by hand, and that the model's forward keeps to it.

One row of 8 tokens: text, frame of two tokens, text, frame of two tokens, text, one slot for the first frame, whose last token
has place 2: a reach of 3.
"""

import pytest
import torch
from tiny import Tiny

from data.collate import collate_inputs
from data.encoding import text_ids
from model.backbone import encode_vision, hidden_states
from model.side_tokens import beside_frames, reach_of_tokens, reading_mask

SLOT_BL = torch.tensor([[False] * 7 + [True]])


def test_reach_by_hand() -> None:
    """Token l reads l + 1 tokens; the slot those of its frame and before."""
    assert reach_of_tokens(SLOT_BL, torch.tensor([3])).tolist() == [[1, 2, 3, 4, 5, 6, 7, 3]]


def test_positions_by_hand() -> None:
    """A frame of 1 x 2 cells at time 1: heights 1, 1, widths 1, 2. Text after it goes on at the largest + 1 = 3; so does
    the slot, whatever its own place in the row."""
    positions_3BL = torch.tensor([[[0, 1, 1, 3, 4, 4, 6, 7]], [[0, 1, 1, 3, 4, 4, 6, 7]], [[0, 1, 2, 3, 4, 5, 6, 7]]])
    moved = beside_frames(positions_3BL, SLOT_BL, reach_of_tokens(SLOT_BL, torch.tensor([3])))
    assert torch.equal(moved[..., :7], positions_3BL[..., :7])
    assert moved[:, 0, 7].tolist() == [3, 3, 3]


def test_mask_by_hand() -> None:
    """The last two readers: token 6 reads all up to itself, the slot the first three and itself; padding is not read."""
    place_BL, reach_BL = torch.arange(8)[None], reach_of_tokens(SLOT_BL, torch.tensor([3]))
    is_real_BL = torch.tensor([[False] + [True] * 7])
    mask = reading_mask(place_BL[:, 6:], reach_BL[:, 6:], place_BL, is_real_BL)
    assert mask.int().tolist() == [[[[0, 1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0, 1]]]]


@pytest.fixture(scope="module")
def tiny(tiny_of: dict[str, Tiny]) -> Tiny:
    return tiny_of["interleaved"]


def states(tiny: Tiny, batch: dict) -> torch.Tensor:
    model = tiny.model
    with torch.inference_mode():
        vision = encode_vision(model.mllm, batch["pixel_values"], batch["grid_thw"])
        queries, reach_N = model.grounder.query_embeddings(batch), model.grounder.query_reach(batch)
        return hidden_states(model.mllm, batch, vision, queries, [], reach_N).last_BLD


def one_row(tiny: Tiny, frames: list[int], answer: str = "<time> 0.5 - 2.0 </time>") -> dict:
    prompts, pad_id = [tiny.encoder(tiny.of_task("stvg")[0])], tiny.processor.tokenizer.pad_token_id
    return collate_inputs(
        prompts, [text_ids(tiny.processor, answer)], [frames], num_queries=tiny.model.num_queries, pad_id=pad_id
    )


def test_a_slot_stands_where_it_would_follow_its_frame(tiny: Tiny) -> None:
    """Its state is that of the same embedding put right after the frame's last token, in a row that ends there."""
    model, batch = tiny.model, one_row(tiny, [5])
    slot = states(tiny, batch)[0, -1]
    reach = int(model.grounder.query_reach(batch)[0])
    # A row that is cut after the frame's tokens, with the slot as an ordinary last token.
    row = {name: batch[name] for name in ("vision_is_image", "vision_of_row")}
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "query_mask", "score_mask"):
        row[name] = torch.cat([batch[name][:, :reach], batch[name][:, -1:]], dim=1)
    num_patches = 5 // model.temporal_patch_size + 1
    time, height, width = batch["grid_thw"][0].tolist()
    row["grid_thw"] = torch.tensor([[num_patches, height, width]])
    row["pixel_values"] = batch["pixel_values"][: num_patches * height * width]
    with torch.inference_mode():
        vision = encode_vision(model.mllm, row["pixel_values"], row["grid_thw"])
        expected = hidden_states(model.mllm, row, vision, model.grounder.queries.weight[5:6], []).last_BLD[0, -1]
    assert num_patches < time
    torch.testing.assert_close(slot, expected, atol=1e-5, rtol=0)


def test_slots_do_not_read_the_answer_and_are_not_read(tiny: Tiny) -> None:
    """Another answer of the same length, and more slots: the states of the first slot and of the prompt stay."""
    few, many = one_row(tiny, [5]), one_row(tiny, [5, 6, 9])
    other = one_row(tiny, [5], answer="<time> 1.5 - 3.0 </time>")
    a, b, c = (states(tiny, batch)[0] for batch in (few, many, other))
    assert few["input_ids"].shape == other["input_ids"].shape and not torch.equal(few["input_ids"], other["input_ids"])
    torch.testing.assert_close(a, b[: len(a)], atol=1e-5, rtol=0)
    torch.testing.assert_close(a[-1], c[-1], atol=1e-5, rtol=0)


def test_a_frame_without_a_query_is_named(tiny: Tiny) -> None:
    batch = one_row(tiny, [5])
    batch["frame_position"] = torch.tensor([[64]])
    with pytest.raises(ValueError, match=r"interleaved.max_frames=64: .* got frame 64"):
        tiny.model.grounder.query_embeddings(batch)


def test_a_single_image_has_a_query_of_its_own(tiny: Tiny) -> None:
    prompt = tiny.encoder(tiny.of_task("rec")[0])
    batch = collate_inputs([prompt], [[1]], [[0]], num_queries="per_frame", pad_id=0)
    assert torch.equal(tiny.model.grounder.query_embeddings(batch), tiny.model.grounder.queries.weight[-1:])
