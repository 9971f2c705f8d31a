"""One prompt pass per group against every row computed whole: log-probs and all gradients, in float32.

Two groups, of G and of two completions, so that G = 1 goes through the cache as well. Their prompts differ in length, as do
their answers, so both are padded; the rows of a group are not neighbours.
"""

import os
from pathlib import Path

import pytest
import torch
from runs import run
from shared_prompt import RELATIVE, groups_of, largest_error, logps_and_gradients
from tiny import Tiny

from configs.lora import LoraConfig
from configs.run import ROOT
from data.collate import Batch
from model.backbone import encode_vision
from model.grounding_model import GroundingModel
from model.lora import add_lora


def with_moved_adapters(model: GroundingModel) -> None:
    """Fresh ones have B = 0, and then A has no gradient."""
    add_lora(model, LoraConfig(r=4, lora_alpha=8.0))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize("is_lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_shared_prompt_equals_repeated_prompt(size: int, is_lora: bool, model: GroundingModel, tiny: Tiny) -> None:
    if is_lora:
        with_moved_adapters(model)
    shared, repeated = groups_of(tiny.encoder, tiny.of_task("stvg"), size)
    assert len(shared["prompt_length"].unique()) == 2
    (ours, our_gradients), (theirs, their_gradients) = (logps_and_gradients(model, b) for b in (shared, repeated))
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


def test_a_row_of_padding_alone_changes_nothing(model: GroundingModel, tiny: Tiny) -> None:
    """Thirty columns more, in the shared form."""
    shared, _ = groups_of(tiny.encoder, tiny.of_task("stvg"), 5)
    (ours, our_gradients), (theirs, their_gradients) = (
        logps_and_gradients(model, batch) for batch in (widened(shared, 30), shared)
    )
    torch.testing.assert_close(ours[:, :-30], theirs, rtol=RELATIVE, atol=1e-7)
    assert largest_error(our_gradients, their_gradients) <= RELATIVE


def widened(batch: Batch, columns: int) -> Batch:
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "score_mask", "query_mask")
    return batch | {name: torch.nn.functional.pad(batch[name], (0, columns)) for name in names}


@pytest.mark.slow
def test_two_ranks_with_zero2(tiny: Tiny, tmp_path: Path) -> None:
    """DeepSpeed on gloo, each rank with groups of its own: the partitioned gradients are those of repeated prompts."""
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2"]
    (tmp_path / "data.json").write_text(tiny.data.model_dump_json())
    arguments = [str(ROOT / "tests" / "shared_prompt.py"), str(tiny.folder), str(tmp_path / "data.json")]
    output = run("torch.distributed.run", *launch, *arguments, env=environment)
    errors = [float(line.split()[1]) for line in output.splitlines() if line.startswith("largest_error")]
    assert len(errors) == 2 and max(errors) <= RELATIVE
