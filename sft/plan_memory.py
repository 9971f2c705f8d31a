"""Memory of one rank in a training step, from counts of parameters and of what autograd keeps.

Without DeepSpeed: float32 weights and gradients, AdamW's two moments, torch.autocast for bfloat16, and DDP's copy of the
gradients with several ranks. With DeepSpeed 0.19: weights and gradients in `model.dtype`; the optimizer's float32 copy
and two moments, split over ranks from ZeRO stage 1 on (1910.02054, section 5); gradients from 2 on; weights from 3 on.

The most is held when the backward pass starts (activations, logits, and the first and largest gradient), in the backward pass of
the first layer, or in the optimizer's step (all gradients, and the step's own copies). Not counted: what CUDA, NCCL and the
allocator take, 1 to 3 GB.
"""

from dataclasses import dataclass

from model.activation_bytes import ActivationBytes
from sft.zero import Zero

FLOAT32 = 4
LOGITS_BYTES = 20
"""For each scored token and vocabulary entry: logits, log-probs, and three steps of the entropy, all float32."""


@dataclass(frozen=True)
class Counts:
    """Parameters: trainable, frozen, and the largest trainable one."""

    trainable: int
    frozen: int
    largest: int


@dataclass(frozen=True)
class Activations:
    """Bytes. at_start: of the backward pass, without logits. in_a_layer: in the backward pass of one, the grounder's over."""

    at_start: int
    in_a_layer: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes. kept_gradients: of earlier micro-batches, or the largest, held while activations are. activations: when the
    backward pass starts; layer_backward: instead of them and the logits, in the first layer's. step: the optimizer's own.
    """

    weights: int
    gradients: int
    kept_gradients: int
    optimizer: int
    communication: int
    activations: int
    logits: int
    layer_backward: int
    step: int

    @property
    def peak(self) -> int:
        """The most at one time."""
        always = self.weights + self.optimizer + self.communication
        backward = max(self.activations + self.logits, self.layer_backward)
        return always + max(self.kept_gradients + backward, self.gradients + self.step)


def plan_memory(
    counts: Counts, activations: Activations, *, zero: Zero | None, num_processes: int, weight_bytes: int,
    accumulation: int, logits: int,
) -> MemoryPlan:  # fmt: skip
    """weight_bytes: of the working copy under DeepSpeed, 2 or 4; float32 without it."""
    if zero is None:
        parts = _without_deepspeed(counts, num_processes)
    else:
        parts = _with_deepspeed(counts, zero, num_processes, weight_bytes)
    weights, gradients, optimizer, communication, step = parts
    first = counts.largest * (FLOAT32 if zero is None else weight_bytes)
    return MemoryPlan(
        weights=weights,
        gradients=gradients,
        kept_gradients=max(gradients, first) if accumulation > 1 else first,
        optimizer=optimizer,
        communication=communication,
        activations=activations.at_start,
        logits=logits,
        layer_backward=activations.in_a_layer,
        step=step,
    )


def _without_deepspeed(counts: Counts, num_processes: int) -> tuple[int, int, int, int, int]:
    """-> weights, gradients, optimizer, communication, step."""
    gradients = counts.trainable * FLOAT32
    return (
        (counts.trainable + counts.frozen) * FLOAT32,
        gradients,
        2 * gradients,
        gradients if num_processes > 1 else 0,
        counts.largest * FLOAT32,
    )


def _with_deepspeed(counts: Counts, zero: Zero, num_processes: int, width: int) -> tuple[int, int, int, int, int]:
    """-> weights, gradients, optimizer, communication, step."""
    total, own = counts.trainable + counts.frozen, -(-counts.trainable // num_processes)
    weights = total * width
    if zero.stage == 3:
        live = min(total, max(zero.live_parameters, counts.largest))
        weights = -(-total // num_processes) * width + live * width
    gradients = (own if zero.stage >= 2 else counts.trainable) * width
    optimizer = 3 * FLOAT32 * (own if zero.stage >= 1 else counts.trainable)
    # The step makes its gradients float32, and AdamW (foreach) a root of its second moments.
    step = 2 * FLOAT32 * (min(own, zero.sub_group) if zero.stage == 3 else own)
    buffers = 2 if zero.overlap and zero.stage < 3 else 1
    return weights, gradients, optimizer, zero.reduce_bucket * width * buffers if zero.stage else 0, step


def activation_bytes(saved: ActivationBytes, *, num_layers: int, num_blocks: int, checkpointing: bool) -> Activations:
    """With checkpointing layers keep their inputs, and one at a time is computed again. Autocast's copies of the weights
    live until the end of the forward pass, and without checkpointing as long as what is kept.
    """
    layer, block = saved.llm_layer, saved.vision_block
    casts = num_layers * layer.casts + num_blocks * block.casts
    always = saved.pixels + saved.merging
    if checkpointing:
        kept = always + num_layers * saved.llm_input + num_blocks * saved.vision_input
        at_start, in_a_layer = kept + casts, kept + max(layer.peak, block.peak)
    else:
        at_start = always + num_layers * layer.activations + num_blocks * block.activations + casts
        in_a_layer = at_start + layer.peak - layer.activations - layer.casts
    return Activations(at_start + saved.grounder + saved.features, in_a_layer)
