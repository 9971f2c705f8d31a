"""Where the videos of a data set are: one walk of the folder, found by the name without suffix.

HC-STVG and VidOR keep their videos in numbered sub-folders, annotations name only the file; and copies differ in
container (TubeDETR's preprocessing looks for the stem too, antoyang/TubeDETR preproc/preproc_hcstvg.py).
"""

from collections import defaultdict
from functools import cached_property
from pathlib import Path

from data.annotations import media_path

SUFFIXES = {".mp4", ".mkv", ".webm", ".avi"}


class VideoFolder:
    """The videos under a folder; "" where there are none. The folder is walked when a video is first asked for."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path_of(self, name: str, *, field: str) -> str:
        """The file of this name, else one of its stem in any sub-folder, else where it is missing.

        Raises FieldError where the name leaves the folder.
        """
        missing = media_path(self.root, name, field=field)
        found = self._by_stem.get(Path(name).stem, [])
        return str(next((path for path in found if path.name == name), found[0] if found else missing))

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        index = defaultdict(list)
        for path in sorted(Path(self.root).rglob("*")) if self.root else ():
            if path.suffix.lower() in SUFFIXES:
                index[path.stem].append(path)
        return dict(index)
