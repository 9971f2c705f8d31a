"""How a clip becomes frames: which are sampled, who decodes them, what is kept."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Config


class VideoConfig(Config):
    """How a clip becomes frames; the same pixels and timestamps go to the trainer and to vLLM."""

    sample_fps: Annotated[float, Field(gt=0)] = 2.0
    """Frames per second given to the model (STVG-o1 section 4.1 uses 2)."""
    num_frames: Annotated[int, Field(ge=2)] | None = None
    """This many frames, spread uniformly over the clip, instead of `sample_fps`."""
    max_frames: Annotated[int, Field(ge=2)] = 64
    """A longer clip is sampled uniformly with this many frames."""
    max_pixels: Annotated[int, Field(ge=1024)] | None = None
    """Upper bound of frames x height x width after resizing; None keeps the processor's own."""
    max_prompt_tokens: Annotated[int, Field(ge=64)] | None = None
    """Token budget of a prompt, computed before decoding: a longer one gets fewer frames, and is counted."""
    decoder: Literal["decord", "pyav"] = "pyav"
    """The faster of the two that are exact (docs/benchmarks/video.md, where both give the same pixels). One never stands in for the other."""
    variable_frame_rate: Literal["error", "accept"] = "error"
    """What to do with a clip whose frames are shown at other times than frame number / fps says, by more than half a frame
    and more than 0.1 s: a VideoDecodeError, or go on. Then the prompt shows the true times, while annotations and answers
    are still converted between frames and seconds at the mean rate, so the two disagree by that much."""
    timeout_sec: Annotated[float, Field(gt=0)] | None = 60.0
    """A read that takes longer is a VideoDecodeError; it runs in a process that is then killed. None reads in this
    process, without a limit."""
    cache_gib: Annotated[float, Field(ge=0)] = 2.0
    """Memory of each rank for encoded prompts with their frames, and as much again for decoded clips, which other
    sentences ask about; the latest used ones are kept."""
    decode_cache: str = ""
    """Folder in which decoded clips are kept for later runs and other ranks, as uint8; empty for none. They lie in a
    sub-folder of their own, and no other file is touched."""
    decode_cache_gib: Annotated[float, Field(gt=0)] = 50.0
    """Bound of that sub-folder; the longest unused clips make room for new ones."""
