"""Boxes of VidOR (Shang et al., ICMR 2019): one file for each video, with every object in every frame.

    {tracks}/{training,validation}/<subdir>/<vid>.json, of which are read
      "video_path": "<subdir>/<vid>.mp4",
      "trajectories": [[{"tid": 2, "bbox": {"xmin": 118, "ymin": 75, "xmax": 219, "ymax": 262}, ...}, ...], ...]

`trajectories` has one list for each frame of the video. A frame is checked when it is first asked for.
"""

from pathlib import Path
from typing import Any

from data.annotations import AnnotationError, FieldError, RawRecord, errors_of, media_path, parse_raw, read_json
from data.raw_fields import CoordinatePx, Text
from data.types import BoxPx, FrameSpan


class Bbox(RawRecord):
    """Pixels; the right and bottom edge as the box is drawn."""

    xmin: CoordinatePx
    ymin: CoordinatePx
    xmax: CoordinatePx
    ymax: CoordinatePx

    @property
    def xyxy(self) -> BoxPx:
        """(left, top, right, bottom)."""
        return self.xmin, self.ymin, self.xmax, self.ymax


class _Entry(RawRecord):
    tid: int
    bbox: Bbox


class _File(RawRecord):
    video_path: Text
    trajectories: list[Any]


class VideoTracks:
    """The tracks of one video. Raises AnnotationError, which names the track file."""

    def __init__(self, path: Path) -> None:
        tree = read_json(path, dict)
        self.path = path
        with errors_of(path):
            file = parse_raw(_File, tree)
        self._video_path, self._trajectories = file.video_path, file.trajectories
        self._frames: dict[int, dict[int, BoxPx]] = {}

    def video_in(self, root: str) -> str:
        """Path of the video under VidOR's video folder. Raises AnnotationError."""
        with errors_of(self.path):
            return media_path(root, self._video_path, field="video_path")

    def tube(self, tid: int, span: FrameSpan) -> list[BoxPx | None]:
        """xyxy of an object at each frame of the span, in pixels; None where it has none. Raises AnnotationError."""
        if span.end > len(self._trajectories):
            cause = f"expected at least {span.end} frames, found {len(self._trajectories)}"
            raise AnnotationError(self.path, cause, field="trajectories")
        return [self._boxes_at(frame).get(tid) for frame in range(span.start, span.end)]

    def _boxes_at(self, frame: int) -> dict[int, BoxPx]:
        """tid -> xyxy. Raises AnnotationError."""
        if frame not in self._frames:
            with errors_of(self.path):
                self._frames[frame] = _parse_frame(self._trajectories[frame], f"trajectories.{frame}")
        return self._frames[frame]


def _parse_frame(raw: Any, place: str) -> dict[int, BoxPx]:
    if not isinstance(raw, list):
        raise FieldError(place, f"expected a list of objects, found a {type(raw).__name__}")
    boxes: dict[int, BoxPx] = {}
    for number, entry in enumerate(raw):
        parsed = parse_raw(_Entry, entry, at=f"{place}.{number}")
        if parsed.tid in boxes:
            raise FieldError(f"{place}.{number}.tid", f"object {parsed.tid} has a second box in this frame")
        boxes[parsed.tid] = parsed.bbox.xyxy
    return boxes


class TrackFolder:
    """VidOR's annotation folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._files = {path.stem: path for path in sorted(Path(root).glob("*/*/*.json"))}

    def read(self, vid: str) -> VideoTracks:
        """The tracks of a video. Raises AnnotationError."""
        if vid not in self._files:
            cause = f"expected training/*/{vid}.json or validation/*/{vid}.json, found neither"
            raise AnnotationError(self.root, cause, field="vid")
        return VideoTracks(self._files[vid])
