"""Evaluate one checkpoint on one split: predictions, metrics with controls, a Markdown table.

python -m evaluation.run --config configs/demo/evaluate.yaml checkpoint=outputs/demo/sft/checkpoint out=outputs/demo/eval
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.checkpoints import write_atomically
from configs.command_line import config_from_command_line
from configs.evaluation import EvaluationConfig
from configs.run import quiet_environment, setup_logging, write_provenance

logger = logging.getLogger("evaluation.run")

PREDICTIONS, WRONG_QUERY_PREDICTIONS = "predictions.jsonl", "predictions_wrong_query.jsonl"
COLUMNS = ("m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "gt_vIoU", "parse_rate")


def main() -> None:
    """Entry point."""
    config = config_from_command_line(EvaluationConfig, __doc__)
    quiet_environment()
    setup_logging()
    metrics = evaluate(config)
    logger.info("%s\n%s", config.checkpoint, markdown_table(metrics))


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Predict, score, and write everything into `config.out`. -> the content of metrics.json."""
    import numpy as np

    from data.sources import load_samples
    from evaluation.metrics import best_constant, paired_difference, score, summarize
    from evaluation.predict import predict_all, with_wrong_queries

    out = Path(config.out)
    write_provenance(out, config)
    drop_stale_predictions(config)
    samples = load_samples(config.data, config.split)[: config.max_samples]
    predictor = make_predictor(config)
    options = {"num_resamples": config.num_resamples, "seed": config.seed}
    predictions = predict_all(predictor, samples, out / PREDICTIONS, batch_size=config.batch_size, title="predict")
    scores = score(samples, predictions)
    metrics: dict[str, Any] = {"right_query": summarize(scores, **options)}
    for query_type in ("declarative", "interrogative"):
        mask = np.array([sample.query_type == query_type for sample in samples])
        if mask.any():
            metrics[query_type] = summarize(scores.subset(mask), **options)
    if config.wrong_query:
        wrong = predict_all(
            predictor,
            with_wrong_queries(samples, seed=config.seed),
            out / WRONG_QUERY_PREDICTIONS,
            batch_size=config.batch_size,
            title="predict, wrong query",
        )
        wrong_scores = score(samples, wrong)
        metrics["wrong_query"] = summarize(wrong_scores, **options)
        metrics["right_minus_wrong"] = paired_difference(scores, wrong_scores, **options)
    metrics["constant"] = summarize(best_constant(samples), **options)
    metrics["failures"] = {p.sample_id: p.failure for p in predictions if p.failure}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (out / "report.md").write_text(markdown_table(metrics) + "\n")
    return metrics


def drop_stale_predictions(config: EvaluationConfig) -> None:
    """Remove predictions that another config or other weights made; those of this evaluation are gone on from."""
    out = Path(config.out)
    weights = sorted(Path(config.checkpoint).rglob("*.safetensors"))
    files = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in weights}
    asked = {"config": config.model_dump(mode="json"), "weights": files}
    path = out / "evaluated.json"
    if not path.exists() or json.loads(path.read_text()) != asked:
        for name in (PREDICTIONS, WRONG_QUERY_PREDICTIONS):
            (out / name).unlink(missing_ok=True)
            (out / f".partial-{name}").unlink(missing_ok=True)
        write_atomically(path, json.dumps(asked, indent=2) + "\n")


def make_predictor(config: EvaluationConfig) -> Any:
    """Model, encoder and generator of a checkpoint, asked the way it was trained."""
    import torch

    from data.dataset import PromptEncoder
    from evaluation.predict import Predictor, transformers_generate
    from model.build import as_trained, load_checkpoint

    model, processor = load_checkpoint(config.checkpoint, dtype=config.dtype)
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    encoder = PromptEncoder(processor, as_trained(config.data, model.config))
    if config.engine == "vllm":
        generate = _vllm_generate(config, model, processor)
    else:
        generate = transformers_generate(model, processor, max_completion_length=config.max_completion_length)
    return Predictor(model, encoder, generate)


def _vllm_generate(config: EvaluationConfig, model: Any, processor: Any) -> Any:
    from evaluation.vllm_engine import SamplingArgs, VllmEngine
    from model.grounding_model import MLLM_FOLDER

    folder = str(Path(config.checkpoint) / MLLM_FOLDER)
    engine = VllmEngine(folder, max_model_len=config.max_model_len, dtype=config.dtype)
    args = SamplingArgs(
        num_generations=1,
        temperature=0.0,
        max_completion_length=config.max_completion_length,
        eos_id=processor.tokenizer.eos_token_id,
        banned_ids=tuple(model.banned_ids),
    )

    def generate(prompts: Any) -> list[list[int]]:
        groups = engine.generate(prompts, args, seeds=[config.seed] * len(prompts), version=0)
        return [group[0].completion_ids for group in groups]

    return generate


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """Rows of metrics.json as a table; intervals are 95 % bootstrap."""
    rows = {
        "right query": "right_query",
        "- declarative": "declarative",
        "- interrogative": "interrogative",
        "wrong query": "wrong_query",
        "best constant": "constant",
    }
    lines = ["| | n | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for title, key in rows.items():
        if key in metrics:
            cells = [_cell(metrics[key], column) for column in COLUMNS]
            lines.append(f"| {title} | {metrics[key]['n']} | " + " | ".join(cells) + " |")
    if "right_minus_wrong" in metrics:
        cells = [_difference(metrics["right_minus_wrong"][column]) for column in COLUMNS]
        lines.append("| right - wrong | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], column: str) -> str:
    low, high = row[f"{column}_ci95"]
    return f"{row[column]:.3f} [{low:.3f}, {high:.3f}]"


def _difference(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
