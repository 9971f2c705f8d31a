"""One prompt pass per group, cached and packed, against every row whole: log-probs and all gradients, in float32.

Two groups, of G and of two completions, so that G = 1 goes through the cache as well. Their prompts differ in length, as do
their answers, so both are padded; the rows of a group are not neighbours.
"""

import os
from pathlib import Path

import pytest
import torch
from runs import run
from shared_prompt import RELATIVE, checkpointed, groups_of, largest_error, logps_and_gradients
from tiny import Tiny
from transformers import Qwen3VLConfig

from configs.lora import LoraConfig
from configs.run import ROOT
from data.collate import Batch
from model.backbone import encode_vision
from model.grounding_model import GroundingModel
from model.lora import add_lora
from model.prompt_pass import LLMInput, Packing, SharedPrompts, Work, packing_pays, pairs_per_token


def with_moved_adapters(model: GroundingModel) -> None:
    """Fresh ones have B = 0, and then A has no gradient."""
    add_lora(model, LoraConfig(r=4, lora_alpha=8.0))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["cached", "packed"])
@pytest.mark.parametrize("is_lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_shared_prompt_equals_repeated_prompt(
    size: int, is_lora: bool, is_checkpointed: bool, model: GroundingModel, tiny: Tiny
) -> None:
    if is_lora:
        with_moved_adapters(model)
    shared, repeated = groups_of(tiny.encoder, tiny.of_task("stvg"), size)
    assert len(shared["prompt_length"].unique()) == 2
    theirs, their_gradients = logps_and_gradients(model, repeated)
    ours, our_gradients = logps_and_gradients(checkpointed(model) if is_checkpointed else model, shared)
    mask = shared["score_mask"].bool()
    torch.testing.assert_close(ours[mask], theirs[mask], rtol=RELATIVE, atol=0)
    assert our_gradients.keys() == their_gradients.keys()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if name.startswith("mllm.")} <= our_gradients.keys()
    assert largest_error(our_gradients, their_gradients) <= RELATIVE


def test_deepstack_is_part_of_the_comparison(model: GroundingModel, tiny: Tiny) -> None:
    """The tower hands features to later layers of the LLM too, and log-probs depend on them in both ways."""
    for batch in groups_of(tiny.encoder, tiny.of_task("stvg"), 2):
        before, gradients = logps_and_gradients(model, batch)
        vision = encode_vision(model.mllm, batch["pixel_values"], batch["grid_thw"])
        assert len(vision.deepstack) > 0
        merger = "mllm.model.visual.deepstack_merger_list"
        assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if name.startswith(merger))
        with torch.no_grad():
            weights = model.mllm.model.visual.deepstack_merger_list[0].linear_fc2.weight
            weights.mul_(2)
            assert (model(**batch).logps_BL - before).abs().max() > 1e-3
            weights.div_(2)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["cached", "packed"])
def test_a_row_of_padding_alone_changes_nothing(is_checkpointed: bool, model: GroundingModel, tiny: Tiny) -> None:
    """Thirty columns more, in the shared form."""
    if is_checkpointed:
        checkpointed(model)
    shared, _ = groups_of(tiny.encoder, tiny.of_task("stvg"), 5)
    (ours, our_gradients), (theirs, their_gradients) = (
        logps_and_gradients(model, batch) for batch in (widened(shared, 30), shared)
    )
    torch.testing.assert_close(ours[:, :-30], theirs, rtol=RELATIVE, atol=1e-7)
    assert largest_error(our_gradients, their_gradients) <= RELATIVE


def widened(batch: Batch, columns: int) -> Batch:
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "score_mask", "query_mask")
    return batch | {name: torch.nn.functional.pad(batch[name], (0, columns)) for name in names}


def shapes_read(model: GroundingModel) -> list[torch.Size]:
    """Of what the LLM reads, one for each pass from here on."""
    shapes: list[torch.Size] = []
    hook = lambda module, args, kwargs: shapes.append(kwargs["inputs_embeds"].shape)  # noqa: E731
    model.mllm.model.language_model.register_forward_pre_hook(hook, with_kwargs=True)
    return shapes


def packed_shape(shared: Batch, size: int) -> tuple[int, int, int]:
    """Two sequences of the longer prompt and `size` rests of the longest each; the group of two has padding there."""
    rest = int((shared["attention_mask"].sum(dim=1) - shared["prompt_length"]).max())
    return (2, int(shared["prompt_length"].max()) + size * rest, 128)


def test_packing_is_one_pass_of_as_many_sequences_as_there_are_prompts(model: GroundingModel, tiny: Tiny) -> None:
    shared, _ = groups_of(tiny.encoder, tiny.of_task("stvg"), 5)
    shapes = shapes_read(model)
    checkpointed(model)(**shared)
    assert shapes == [packed_shape(shared, 5)]


@pytest.mark.parametrize(("inside", "is_packed"), [(256, False), (16384, True)], ids=["whole", "packed"])
def test_long_answers_are_the_same_packed_and_whole(
    inside: int, is_packed: bool, model: GroundingModel, tiny: Tiny
) -> None:
    """100 words more in every answer: whole rows. Were the layers said to be as wide inside as 16384, packing would pay."""
    shared, repeated = groups_of(tiny.encoder, tiny.of_task("stvg"), 5, extra_words=100)
    theirs, their_gradients = logps_and_gradients(model, repeated)
    shapes = shapes_read(model)
    model.mllm.model.language_model.config.intermediate_size = inside
    ours, our_gradients = logps_and_gradients(checkpointed(model), shared)
    assert shapes == [packed_shape(shared, 5) if is_packed else (*shared["input_ids"].shape, 128)]
    mask = shared["score_mask"].bool()
    torch.testing.assert_close(ours[mask], theirs[mask], rtol=RELATIVE, atol=0)
    assert largest_error(our_gradients, their_gradients) <= RELATIVE


@pytest.mark.parametrize(
    ("prompt", "rest", "size", "has_mask", "expected"),
    [
        (300, 10, 4, True, True),  # 100 x 340 + 340^2 = 149,600 against 100 x 1,240 + 4 x 310^2 = 508,400
        (50, 200, 4, True, False),  # 100 x 850 + 850^2 = 807,500 against 100 x 1,000 + 4 x 250^2 = 350,000
        (100, 80, 4, True, False),  # 100 x 420 + 420^2 = 218,400 against 100 x 720 + 4 x 180^2 = 201,600
        (100, 70, 4, True, True),  # 100 x 380 + 380^2 = 182,400 against 100 x 680 + 4 x 170^2 = 183,600
        (100, 70, 4, False, False),  # against 100 x 680 + 2 x 170^2 = 125,800
    ],
)
def test_packing_pays_for_a_long_prompt_with_short_answers(
    prompt: int, rest: int, size: int, has_mask: bool, expected: bool
) -> None:
    packed = Work.of(1, prompt + size * rest, has_mask=True)
    whole = Work.of(size, prompt + rest, has_mask=has_mask)
    assert packing_pays(packed, whole, pairs_per_token=100) == expected


def test_multiplications_of_a_token_in_those_of_a_pair(tiny: Tiny, model: GroundingModel) -> None:
    """Width 128, 4 heads of 32 with 2 for keys, 256 inside: 128 x (256 + 128 + 768) for a token, 256 for a pair."""
    config = model.mllm.config.text_config
    assert pairs_per_token(config) == 128 * (256 + 128 + 768) / 256 == 576
    path = ROOT / "configs" / "backbones" / "Qwen3-VL-2B-Instruct.json"
    real = Qwen3VLConfig.from_pretrained(path).text_config
    assert pairs_per_token(real) == 2048 * (4096 + 2048 + 3 * 6144) / 4096 == 12288


def test_a_packed_sequence_by_hand() -> None:
    """Prompts of 2 and 1 tokens; rows 0 and 2 have the first, with 1 and 2 tokens after it, row 1 the second, with 1.

    Columns: two of a prompt, two of a rest, two of another.
    """
    owner_B, length_B, total_B = torch.tensor([0, 1, 0]), torch.tensor([2, 1, 2]), torch.tensor([3, 2, 4])
    shared = SharedPrompts.of(owner_B, length_B, torch.arange(4) < total_B[:, None], 2)
    packing = Packing.of(shared)
    assert packing.row_VW.tolist() == [[0, 0, 0, 0, 2, 2], [1, 1, 1, 1, 1, 1]]
    assert packing.place_VW.tolist() == [[0, 1, 2, 3, 2, 3], [0, 1, 1, 2, 1, 2]]
    assert packing.is_real_VW.int().tolist() == [[1, 1, 1, 0, 1, 1], [1, 0, 1, 0, 0, 0]]
    assert packing.rest_W.tolist() == [-1, -1, 0, 0, 1, 1]
    rows = LLMInput(*[torch.empty(0)] * 4, reach_BL=None)
    read = packing.mask(rows, shared)[:, 0].int().tolist()
    assert read[0] == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]
    assert read[1][2] == [1, 0, 1, 0, 0, 0] and all(row[0] == 1 for row in read[1])
    assert packing.places(shared, 4).tolist() == [[0, 1, 2, 3], [0, 2, 3, 3], [0, 1, 4, 5]]


def test_a_kernel_without_block_masks_has_whole_rows(tiny: Tiny) -> None:
    model = checkpointed(GroundingModel.from_pretrained(tiny.folder, attn_implementation="eager"))
    shared, repeated = groups_of(tiny.encoder, tiny.of_task("stvg"), 2)
    shapes = shapes_read(model)
    ours, theirs = (model(**batch).logps_BL for batch in (shared, repeated))
    torch.testing.assert_close(ours, theirs, rtol=RELATIVE, atol=1e-7)
    assert shapes == 2 * [(*shared["input_ids"].shape, 128)]


@pytest.mark.slow
def test_two_ranks_with_zero2(tiny: Tiny, tmp_path: Path) -> None:
    """DeepSpeed on gloo, each rank with groups of its own: the partitioned gradients are those of repeated prompts."""
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2"]
    (tmp_path / "data.json").write_text(tiny.data.model_dump_json())
    arguments = [str(ROOT / "tests" / "shared_prompt.py"), str(tiny.folder), str(tmp_path / "data.json")]
    output = run("torch.distributed.run", *launch, *arguments, env=environment)
    errors = [float(line.split()[1]) for line in output.splitlines() if line.startswith("largest_error")]
    assert len(errors) == 4 and max(errors) <= RELATIVE
