"""Where a video is: in its place, else under its name in any sub-folder, else under its stem; never one of two."""

from pathlib import Path

import pytest

from configs.sources import DidemoSource, HcstvgV2Source
from data.annotations import FieldError
from data.sources import SOURCES
from data.sources.videos import VideoFolder


def folder_with(root: Path, *names: str) -> VideoFolder:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return VideoFolder(str(root))


FOUND = [
    # files there, name asked for, file it is
    (["x.m4v", "sub/x.mp4"], "x.m4v", "x.m4v"),
    (["x.m4v", "sub/x.m4v"], "x.m4v", "x.m4v"),
    (["a/z.mp4", "b/z.mp4"], "a/z.mp4", "a/z.mp4"),
    (["a/z.mp4", "b/z.mp4"], "b/z.mp4", "b/z.mp4"),
    (["x.dat"], "x.dat", "x.dat"),  # a name that the annotation gives is taken at its word
    (["7/x.mkv", "8/x.mp4"], "x.mp4", "8/x.mp4"),
    (["7/x.mkv"], "x.mp4", "7/x.mkv"),
    (["z.mp4"], "b/z.mp4", "z.mp4"),  # a copy without the sub-folders
    (["7/x.txt", "8/y.mp4"], "x.mp4", "x.mp4"),  # missing
    (["7/a.b_1.0_2.0.mp4"], "a.b_1.0_2.0.mp4", "7/a.b_1.0_2.0.mp4"),
    (["7/a.b_1.0.mp4"], "a.b_2.0.mp4", "a.b_2.0.mp4"),  # missing: the stem is all before the last dot
]


@pytest.mark.parametrize(("files", "name", "expected"), FOUND)
def test_path_of(tmp_path: Path, files: list[str], name: str, expected: str) -> None:
    assert folder_with(tmp_path, *files).path_of(name, field="video") == str(tmp_path / expected)


@pytest.mark.parametrize("suffix", [".m4v", ".mov", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".avi", ".webm", ".MP4"])
def test_containers_of_published_videos_are_known(tmp_path: Path, suffix: str) -> None:
    assert folder_with(tmp_path, f"7/x{suffix}").path_of("x.mp4", field="video") == str(tmp_path / f"7/x{suffix}")


@pytest.mark.parametrize(
    ("files", "name", "places"),
    [
        (["7/x.mp4", "8/x.mp4"], "x.mp4", "7/x.mp4, 8/x.mp4"),
        (["7/x.mkv", "8/x.avi"], "x.mp4", "7/x.mkv, 8/x.avi"),
        (["a/z.mp4", "b/z.mp4"], "c/z.mp4", "a/z.mp4, b/z.mp4"),
    ],
)
def test_two_that_would_do_are_an_error(tmp_path: Path, files: list[str], name: str, places: str) -> None:
    with pytest.raises(FieldError, match=f"expected one video '{name}' in {tmp_path}, found {places}$"):
        folder_with(tmp_path, *files).path_of(name, field="vid")


def test_links_to_one_file_are_one_video(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "7/x.mp4", "8/other.mp4")
    (tmp_path / "8" / "x.mp4").symlink_to(tmp_path / "7" / "x.mp4")
    assert folder.path_of("x.mp4", field="vid") == str(tmp_path / "7" / "x.mp4")


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "7/x.mp4/frame.jpg")
    assert folder.path_of("x.mp4", field="vid") == str(tmp_path / "x.mp4")


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    assert folder_with(tmp_path).path_of("x" * 5000, field="vid") == str(tmp_path / ("x" * 5000))


def test_without_a_folder_nothing_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, "7/x.mp4")
    monkeypatch.chdir(tmp_path)
    assert VideoFolder("").path_of("x.mp4", field="vid") == "x.mp4"


def test_a_record_whose_video_is_in_doubt_is_rejected(tmp_path: Path) -> None:
    """The sentence of `1_a.mkv` is kept, that of `0_x.mkv` is one error."""
    folder_with(tmp_path / "videos", "7/0_x.mp4", "8/0_x.avi", "8/1_a.mp4")
    path = tmp_path / "query_v2.json"
    path.write_text('{"0_x.mkv": "The man turns.", "1_a.mkv": "The man sits down."}')
    config = HcstvgV2Source(annotations=str(tmp_path), videos=str(tmp_path / "videos"))
    split = SOURCES["hcstvg_v2"](config, "test")
    assert [sample.video_path for sample in split.samples] == [str(tmp_path / "videos" / "8" / "1_a.mp4")]
    (error,) = split.rejected
    assert (error.path, error.record, error.field) == (str(path), "record '0_x.mkv'", "video")


def test_didemo_names_its_own_containers(tmp_path: Path) -> None:
    """The example of its docstring, beside a re-encoded copy of the same name."""
    name = "26292851@N04_4253489686_265c3c8051.m4v"
    folder_with(tmp_path / "videos", name, "small/26292851@N04_4253489686_265c3c8051.mp4")
    (tmp_path / "val_data.json").write_text(
        f'[{{"num_segments": 6, "description": "someone kicks the bug.", "times": [[4, 4]], "video": "{name}", '
        '"annotation_id": 1}]'
    )
    config = DidemoSource(annotations=str(tmp_path), videos=str(tmp_path / "videos"))
    (sample,) = SOURCES["didemo"](config, "val").samples
    assert sample.video_path == str(tmp_path / "videos" / name)
