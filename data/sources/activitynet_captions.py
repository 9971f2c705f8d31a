"""ActivityNet Captions (1705.00754) as temporal grounding, in the JSON of the ActivityNet challenge.

    {annotations}/{split}.json, splits train, val_1 and val_2
      {"v_QOlSCBRmfWY": {"duration": 82.73, "timestamps": [[0.83, 19.86], [17.37, 60.81], [56.26, 79.42]],
        "sentences": ["A young woman is seen standing in a room and leads into her dancing.",
                      " The girl dances around the room while the camera captures her movements.",
                      " She continues dancing around the room and ends by laying on the floor."]}, ...}

Seconds of the video `{videos}/v_QOlSCBRmfWY.mp4`. Traps: sentences start with a space, which is taken off; val_1 serves
as validation and val_2 as test in published tables (2D-TAN, microsoft/VideoX); ends past the duration are kept and
flagged.
"""

from pathlib import Path

from configs.sources import ActivitynetCaptionsSource
from data.annotations import Split
from data.sources.moments import Layout, read_moments


def load(config: ActivitynetCaptionsSource, split: str) -> Split:
    """All sentences of a split ("train", "val_1" or "val_2"). Raises AnnotationError."""
    path = Path(config.annotations) / f"{split}.json"
    return read_moments(path, Layout(config.type), videos=config.videos, split_name=split)
