"""How many samples are scored at a time: dense tubes are as long as the longest of them, so frames count, not samples."""

from collections.abc import Iterable, Iterator

from data.types import GroundingSample
from evaluation.predictions import Prediction

MAX_SAMPLES, MAX_FRAMES = 256, 2**18
"""Of a chunk; frames are those of its longest tube times its samples. A longer tube is a chunk of its own."""
Pair = tuple[GroundingSample, Prediction]


def chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """All pairs, in order."""
    chunk = Chunk()
    for pair in pairs:
        if not chunk.has_room_for(*pair):
            yield chunk.pairs
            chunk = Chunk()
        chunk.add(*pair)
    if chunk.pairs:
        yield chunk.pairs


class Chunk:
    """Pairs that are scored together."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.longest = 0

    def has_room_for(self, sample: GroundingSample, prediction: Prediction) -> bool:
        """Always where it is empty."""
        count, longest = len(self.pairs) + 1, max(self.longest, frames_of(sample, prediction))
        return count == 1 or (count <= MAX_SAMPLES and count * longest <= MAX_FRAMES)

    def add(self, sample: GroundingSample, prediction: Prediction) -> None:
        self.pairs.append((sample, prediction))
        self.longest = max(self.longest, frames_of(sample, prediction))


def frames_of(sample: GroundingSample, prediction: Prediction) -> int:
    """Columns of the longest of the padded tensors of one pair."""
    true_frames = len(sample.span) if sample.span is not None and sample.task == "stvg" else 0
    return max(true_frames, len(prediction.boxes), len(prediction.boxes_in_true_span))
