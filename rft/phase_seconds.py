"""Where the time of a GRPO step goes: seconds and share of each phase, which add up to the step.

    encode       videos are read, prompts built          reward       terms, advantages, loss
    rollout      the engine samples                      backward     gradients, and their mean over ranks under DDP
    signal       which groups have one, before training  update       clipping and the optimizer
    vision       the tower, once for each video          push         weights to the engine
    prompt       the LLM on prompts, once per group      wait         for the engine while it serves others, for other ranks
    completions  the LLM on what follows them            validate     greedy answers
    decoder      the grounder                            other        answers are parsed and batched, metrics
    scoring      the rest of the forward: embeddings, log-probs
    reference    the forward of the reference policy

Phases nest and the inner one counts alone. `completions` holds the prompt too where both are one pass: under gradient
checkpointing, and in rows whose prompt nobody shares. Without
`split_forward_time` the forward is all `scoring`.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch

from configs.rft import PHASES, Phase
from model.forward_parts import watch_parts
from model.grounding_model import GroundingModel


class PhaseSeconds:
    """A stopwatch that one phase at a time owns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Begin a step."""
        self._seconds: dict[Phase, float] = defaultdict(float)
        self._open: list[Phase] = ["other"]
        self._since = self._clock()

    @property
    def phase(self) -> Phase:
        """The phase that time is counted for now."""
        return self._open[-1]

    def begin(self, phase: Phase) -> None:
        """Stop counting for the phase around it."""
        self._count()
        self._open.append(phase)

    def end(self) -> None:
        """Go on counting for the phase around it."""
        self._count()
        self._open.pop()

    @contextlib.contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count for this phase inside."""
        self.begin(phase)
        try:
            yield
        finally:
            self.end()

    def move(self, seconds: float, *, source: Phase, to: Phase) -> None:
        """Some of what was counted for one phase belongs to another."""
        self._seconds[source] -= seconds
        self._seconds[to] += seconds

    def metrics(self) -> dict[str, float]:
        """`seconds/*` of the step so far with their sum, `seconds/step`, and `share/*`, which adds up to 1."""
        self._count()
        total = sum(self._seconds.values())
        seconds = {f"seconds/{phase}": round(self._seconds[phase], 4) for phase in PHASES}
        return (
            seconds
            | {"seconds/step": round(total, 4)}
            | {f"share/{phase}": round(self._seconds[phase] / total, 4) for phase in PHASES}
        )

    def _count(self) -> None:
        now = self._clock()
        self._seconds[self.phase] += now - self._since
        self._since = now


def split_forward(model: GroundingModel, seconds: PhaseSeconds) -> None:
    """Count the parts of `model`'s forward apart, wherever it runs inside `scoring`; on a GPU, wait for the device then."""
    on_gpu = next(model.parameters()).is_cuda

    def enter(part: Phase) -> None:
        if seconds.phase == "scoring":
            _settle(on_gpu)
            seconds.begin(part)

    def leave(part: Phase) -> None:
        if seconds.phase == part:
            _settle(on_gpu)
            seconds.end()

    watch_parts(model, enter, leave)


def _settle(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
