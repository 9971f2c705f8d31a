"""Types of the fields of published annotation records: exact (no bool for an int, no "8" for 8.0), finite and bounded.

The bounds are far beyond every published data set; they keep a wrong number from becoming memory. They are ours. For
pydantic models with `strict=True`, such as data.annotations.RawRecord; lists of JSON become tuples.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from data.types import TICKS_PER_SEC

MAX_FRAMES = 2 * 3600 * 30
"""Frames of a published video: two hours; boxes are laid out for each."""
MAX_TICKS = 24 * 3600 * TICKS_PER_SEC
"""Frames of the user's own video, or ticks of one that is annotated in seconds: a day."""
MAX_SIDE_PX = 65_536
MAX_COORDINATE_PX = 1e6
"""Boxes may leave the image, but not like this."""


def _text(value: str) -> str:
    """Raises ValueError for what cannot be written to a file or means nothing."""
    if not value.strip():
        raise ValueError("expected text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected Unicode text, found half of a surrogate pair") from None
    return value


Text = Annotated[str, AfterValidator(_text)]
FrameIndex = Annotated[int, Field(ge=0, le=MAX_FRAMES)]
FrameCount = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
Fps = Annotated[float, Field(gt=0, le=TICKS_PER_SEC)]
SidePx = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
CoordinatePx = Annotated[float, Field(ge=-MAX_COORDINATE_PX, le=MAX_COORDINATE_PX)]
FourPx = Annotated[tuple[CoordinatePx, CoordinatePx, CoordinatePx, CoordinatePx], Field(strict=False)]
"""xywh or xyxy: the source says which."""
TickIndex = Annotated[int, Field(ge=0, le=MAX_TICKS)]
TickPair = Annotated[tuple[TickIndex, TickIndex], Field(strict=False)]
SecondsPair = Annotated[tuple[float, float], Field(strict=False)]
