"""Contracts with transformers: our one forward against Qwen3-VL's own, and where features lie."""

import torch
from tiny import Tiny

from data.collate import collate_inputs
from data.encoding import text_ids
from model.backbone import encode_vision, generate, hidden_states, score_tokens
from model.tiny_backbone import PATCH_PX
from model.vision_features import patch_coordinates


def _batch(tiny: Tiny, tasks: tuple[str, ...] = ("stvg", "qa", "rec")) -> tuple[list, dict]:
    samples = [tiny.of_task(task)[0] for task in tasks]
    prompts = [tiny.encoder(sample) for sample in samples]
    answers = [text_ids(tiny.processor, "<time> 0.5 - 2.0 </time>") for _ in samples]
    return prompts, collate_inputs(
        prompts, answers, [[0]] * len(samples), num_queries=4, pad_id=tiny.processor.tokenizer.pad_token_id
    )


def test_forward_equals_transformers(tiny: Tiny) -> None:
    """The scored log-probs equal those of Qwen3VLForConditionalGeneration on the same ids and pixels."""
    for task in ("stvg", "rec"):
        prompts, batch = _batch(tiny, (task,))
        names = ("pixel_values", "image_grid_thw") if prompts[0].is_image else ("pixel_values_videos", "video_grid_thw")
        length = batch["input_ids"].shape[1] - 4
        with torch.inference_mode():
            theirs = tiny.model.mllm(
                input_ids=batch["input_ids"][:, :length],
                attention_mask=batch["attention_mask"][:, :length],
                mm_token_type_ids=batch["mm_token_type_ids"][:, :length],
                **{names[0]: batch["pixel_values"], names[1]: batch["grid_thw"]},
            ).logits
            ours = tiny.model(**batch).logps_BL
        logps = theirs.clone()
        logps[..., tiny.model.banned_ids] = float("-inf")
        logps = logps.float().log_softmax(-1)[0, :-1]
        expected = logps.gather(1, batch["input_ids"][0, 1:length, None])[:, 0]
        mask = batch["score_mask"][0, 1:length]
        assert mask.sum() == len(text_ids(tiny.processor, "<time> 0.5 - 2.0 </time>"))
        torch.testing.assert_close(ours[0, 1:length][mask], expected[mask], atol=1e-5, rtol=0)


def test_patch_order_of_the_tower() -> None:
    """4 x 4 patches, merged 2 x 2: the first cell holds rows 0-1 and columns 0-1, the second columns 2-3."""
    y, x = patch_coordinates(4, 4, 2)
    assert list(zip(y.tolist(), x.tolist(), strict=True))[:8] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3),
    ]  # fmt: skip


def test_features_lie_where_the_pixels_are(tiny: Tiny) -> None:
    """Lighting one patch changes the embedding of exactly the feature whose centre is there."""
    prompt = tiny.encoder(tiny.of_task("stvg")[0])
    time, height, width = prompt.grid_3.tolist()
    row, column = 3, 1
    frames = torch.zeros(time * 2, 3, height * PATCH_PX, width * PATCH_PX)
    frames[:, :, row * PATCH_PX : (row + 1) * PATCH_PX, column * PATCH_PX : (column + 1) * PATCH_PX] = 1.0
    video = tiny.processor.video_processor(
        videos=[frames.mul(255).byte()], do_sample_frames=False, return_tensors="pt", do_resize=False
    )
    dark = tiny.processor.video_processor(
        videos=[torch.zeros_like(frames).byte()], do_sample_frames=False, return_tensors="pt", do_resize=False
    )
    embed = tiny.model.mllm.model.visual.patch_embed
    changed = (embed(video["pixel_values_videos"]) - embed(dark["pixel_values_videos"])).abs().sum(dim=-1) > 1e-6
    with torch.inference_mode():
        vision = encode_vision(tiny.model.mllm, video["pixel_values_videos"], video["video_grid_thw"])
    _, centres_S2 = vision.cells(0, "patches")
    lit = centres_S2[changed[: height * width]]
    torch.testing.assert_close(lit, torch.tensor([[(column + 0.5) / width, (row + 0.5) / height]]))
    merged_TSC, merged_S2 = vision.cells(0, "merged")
    assert merged_TSC.shape[1] == len(merged_S2) == height * width // 4


def test_queries_attend_but_are_not_seen(tiny: Tiny) -> None:
    """Bridging queries read the whole row; no prompt or answer token reads them."""
    _, batch = _batch(tiny, ("stvg",))
    other = torch.randn_like(tiny.model.grounder.queries.embedding.weight)
    with torch.inference_mode():
        vision = encode_vision(tiny.model.mllm, batch["pixel_values"], batch["grid_thw"])
        last_a, states_a, _ = hidden_states(tiny.model.mllm, batch, vision, other, tiny.model.taps)
        last_b, states_b, _ = hidden_states(tiny.model.mllm, batch, vision, 2 * other, tiny.model.taps)
        logps, _ = score_tokens(tiny.model.mllm, last_a, batch, banned_ids=tiny.model.banned_ids, temperature=1.0)
    real = ~batch["query_mask"].bool()
    assert torch.equal(last_a[real], last_b[real])
    assert (states_a - states_b).abs().max() > 1e-3
    assert (logps[batch["score_mask"].bool()] < 0).all()


def test_temperature_divides_the_logits(tiny: Tiny) -> None:
    """A very high temperature makes the distribution uniform over the tokens that may be sampled: entropy = log n."""
    _, batch = _batch(tiny, ("stvg",))
    vocabulary = tiny.model.mllm.config.text_config.vocab_size - len(tiny.model.banned_ids)
    with torch.inference_mode():
        output = tiny.model(temperature=1e6, **batch)
    mask = batch["score_mask"].bool()
    expected = torch.full((int(mask.sum()),), float(torch.tensor(vocabulary).log()))
    torch.testing.assert_close(output.entropies_BL[mask], expected, atol=1e-3, rtol=0)


def test_greedy_generation_is_the_same_alone_and_in_a_batch(tiny: Tiny) -> None:
    """Left padding in the batch changes nothing."""
    prompts, _ = _batch(tiny, ("stvg", "qa", "rec", "temporal"))
    eos = tiny.processor.tokenizer.eos_token_id
    args = {"max_new_tokens": 8, "eos_id": eos, "banned_ids": tiny.model.banned_ids}
    together = generate(tiny.model.mllm, prompts, **args)
    alone = [generate(tiny.model.mllm, [prompt], **args)[0] for prompt in prompts]
    assert together == alone
