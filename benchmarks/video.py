"""Reading 16 frames of each of 200 clips: decord frame by frame, its get_batch, PyAV, and frames kept on disk.

python -m benchmarks.video                 (a Markdown table)
python -m benchmarks.video --json          (one line: `ratio` = time of decord frame by frame / of the reader)

Clips are 2 to 8 s of rendered 640 x 360 H.264 videos of 5 to 10 s at 30 frames a second. The readers take turns on
every clip; their files are in the page cache. CPU time is that of this process and of its reader process together: on
a machine that others use too, compare that one. `max_abs_diff` compares pixels with decord's.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from data.video import READERS, VideoReader, write_video
from data.video_cache import DiskCache
from data.video_frames import Frames
from data.video_process import ReaderProcess

WIDTH, HEIGHT, FPS, FRAMES_PER_CLIP = 640, 360, 30, 16
Clip = tuple[Path, np.ndarray]


@dataclass
class Measured:
    """What one reader took, a value for each clip."""

    wall_sec: list[float] = field(default_factory=list)
    cpu_sec: list[float] = field(default_factory=list)
    max_abs_diff: int = 0


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="clips to read")
    parser.add_argument("--videos", type=int, default=10, help="videos that they are cut from")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clips = draw_clips(render(Path(name), arguments.videos), arguments.clips)
        processes = {decoder: ReaderProcess(decoder, timeout_sec=60.0) for decoder in READERS}
        results = measure(clips, make_readers(Path(name), processes), list(processes.values()))
    if arguments.json:
        sys.stdout.write(json.dumps(as_record(results, len(clips))) + "\n")
    else:
        sys.stdout.write("\n".join(as_table(results)) + "\n")


def render(folder: Path, count: int) -> list[tuple[Path, int]]:
    """Videos, and how many frames each has."""
    rng = np.random.default_rng(0)
    videos = []
    for number in range(count):
        num_frames = int(rng.integers(5 * FPS, 10 * FPS + 1))
        path = folder / f"{number}.mp4"
        write_video(path, scene(num_frames, rng), fps=FPS, width=WIDTH, height=HEIGHT)
        videos.append((path, num_frames))
    return videos


def scene(num_frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A camera that pans over smooth coloured blotches, and a box that moves in front of them."""
    coarse = rng.integers(0, 256, (HEIGHT // 20 + 12, WIDTH // 20 + 12, 3)).astype(np.float32)
    smooth = coarse.repeat(20, axis=0).repeat(20, axis=1)
    for axis in (0, 1):
        smooth = np.mean([np.roll(smooth, shift, axis=axis) for shift in range(-10, 11, 2)], axis=0)
    wide = smooth.astype(np.uint8)
    speed = rng.uniform(0.02, 0.06, size=2)
    for t in range(num_frames):
        top, left = (int(100 + 90 * np.sin(speed[axis] * t)) for axis in (0, 1))
        frame = wide[top : top + HEIGHT, left : left + WIDTH].copy()
        x = int(WIDTH / 2 + 250 * np.sin(0.05 * t))
        frame[140:220, x : x + 60] = 230, 40, 40
        yield frame


def draw_clips(videos: list[tuple[Path, int]], count: int) -> list[Clip]:
    """Frames spread over 2 to 8 s of a video."""
    rng, clips = np.random.default_rng(1), []
    for number in range(count):
        path, num_frames = videos[number % len(videos)]
        length = min(int(rng.integers(2 * FPS, 8 * FPS)), num_frames)
        start = int(rng.integers(0, num_frames - length + 1))
        clips.append((path, start + np.linspace(0, length - 1, FRAMES_PER_CLIP).astype(np.int64)))
    return clips


def get_batch(path: Path, frame_idx_T: np.ndarray) -> Frames:
    """Plain decord, without comparing its frames with the packets of the file."""
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    return reader.get_batch(frame_idx_T.tolist()).asnumpy(), reader.get_frame_timestamp(frame_idx_T.tolist())[:, 0]


def make_readers(folder: Path, processes: dict[str, ReaderProcess]) -> dict[str, VideoReader]:
    """Name -> reader; the one that the others are compared with comes first."""
    return {
        "decord": READERS["decord"],
        "decord, reader process": processes["decord"],
        "plain decord, get_batch": get_batch,
        "PyAV": READERS["pyav"],
        "PyAV, reader process": processes["pyav"],
        "kept on disk": DiskCache(READERS["pyav"], folder / "cache", max_gib=20.0, decoder="pyav"),
    }


def measure(clips: list[Clip], readers: dict[str, VideoReader], processes: list[ReaderProcess]) -> dict[str, Measured]:
    """Every clip by every reader, in turns that begin with another one each time."""
    results = {name: Measured() for name in readers}
    for clip in clips:
        readers["kept on disk"](*clip)
    for read in readers.values():  # libraries are loaded, processes started
        read(*clips[0])
    names = list(readers)
    for number, clip in enumerate(clips):
        turn = names[number % len(names) :] + names[: number % len(names)]
        frames = {name: timed(readers[name], clip, results[name], processes) for name in turn}
        for name, result in results.items():
            if not np.array_equal(frames[name], frames["decord"]):
                difference = np.abs(frames[name].astype(np.int16) - frames["decord"]).max()
                result.max_abs_diff = max(result.max_abs_diff, int(difference))
    return results


def timed(read: VideoReader, clip: Clip, result: Measured, processes: list[ReaderProcess]) -> np.ndarray:
    """The frames; what they took is added to `result`."""
    cpu, wall = cpu_sec(processes), time.perf_counter()
    frames_THW3, _ = read(*clip)
    result.wall_sec.append(time.perf_counter() - wall)
    result.cpu_sec.append(cpu_sec(processes) - cpu)
    return frames_THW3


def cpu_sec(processes: list[ReaderProcess]) -> float:
    """Processor time of this process and of reader processes so far."""
    others = [psutil.Process(process.pid).cpu_times() for process in processes if process.pid]
    return time.process_time() + sum(times.user + times.system for times in others)


def as_record(results: dict[str, Measured], num_clips: int) -> dict[str, object]:
    """One line for machines; ratios are of CPU time, more is faster than decord frame by frame."""
    base = sum(results["decord"].cpu_sec)
    return {
        "benchmark": "video",
        "clips": num_clips,
        "ratio": {name: round(base / sum(result.cpu_sec), 3) for name, result in results.items()},
        "cpu_ms": {name: round(1000 * statistics.mean(result.cpu_sec), 2) for name, result in results.items()},
        "wall_ms": {name: round(1000 * statistics.median(result.wall_sec), 2) for name, result in results.items()},
        "max_abs_diff": {name: result.max_abs_diff for name, result in results.items()},
    }


def as_table(results: dict[str, Measured]) -> list[str]:
    """Markdown, one row for each reader."""
    base = sum(results["decord"].cpu_sec)
    rows = [
        f"| {name} | {1000 * statistics.mean(result.cpu_sec):.1f} | {1000 * statistics.median(result.wall_sec):.1f} "
        f"| {base / sum(result.cpu_sec):.2f} | {result.max_abs_diff} |"
        for name, result in results.items()
    ]
    head = "| reader | CPU ms a clip | wall ms a clip, median | decord's CPU time / its | largest pixel difference |"
    return [head, "|---|---:|---:|---:|---:|", *rows]


if __name__ == "__main__":
    main()
