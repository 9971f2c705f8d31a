"""A look at the videos of a split, in parallel processes: are they there, what do they hold, do they decode.

What is found is kept in chunks, so that a killed command does not look twice. A video that cannot be used is one typed
finding; the others are still looked at.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from configs.checkpoints import write_atomically
from configs.video import VideoConfig
from data.preparation.pool import SturdyPool
from data.probing import VideoInfo, probe_video
from data.types import GroundingSample
from data.video import VideoDecodeError, open_reader

VIDEOS_PER_CHUNK = 64
"""Videos that a killed command may have to look at again."""

Decoder = Literal["decord", "pyav"]
Problem = Literal["missing", "unreadable", "crashed", "undecodable", "disagrees"]
"""No such file; no header; its reader dies; a frame that does not decode; another size or length than annotated."""


@dataclass(frozen=True)
class VideoJob:
    """How far to look into one video: whether it is there, then its header, then these frames of it.

    decoder: None decodes nothing. frames: first and last frame of each clip. whole: also those of the file, whose length
    nobody knows yet.
    """

    path: str
    probe: bool
    decoder: Decoder | None
    frames: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Finding:
    """What a look at one video gave; info is None where its header was not asked for or could not be read."""

    path: str
    info: VideoInfo | None = None
    problem: Problem | None = None
    cause: str = ""


def jobs_of(samples: Sequence[GroundingSample], *, decoder: Decoder | None) -> list[VideoJob]:
    """One job a video, in the order of the samples. Without a decoder, headers are read where a sample needs them."""
    by_path: dict[str, list[GroundingSample]] = {}
    for sample in samples:
        by_path.setdefault(sample.video_path, []).append(sample)
    return [_job_of(path, group, decoder) for path, group in by_path.items()]


def _job_of(path: str, samples: list[GroundingSample], decoder: Decoder | None) -> VideoJob:
    clips = {sample.clip for sample in samples if sample.is_probed}
    unprobed = any(not sample.is_probed for sample in samples)
    frames = sorted({frame for clip in clips for frame in (clip.start, clip.end - 1)})
    return VideoJob(path, decoder is not None or unprobed, decoder, tuple(frames), whole=unprobed)


def look_at(job: VideoJob) -> Finding:
    """Never raises for a bad video."""
    if not Path(job.path).is_file():
        return Finding(job.path, problem="missing", cause="no such file")
    if not job.probe:
        return Finding(job.path)
    try:
        info = probe_video(job.path)
    except VideoDecodeError as error:
        return Finding(job.path, problem="unreadable", cause=error.cause)
    try:
        _decode(job, info)
    except VideoDecodeError as error:
        return Finding(job.path, info, problem="undecodable", cause=error.cause)
    return Finding(job.path, info)


def _decode(job: VideoJob, info: VideoInfo) -> None:
    """Frames past the end are left to the comparison with the annotation, which names its samples."""
    if job.decoder is None:
        return
    frames = {frame for frame in job.frames if frame < info.num_frames}
    frames |= {0, info.num_frames - 1} if job.whole else set()
    if frames:
        open_reader(VideoConfig(decoder=job.decoder))(Path(job.path), np.array(sorted(frames)))


def _crashed(job: VideoJob) -> Finding:
    """What is known of a video whose process died while it alone was looked at."""
    return Finding(job.path, problem="crashed", cause="the process that read it died")


def look_at_all(
    jobs: Sequence[VideoJob], *, chunk_path: Callable[[int], Path], pool: SturdyPool, desc: str
) -> dict[str, Finding]:
    """Findings by path. Finished chunks are read back from `chunk_path(number)`, the others looked at and kept."""
    found: dict[str, Finding] = {}
    chunks = [jobs[start : start + VIDEOS_PER_CHUNK] for start in range(0, len(jobs), VIDEOS_PER_CHUNK)]
    with tqdm(total=len(jobs), desc=desc, unit="video", disable=not jobs) as progress:
        for number, chunk in enumerate(chunks):
            path = chunk_path(number)
            findings = _read_chunk(path, chunk)
            if findings is None:
                is_deep = any(job.probe for job in chunk)
                looks = pool.map(look_at, chunk, if_died=_crashed) if is_deep else map(look_at, chunk)
                findings = list(_advance(progress, looks))
                write_atomically(path, _chunk_text(chunk, findings))
            else:
                progress.update(len(chunk))
            found |= {finding.path: finding for finding in findings}
    return found


def _advance(progress: tqdm, findings: Iterator[Finding]) -> Iterator[Finding]:
    for finding in findings:
        progress.update()
        yield finding


def _chunk_text(jobs: Sequence[VideoJob], findings: Sequence[Finding]) -> str:
    pairs = zip(jobs, findings, strict=True)
    return json.dumps([{"job": asdict(job), "finding": asdict(finding)} for job, finding in pairs])


def _read_chunk(path: Path, jobs: Sequence[VideoJob]) -> list[Finding] | None:
    """None where it is not there, or of other jobs: the annotations changed in between."""
    if not path.exists():
        return None
    rows = json.loads(path.read_text())
    if [VideoJob(**{**row["job"], "frames": tuple(row["job"]["frames"])}) for row in rows] != list(jobs):
        return None
    return [_finding_of(row["finding"]) for row in rows]


def _finding_of(values: dict[str, Any]) -> Finding:
    return Finding(**{**values, "info": VideoInfo(**values["info"]) if values["info"] else None})
