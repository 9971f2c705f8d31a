"""Small videos of odd or broken kinds. Frame t is grey of level 20 + 5 t with a white bar along its top.

So a frame tells its own index at its centre, and which way it is turned at its edges.
"""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data.video import write_video

WIDTH, HEIGHT, NUM_FRAMES, FPS = 64, 48, 40, 8
B_FRAMES = "mbtree=0:bframes=3:b-adapt=0:scenecut=0"
UNEVEN_MS = (0, 40, 50, 300, 310, 800, 1000, 1010, 1500, 2500)
TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""Upper left of the display matrix of a track (ISO/IEC 14496-12, 8.3.2), clockwise."""


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Frame `index`."""
    frame = np.full((height, width, 3), 20 + 5 * index, dtype=np.uint8)
    frame[: height // 4] = 255
    return frame


def encode(
    path: Path,
    *,
    codec: str = "libx264",
    x264: str = "mbtree=0",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    muxer: dict[str, str] | None = None,
    grain: int = 0,
) -> Path:
    """NUM_FRAMES frames at FPS, or one at each of `times_ms`; `grain` is added below the bar and makes packets large."""
    rng = np.random.default_rng(0)
    times = [1000 * t // FPS for t in range(NUM_FRAMES)] if times_ms is None else times_ms
    options = {"preset": "veryfast", "crf": "12", "x264-params": x264} if codec == "libx264" else {}
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = *size, pixel_format, 1
        if times_ms is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, time_ms in enumerate(times):
            pixels = picture(index, *size)
            pixels[size[1] // 4 :] += rng.integers(0, grain + 1, pixels[size[1] // 4 :].shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (index, Fraction(1, FPS)) if times_ms is None else (time_ms, Fraction(1, 1000))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def plain(path: Path) -> Path:
    """As write_video writes it."""
    write_video(path, map(picture, range(NUM_FRAMES)), fps=FPS, width=WIDTH, height=HEIGHT)
    return path


def copy_packets(source: Path, path: Path, *, skip_sec: float = 0.0, muxer: dict[str, str] | None = None) -> Path:
    """The same packets, times moved back by `skip_sec`: what comes before 0 is hidden by an edit list."""
    with av.open(str(source)) as reading, av.open(str(path), "w", options=muxer or {}) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.size:
                ticks = int(skip_sec / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, stream
                writing.mux(packet)
    return path


def titled(path: Path, title: bytes) -> Path:
    """With these bytes as its title."""
    with av.open(str(plain(path.with_suffix(".mp4")))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.metadata["title"] = "?" * len(title)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"?" * len(title), title))
    return path


def turned(path: Path, degrees: int) -> Path:
    """A player shows it turned clockwise."""
    content = bytearray(plain(path).read_bytes())
    matrix = content.find(b"tkhd") + 4 + 40
    a, b, c, d = (value * 0x10000 for value in TURNS[degrees])
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(content)
    return path


def cut_short(path: Path, *, index_first: bool, keep: float = 0.5) -> Path:
    """Its first part."""
    whole = plain(path.with_name(f"whole-{path.name}"))
    if index_first:
        whole = copy_packets(whole, path.with_name(f"front-{path.name}"), muxer={"movflags": "faststart"})
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def damaged(path: Path) -> Path:
    """Noise over the bytes of the frames, behind the first ones."""
    source = encode(path.with_name(f"whole-{path.name}"), x264="mbtree=0:keyint=400:scenecut=0")
    content = bytearray(copy_packets(source, path, muxer={"movflags": "faststart"}).read_bytes())
    start = content.find(b"mdat") + 1000
    content[start:] = np.random.default_rng(0).integers(0, 256, len(content) - start, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return path


def damaged_at(path: Path, index: int) -> Path:
    """Two thirds of the packet of frame `index` are ones, in a video of one GOP without B-frames."""
    encode(path, x264="mbtree=0:bframes=0:keyint=400:scenecut=0", grain=20)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content, (position, size) = bytearray(path.read_bytes()), packets[index]
    content[position + size // 3 : position + size] = b"\xff" * (size - size // 3)
    path.write_bytes(content)
    return path


def wrong_count(path: Path) -> Path:
    """The headers of an AVI say 99 frames: dwTotalFrames of `avih` and dwLength of `strh`."""
    content = bytearray(encode(path, codec="mpeg4").read_bytes())
    for mark, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = content.find(mark) + offset
        assert struct.unpack_from("<I", content, place) == (NUM_FRAMES,)
        struct.pack_into("<I", content, place, 99)
    path.write_bytes(content)
    return path


def sound_only(path: Path) -> Path:
    """One packet of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def two_sizes(path: Path) -> Path:
    """A transport stream of two parts, 64 x 48 and then 96 x 48."""
    parts = [
        encode(path.with_name(f"{i}.ts"), size=size, times_ms=range(5000 * i, 5000 * i + 5000, 125))
        for i, size in enumerate([(64, 48), (96, 48)])
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


Make = Callable[[Path], Path]
