"""Source `synthetic`: rendered H.264 files of coloured shapes, with exact tracks, to be read back like any video.

A video holds 1-3 shapes. Each either *appears* (it is visible, drifting, only in its interval) or *moves* (it stands
still outside of its interval and travels in one direction inside). Sentences name one of them, so that the others are
distractors: "the red circle appears", "what moves left?". A question is asked only where its answer is unique.

Every shape gives one sample of each task: stvg, temporal (same sentence, no boxes), rec (one frame of the interval)
and qa (the question with three options).
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from configs.base import ConfigError
from configs.checkpoints import write_atomically
from configs.sources import SyntheticSource
from data.annotations import MissingFileError, Split
from data.sources.jsonl import read_split, write_samples
from data.types import BoxPx, FrameSpan, GroundingSample
from data.video import write_video

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (160, 60, 200),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKGROUND = (28, 30, 34)
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Shape:
    """One shape; `boxes_px_T4` is its box at every frame of the video, drawn or not."""

    colour: str
    shape: str
    verb: Literal["appears", "moves"]
    direction: str
    span: FrameSpan
    boxes_px_T4: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def action(self) -> str:
        return "appears" if self.verb == "appears" else f"moves {self.direction}"

    def is_drawn(self, frame: int) -> bool:
        return self.verb == "moves" or self.span.start <= frame < self.span.end


def load(config: SyntheticSource, split: str) -> Split:
    """Samples of a split that `render` wrote before."""
    path = Path(config.root) / f"{split}.jsonl"
    if not path.exists():
        raise MissingFileError(path, "not rendered yet; run python -m data.prepare with this config")
    return read_split(path)


def render(config: SyntheticSource, *, num_processes: int = 2) -> None:
    """Write `{root}/{split}.jsonl` and `{root}/{split}/*.mp4` for every split. The same config gives the same videos.

    Raises ConfigError where the folder holds videos of another config.
    """
    _claim(config)
    for split, count in config.num_videos.items():
        folder = Path(config.root) / split
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(config, split, index) for index in range(count)]
        # Spawned, not forked: a fork of a process whose threads hold locks hangs.
        with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
            done = pool.map(_render_video, jobs, chunksize=4)
            samples = [s for group in tqdm(done, total=count, desc=f"render {split}", unit="video") for s in group]
        write_samples(folder.parent / f"{split}.jsonl", samples)


def _claim(config: SyntheticSource) -> None:
    """Note what the folder's videos are drawn from; only how many there are may change."""
    ours = config.model_dump(mode="json", exclude={"root", "num_videos"})
    path = Path(config.root) / "source.json"
    if path.exists() and (theirs := json.loads(path.read_text())) != ours:
        changes = sorted(key for key in ours if ours[key] != theirs.get(key))
        raise ConfigError(f"{path}: this folder holds other videos ({', '.join(changes)} differ); choose another root")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(ours, indent=2) + "\n")


def _render_video(job: tuple[SyntheticSource, str, int]) -> list[GroundingSample]:
    """Samples of one video; its file is written unless it is there, so that a killed rendering goes on."""
    config, split, index = job
    seed = [config.seed, crc32(split.encode()), index]
    rng = np.random.default_rng(seed)
    shapes = draw_scene(config, rng)
    path = Path(config.root) / split / f"{index:05d}.mp4"
    if not path.exists():
        noise = np.random.default_rng([*seed, 1])
        aside = path.with_suffix(".partial.mp4")
        frames = (_frame(config, shapes, t, noise) for t in range(_num_frames(config)))
        write_video(aside, frames, fps=config.fps, width=config.size_px, height=config.size_px)
        aside.rename(path)
    return list(_samples(config, shapes, path, f"{split}-{index:05d}", rng))


def _num_frames(config: SyntheticSource) -> int:
    return round(config.duration_sec * config.fps)


def draw_scene(config: SyntheticSource, rng: np.random.Generator) -> list[Shape]:
    """Shapes of one video; no two share colour and shape."""
    count = int(rng.integers(config.num_objects[0], config.num_objects[1] + 1))
    names = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    chosen = [names[i] for i in rng.choice(len(names), size=count, replace=False)]
    return [_draw_shape(config, colour, shape, rng) for colour, shape in chosen]


def _draw_shape(config: SyntheticSource, colour: str, shape: str, rng: np.random.Generator) -> Shape:
    num_frames, limit = _num_frames(config), config.size_px
    length = round(rng.uniform(config.min_interval_sec, config.max_interval_sec) * config.fps)
    start = int(rng.integers(0, num_frames - length + 1))
    span = FrameSpan(start, start + length)
    verb = "moves" if rng.random() < config.motion_probability else "appears"
    direction = str(rng.choice(list(DIRECTIONS)))
    size = rng.integers(config.object_px[0], config.object_px[1] + 1, size=2 if shape != "circle" else 1)
    size_2 = np.broadcast_to(size, 2).astype(float)
    room = limit - size_2
    if verb == "moves":
        travel = np.array(DIRECTIONS[direction]) * room * rng.uniform(0.5, 0.9)
    else:
        travel = rng.uniform(-0.3, 0.3, size=2) * room
    low, high = np.maximum(0, -travel), room - np.maximum(0, travel)
    origin = rng.uniform(low, high)
    progress_T = np.clip((np.arange(num_frames) - start) / max(length - 1, 1), 0, 1)
    corner_T2 = origin + progress_T[:, None] * travel
    return Shape(colour, shape, verb, direction, span, np.concatenate([corner_T2, corner_T2 + size_2], axis=1))


def _frame(config: SyntheticSource, shapes: list[Shape], t: int, rng: np.random.Generator) -> np.ndarray:
    side = config.size_px * SUPERSAMPLING
    image = Image.new("RGB", (side, side), BACKGROUND)
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        if shape.is_drawn(t):
            left, top, right, bottom = (shape.boxes_px_T4[t] * SUPERSAMPLING).tolist()
            _draw(canvas, shape, (left, top, right - 1, bottom - 1))
    pixels = np.asarray(image.resize((config.size_px, config.size_px), Image.Resampling.BOX), dtype=np.float32)
    noise = rng.normal(0.0, config.noise_std, size=pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _draw(canvas: ImageDraw.ImageDraw, shape: Shape, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    fill = COLOURS[shape.colour]
    if shape.shape == "circle":
        canvas.ellipse(box, fill=fill)
    elif shape.shape == "square":
        canvas.rectangle(box, fill=fill)
    else:
        canvas.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=fill)


def _samples(
    config: SyntheticSource, shapes: list[Shape], path: Path, key: str, rng: np.random.Generator
) -> Iterator[GroundingSample]:
    for number, shape in enumerate(shapes):
        query, query_type = _sentence(shape, shapes, rng)
        span = shape.span
        stvg = GroundingSample(
            sample_id=f"{key}-{number}-stvg",
            task="stvg",
            query=query,
            query_type=query_type,
            video_path=str(path),
            fps=config.fps,
            width=config.size_px,
            height=config.size_px,
            clip=FrameSpan(0, _num_frames(config)),
            span=span,
            boxes_xyxy_px=tuple(_box(shape, t) for t in range(span.start, span.end)),
        )
        yield stvg
        yield replace(stvg, sample_id=f"{key}-{number}-temporal", task="temporal", boxes_xyxy_px=None)
        yield _rec_sample(stvg, shape, f"{key}-{number}-rec", rng)
        yield _qa_sample(stvg, shape, f"{key}-{number}-qa", rng)


def _box(shape: Shape, t: int) -> BoxPx:
    left, top, right, bottom = (round(float(value), 3) for value in shape.boxes_px_T4[t])
    return left, top, right, bottom


def _sentence(
    shape: Shape, shapes: list[Shape], rng: np.random.Generator
) -> tuple[str, Literal["declarative", "interrogative"]]:
    """A sentence true of this shape alone; half of them questions where one is unambiguous."""
    same_action = [other for other in shapes if other.action == shape.action]
    if len(same_action) == 1 and rng.random() < 0.5:
        return f"what {shape.action}?", "interrogative"
    same_colour = [other for other in same_action if other.colour == shape.colour]
    if len(same_colour) == 1 and rng.random() < 0.5:
        return f"which {shape.colour} shape {shape.action}?", "interrogative"
    return f"the {shape.name} {shape.action}", "declarative"


def _rec_sample(stvg: GroundingSample, shape: Shape, key: str, rng: np.random.Generator) -> GroundingSample:
    frame = int(rng.integers(shape.span.start, shape.span.end))
    moment = FrameSpan(frame, frame + 1)
    return replace(
        stvg,
        sample_id=key,
        task="rec",
        query=f"the {shape.name}",
        query_type="declarative",
        clip=moment,
        span=moment,
        boxes_xyxy_px=(_box(shape, frame),),
    )


def _qa_sample(stvg: GroundingSample, shape: Shape, key: str, rng: np.random.Generator) -> GroundingSample:
    """What does the shape do? Wrong options are what it does not do, so the video is needed."""
    actions = ["appears", *(f"moves {direction}" for direction in DIRECTIONS)]
    wrong = [action for action in actions if action != shape.action]
    options = [shape.action, *(str(action) for action in rng.choice(wrong, size=2, replace=False))]
    order = rng.permutation(3)
    letter = "ABC"[int(np.flatnonzero(order == 0)[0])]
    return replace(
        stvg,
        sample_id=key,
        task="qa",
        query=f"what does the {shape.name} do?",
        query_type="interrogative",
        span=None,
        boxes_xyxy_px=None,
        options=tuple(options[i] for i in order),
        choice=letter,
    )
