"""Whether the predictions of a folder were made with this config, these weights and about these questions.

    {out}/asked.json    what the predictions beside it were made with

Files of a checkpoint are told apart by their content: a copy of it is the same checkpoint, whatever its dates.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from configs.checkpoints import PARTIAL, CheckpointError, write_atomically
from configs.evaluation import EvaluationConfig
from data.types import GroundingSample

logger = logging.getLogger("evaluation.predict")

ASKED = "asked.json"
SETTINGS = {
    "data",
    "split",
    "max_samples",
    "batch_size",
    "engine",
    "answering",
    "constrained_decoding",
    "max_completion_length",
    "max_model_len",
    "dtype",
    "seed",
}
"""Keys of the config that answers depend on."""
SUFFIXES = {".safetensors", ".json", ".jinja", ".txt"}
"""Of a checkpoint's files that answers depend on: weights, configs, tokenizer, chat template."""


def drop_stale_predictions(
    config: EvaluationConfig, samples: Sequence[GroundingSample], *, names: Iterable[str]
) -> None:
    """Remove the files `names` that were made otherwise; those of this very evaluation are gone on from.

    Raises CheckpointError, before anything is removed.
    """
    out, asked = Path(config.out), what_is_asked(config, samples)
    before = json.loads((out / ASKED).read_text()) if (out / ASKED).exists() else {}
    if before == asked:
        return
    files = [out / f"{prefix}{name}" for name in names for prefix in ("", PARTIAL)]
    if found := [path for path in files if path.exists()]:
        changed = sorted(key for key in asked.keys() | before.keys() if asked.get(key) != before.get(key))
        logger.warning("%s: removed, made with other %s", ", ".join(map(str, found)), ", ".join(changed))
    for path in files:
        path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / ASKED, json.dumps(asked, indent=2) + "\n")


def what_is_asked(config: EvaluationConfig, samples: Sequence[GroundingSample]) -> dict[str, Any]:
    """Settings, digests of the checkpoint's files by their path in it, and of the questions. As JSON gives it back."""
    return {
        **config.model_dump(mode="json", include=SETTINGS),
        "checkpoint": _digests(Path(config.checkpoint)),
        "questions": _digest_of_questions(samples),
    }


def _digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise CheckpointError(f"{checkpoint}: expected a checkpoint folder, with *.safetensors in it")
    return {str(path.relative_to(checkpoint)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of_questions(samples: Sequence[GroundingSample]) -> str:
    """Everything of a sample but its boxes, which no answer depends on. The true span chooses frames of gt_vIoU."""
    digest = hashlib.sha256()
    for s in samples:
        question = (s.sample_id, s.task, s.query, s.options, s.video_path, s.fps, s.width, s.height, s.clip, s.span)
        digest.update(repr(question).encode())
    return digest.hexdigest()
