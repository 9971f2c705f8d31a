"""The released Qwen3-VL layout: ours is theirs below `mllm.` plus `grounder.`, and a released checkpoint loads strictly."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from configs.model import BridgeConfig, ModelConfig
from model.backbone import load_mllm
from model.checkpoint_keys import CheckpointKeyError
from model.grounding_model import GroundingConfig, GroundingModel
from model.shapes import BackboneConfigError, backbone_config, empty_model, shipped_config

RELEASED = {
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}
EXPECTED_NEW = re.compile(r"grounder\..+")


def shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", RELEASED)
def test_names_and_shapes_are_the_released_ones_and_ours(name: str) -> None:
    """Theirs, built by transformers from the same config, with the published number of parameters."""
    config = shipped_config(name)
    with torch.device("meta"):
        theirs = Qwen3VLForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == RELEASED[name]
    ours = empty_model(ModelConfig(backbone=name), config)
    assert {parameter.device.type for parameter in ours.parameters()} == {"meta"}
    mllm = {key: shape for key, shape in shapes(ours).items() if not EXPECTED_NEW.fullmatch(key)}
    assert mllm == {f"mllm.{key}": shape for key, shape in shapes(theirs).items()}
    assert len(mllm) < len(shapes(ours))


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        # A released layer by hand: 16 query and 8 key heads of 128, an MLP of 6144; a tower of 24 blocks of width 1024.
        ("Qwen/Qwen3-VL-2B-Instruct", "model.language_model.layers.27.self_attn.q_proj.weight", (2048, 2048)),
        ("Qwen/Qwen3-VL-2B-Instruct", "model.language_model.layers.27.self_attn.k_proj.weight", (1024, 2048)),
        ("Qwen/Qwen3-VL-2B-Instruct", "model.language_model.layers.0.mlp.down_proj.weight", (2048, 6144)),
        ("Qwen/Qwen3-VL-2B-Instruct", "model.visual.blocks.23.attn.qkv.weight", (3072, 1024)),
        ("Qwen/Qwen3-VL-4B-Instruct", "model.language_model.layers.35.self_attn.o_proj.weight", (2560, 4096)),
        ("Qwen/Qwen3-VL-8B-Instruct", "model.visual.deepstack_merger_list.2.linear_fc2.weight", (4096, 4608)),
        ("Qwen/Qwen3-VL-8B-Instruct", "lm_head.weight", (151936, 4096)),
    ],
)
def test_a_key_by_hand(name: str, key: str, shape: tuple[int, ...]) -> None:
    ours = empty_model(ModelConfig(backbone=name), shipped_config(name))
    assert shapes(ours)[f"mllm.{key}"] == shape


def small_config(*, tied: bool) -> Qwen3VLConfig:
    """The released 2B's config with small sizes: same keys, tied or not as it is or as the 8B is."""
    config = shipped_config("Qwen/Qwen3-VL-2B-Instruct").to_dict()
    config["text_config"] |= {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [6, 5, 5],
                            "mrope_interleaved": True},
    }  # fmt: skip
    config["vision_config"] |= {
        "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    return Qwen3VLConfig(**config | {"tie_word_embeddings": tied})


def write_released(folder: Path, *, tied: bool) -> Path:
    """A random checkpoint in bfloat16, in shards with an index, as the released ones are."""
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(small_config(tied=tied)).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def edit(folder: Path, change: dict[str, str | torch.Tensor | None]) -> None:
    """Rename a stored key, replace its tensor, or (None) drop it, in its shard and in the index."""
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    for key, new in change.items():
        shard = index["weight_map"].pop(key)
        state = load_file(folder / shard)
        tensor = state.pop(key)
        if new is not None:
            name = new if isinstance(new, str) else key
            state[name] = tensor if isinstance(new, str) else new
            index["weight_map"][name] = shard
        save_file(state, folder / shard, metadata={"format": "pt"})
    index_path.write_text(json.dumps(index))


@pytest.mark.parametrize("tied", [True, False])
def test_a_released_checkpoint_in_shards_loads(tmp_path: Path, tied: bool) -> None:
    """Every weight is the stored one; a tied output layer is not stored and is the embedding."""
    folder = write_released(tmp_path, tied=tied)
    stored: dict[str, torch.Tensor] = {}
    for shard in folder.glob("model-*.safetensors"):
        stored |= load_file(shard)
    assert ("lm_head.weight" in stored) is not tied
    loaded = load_mllm(str(folder), dtype=torch.float32).state_dict()
    for name, tensor in stored.items():
        torch.testing.assert_close(loaded[name], tensor.float(), rtol=0, atol=0)
    assert set(loaded) - set(stored) == ({"lm_head.weight"} if tied else set())
    output = loaded["lm_head.weight"]
    assert tied == torch.equal(output, loaded["model.language_model.embed_tokens.weight"])


K_PROJ = "model.language_model.layers.1.self_attn.k_proj.weight"
NORM = "model.visual.merger.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({K_PROJ: "model.language_model.layers.1.self_attn.key.weight"}, f"1 missing: {K_PROJ}; 1 unknown: .*attn.key"),
        ({NORM: None}, f"1 missing: {NORM}"),
        ({NORM: "model.visual.merger.extra.weight"}, f"1 missing: {NORM}; 1 unknown: model.visual.merger.extra"),
        ({NORM: torch.ones(16, dtype=torch.bfloat16)}, f"1 of another shape: {NORM}"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: dict, message: str) -> None:
    folder = write_released(tmp_path, tied=True)
    edit(folder, change)
    with pytest.raises(CheckpointKeyError, match=message):
        load_mllm(str(folder), dtype=torch.float32)


def test_an_untied_output_layer_must_be_there(tmp_path: Path) -> None:
    folder = write_released(tmp_path, tied=False)
    edit(folder, {"lm_head.weight": None})
    with pytest.raises(CheckpointKeyError, match=r"1 missing: lm_head\.weight"):
        load_mllm(str(folder), dtype=torch.float32)


def test_a_released_checkpoint_leaves_only_the_grounder_new(tmp_path: Path) -> None:
    """Loading the released weights into the grounding model: what is missing then is ours, by its prefix."""
    released = load_mllm(str(write_released(tmp_path, tied=True)), dtype=torch.float32).state_dict()
    bridge = BridgeConfig(width=32, num_layers=1, num_heads=2, ffn_width=32)
    model = GroundingModel(
        GroundingConfig(grounder_args=bridge.model_dump()), Qwen3VLForConditionalGeneration(small_config(tied=True))
    )
    result = model.load_state_dict({f"mllm.{key}": tensor for key, tensor in released.items()}, strict=False)
    assert result.unexpected_keys == []
    assert result.missing_keys and all(EXPECTED_NEW.fullmatch(key) for key in result.missing_keys)


def test_the_shipped_config_stands_in_for_a_hub_that_is_out_of_reach(tmp_path: Path) -> None:
    """Tests run offline: a released name gives the shipped config and says so, any other is an error."""
    config, origin = backbone_config("Qwen/Qwen3-VL-4B-Instruct")
    assert config.text_config.hidden_size == 2560 and "configs/backbones" in origin
    small_config(tied=True).save_pretrained(tmp_path)
    assert backbone_config(str(tmp_path))[1] == str(tmp_path)
    for name in ("Qwen/Qwen3-VL-3B-Instruct", "somebody/Qwen3-VL-4B-Instruct", str(tmp_path / "absent")):
        with pytest.raises(BackboneConfigError, match=re.escape(name)):
            backbone_config(name)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BackboneConfigError, match="expected a qwen3_vl config, got 'llama'"):
        backbone_config(str(tmp_path))
