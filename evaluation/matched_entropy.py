"""Is the refined policy better, or only sharper? Sampled answers of two checkpoints at equal entropy.

    python -m evaluation.matched_entropy --config configs/demo/matched_entropy.yaml

The refined policy is sampled at the config's temperature. The reference is sampled at the temperature at which its
answers have the same mean entropy per token, found by bisection. Both are scored, sample by sample.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from configs.command_line import config_from_command_line
from configs.evaluation import MatchedEntropyConfig
from configs.run import quiet_environment, setup_logging, write_provenance
from data.collate import collate_inputs
from data.dataset import PromptEncoder
from data.encoding import EncodedPrompt
from data.sources import load_samples
from data.types import GroundingSample
from evaluation.metrics import Scores, paired_difference, score, summarize
from evaluation.predict import count_failures
from evaluation.predictor import Predictor, transformers_generate
from model.build import as_trained, load_checkpoint
from model.grounding_model import GroundingModel

logger = logging.getLogger("evaluation.matched_entropy")


@dataclass(frozen=True)
class Drawn:
    """One sampled answer for every sample. entropy: nats per token, at the temperature it was sampled with.

    failures: how many samples have no answer, by reason; they count 0.
    """

    temperature: float
    entropy: float
    scores: Scores
    failures: dict[str, int] = field(default_factory=dict)


def main() -> None:
    """Entry point."""
    config = config_from_command_line(MatchedEntropyConfig, __doc__)
    quiet_environment()
    setup_logging()
    result = compare(config)
    (Path(config.out) / "matched_entropy.json").write_text(json.dumps(result, indent=2) + "\n")
    logger.info("%s", json.dumps(result["refined_minus_reference"], indent=2))


def compare(config: MatchedEntropyConfig) -> dict[str, Any]:
    """Both policies at equal entropy. Raises ValueError where no temperature of the reference gives it."""
    write_provenance(Path(config.out), config)
    samples = load_samples(config.data, config.split)[: config.max_samples]
    refined = Sampler(config, config.refined, samples)(config.temperature)
    reference = match(
        Sampler(config, config.reference, samples),
        refined.entropy,
        first=config.temperature,
        tolerance=config.tolerance,
        tries=config.max_tries,
    )
    options = {"num_resamples": config.num_resamples, "seed": config.seed}
    return {
        "refined": _summary(refined, **options),
        "reference": _summary(reference, **options),
        "refined_minus_reference": paired_difference(refined.scores, reference.scores, **options),
    }


def _summary(drawn: Drawn, **options: int) -> dict[str, Any]:
    values = {"temperature": drawn.temperature, "entropy": drawn.entropy, "failures": drawn.failures}
    return values | summarize(drawn.scores, **options)


def match(draw: Callable[[float], Drawn], entropy: float, *, first: float, tolerance: float, tries: int) -> Drawn:
    """Bisect the temperature between 0.05 and 2. Raises ValueError when `tries` are not enough."""
    low, high = 0.05, 2.0
    for attempt in range(tries):
        # The likeliest answer is a temperature a little below the refined policy's.
        drawn = draw(first if attempt == 0 else (low + high) / 2)
        logger.info("temperature %.3f: entropy %.4f, wanted %.4f", drawn.temperature, drawn.entropy, entropy)
        if abs(drawn.entropy - entropy) <= tolerance:
            return drawn
        low, high = (low, drawn.temperature) if drawn.entropy > entropy else (drawn.temperature, high)
    raise ValueError(f"no temperature in {tries} tries gives entropy {entropy:.4f} within {tolerance}")


class Sampler:
    """Temperature -> Drawn, for one checkpoint; the same temperature gives the same answers."""

    def __init__(self, config: MatchedEntropyConfig, checkpoint: str, samples: Sequence[GroundingSample]) -> None:
        self.config, self.samples = config, samples
        self.model, self.processor = load_checkpoint(checkpoint, dtype=config.dtype)
        if torch.cuda.is_available():
            torch.nn.Module.cuda(self.model)
        data, answer_format = as_trained(config.data, self.model.config), self.model.grounder.answer_format
        self.encoder = PromptEncoder(self.processor, data, answer_format=answer_format)

    def __call__(self, temperature: float) -> Drawn:
        torch.manual_seed(self.config.seed)
        length = self.config.max_completion_length
        sample = transformers_generate(
            self.model, self.processor, max_completion_length=length, temperature=temperature
        )
        entropies: list[float] = []

        def generate(prompts: list[EncodedPrompt]) -> list[list[int]]:
            completions = sample(prompts)
            entropies.extend(token_entropies(self.model, prompts, completions, temperature, self.processor))
            return completions

        predictor = Predictor(self.model, self.encoder, generate)
        size = self.config.batch_size
        predictions = [
            prediction
            for start in range(0, len(self.samples), size)
            for prediction in predictor(self.samples[start : start + size])
        ]
        if not entropies:
            raise ValueError(f"no sample could be asked about: {count_failures(predictions)}")
        return Drawn(
            temperature, sum(entropies) / len(entropies), score(self.samples, predictions), count_failures(predictions)
        )


def token_entropies(
    model: GroundingModel,
    prompts: list[EncodedPrompt],
    completions: list[list[int]],
    temperature: float,
    processor: Any,
) -> list[float]:
    """Entropy of the policy at every token of the completions."""
    batch = collate_inputs(
        prompts,
        completions,
        [[] for _ in prompts],
        num_queries=model.num_queries,
        pad_id=processor.tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        output = model(temperature=temperature, **{name: tensor.to(model.device) for name, tensor in batch.items()})
    return output.entropies_BL[batch["score_mask"].bool().to(model.device)].tolist()


if __name__ == "__main__":
    main()
