"""Where the videos of a data set are: as annotated, else found by name in one walk of the folder.

HC-STVG and VidOR keep their videos in numbered sub-folders, annotations name only the file; and copies differ in
container (TubeDETR's preprocessing looks for the stem too, antoyang/TubeDETR preproc/preproc_hcstvg.py).
"""

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from data.annotations import FieldError, media_path

SUFFIXES = {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
"""Containers of published videos, in small letters; DiDeMo names its own, .m4v for example."""


class VideoFolder:
    """The videos under a folder; "" where there are none. The folder is walked when a video is first not in its place."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path_of(self, name: str, *, field: str) -> str:
        """The file `root / name`; else the one of this file name in any sub-folder; else the one of its stem; else
        `root / name`, where it is missing.

        Raises FieldError where the name leaves the folder, or several files would do.
        """
        named = media_path(self.root, name, field=field)
        # os.path, since Path.is_file raises for a name that is too long.
        if not self.root or os.path.isfile(named):
            return named
        same_stem = self._by_stem.get(Path(name).stem, [])
        found = [path for path in same_stem if path.name == Path(name).name] or same_stem
        if len({path.resolve() for path in found}) > 1:
            places = ", ".join(str(path.relative_to(self.root)) for path in found[:2])
            raise FieldError(field, f"expected one video {name[:80]!r} in {self.root}, found {places}")
        return str(found[0]) if found else named

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        index = defaultdict(list)
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder, name) for name in names):
                if path.suffix.lower() in SUFFIXES:
                    index[path.stem].append(path)
        return {stem: sorted(paths) for stem, paths in index.items()}
