"""Make samples ready to be trained on: annotations as a `datasets` folder with a report, or the rendered source.

Published annotations (a source of data/sources; `key=value` sets its other fields, from configs/sources.py):

    python -m data.prepare --source vidstg --annotations VidSTG/annotations --videos vidor/video --out prepared/vidstg \\
        tracks=vidor/annotation --splits val test --check-videos

reads the splits (the usual ones that are there unless named), looks for every video, and writes `data/{split}.parquet`,
`README.md` for `datasets.load_dataset`, `report.md`, `report.json` and `histograms.png`. A sample annotated in seconds
gets the clock of its video where --videos says where it is. --check-videos also compares each header with the
annotation and decodes the first and last frame of each clip, with the decoder that a run will use (--decoder). A killed
command goes on where it was.

Ends with status 0 where everything is usable; 3 where the folder is written but the report lists rejected records or
problems with videos, unless --bad-records skip or --problem-videos skip accept them, as `data.bad_records` and
`problem_videos` of the source `prepared` do in a run; 2 where nothing is written, with the reason.

Source `synthetic` of a run's config, rendered and counted:

    python -m data.prepare --config configs/demo/sft.yaml data.source.num_videos.train=1000

which takes --splits, and no other option.
"""

import argparse
import json
import logging
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from configs.base import Config, ConfigError, apply_override, load_config, parse_config
from configs.command_line import end_with_reason, explained
from configs.data import DataConfig
from configs.run import setup_logging
from configs.sources import AnySource, SyntheticSource
from configs.video import VideoConfig
from data.annotations import AnnotationError
from data.preparation.folder import REPORT
from data.preparation.run import Request, knows_videos, prepare
from data.sources import SOURCES, load_samples
from data.sources.synthetic import render
from data.video import READERS

logger = logging.getLogger("data.prepare")

OF_SOURCE = (
    "annotations", "videos", "out", "check_videos", "decoder", "bad_records", "problem_videos", "num_processes",
)  # fmt: skip
"""Options that mean nothing with --config."""

CONFIGS: dict[str, type[Config]] = {
    get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(AnySource)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parsed = _parser().parse_intermixed_args(arguments)
    setup_logging()
    with explained(AnnotationError):
        _check_options(parsed)
        if parsed.config is not None:
            _render_and_count(parsed)
        else:
            prepare(_request(parsed))
            _end_with_status(parsed)


def _check_options(parsed: argparse.Namespace) -> None:
    """Raises ConfigError for an option that would be ignored."""
    if parsed.config is None:
        return
    defaults = _parser().parse_args(["--config", str(parsed.config)])
    if given := [name for name in OF_SOURCE if getattr(parsed, name) != getattr(defaults, name)]:
        raise ConfigError(
            f"--{given[0].replace('_', '-')}: expected with --source alone; with --config the source is that of the config"
        )


def _end_with_status(parsed: argparse.Namespace) -> None:
    """End the process with status 3 where the report lists what was not accepted."""
    report = Path(parsed.out) / REPORT
    splits = json.loads(report.read_text())["splits"].values()
    num_rejected = sum(len(split["rejected"]) for split in splits)
    num_problems = sum(len(split["videos"]["problems"]) for split in splits)
    refused = []
    if num_rejected and parsed.bad_records != "skip":
        refused.append(f"{num_rejected} records rejected (--bad-records skip accepts them)")
    if num_problems and parsed.problem_videos != "skip":
        refused.append(f"{num_problems} problems with videos (--problem-videos skip accepts them)")
    if refused:
        end_with_reason(f"{report}: {', '.join(refused)}", status=3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--config", type=Path, help="a run's config, for the synthetic source")
    origin.add_argument("--source", choices=sorted(SOURCES), help="whose annotation files are prepared")
    parser.add_argument("--annotations", help="folder with the annotation files (the `root` of jsonl and synthetic)")
    parser.add_argument("--videos", help="folder with the videos or images")
    parser.add_argument("--out", help="folder to write")
    parser.add_argument("--splits", nargs="+", help="such as train val test")
    parser.add_argument("--check-videos", action="store_true", help="decode first and last frame of every clip")
    parser.add_argument("--decoder", choices=sorted(READERS), default=VideoConfig().decoder, help="of --check-videos")
    parser.add_argument("--bad-records", choices=("error", "skip"), help="rejected ones: status 3 (unless given), or 0")
    parser.add_argument(
        "--problem-videos", choices=("error", "skip"), help="those that were found: status 3 (unless given), or 0"
    )
    parser.add_argument("--num-processes", type=int, default=os.cpu_count() or 1, help="that look at videos")
    parser.add_argument("overrides", nargs="*", help="key=value, for example layout=stcat")
    return parser


def _request(parsed: argparse.Namespace) -> Request:
    """Raises ConfigError."""
    for name in ("annotations", "out"):
        if not getattr(parsed, name):
            raise ConfigError(f"--{name}: expected a folder with --source {parsed.source}")
    if wrong := [split for split in parsed.splits or () if not split.replace("_", "").isalnum()]:
        raise ConfigError(f"--splits {wrong[0]!r}: expected letters, digits and _; write key=value before --splits")
    source = source_config(parsed.source, parsed.annotations, parsed.videos, parsed.overrides)
    _check_folders(source)
    if parsed.check_videos and not knows_videos(source):
        raise ConfigError("--check-videos: expected --videos with the folder that they are in")
    if isinstance(source, SyntheticSource):
        render(source, num_processes=parsed.num_processes)
    splits = None if parsed.splits is None else tuple(parsed.splits)
    return Request(
        source,
        out=parsed.out,
        command=command_text(parsed),
        splits=splits,
        check_with=parsed.decoder if parsed.check_videos else None,
        num_processes=max(1, parsed.num_processes),
    )


def _check_folders(source: Config) -> None:
    """Raises ConfigError for a folder that is not there: every video or track in it would be missing."""
    if isinstance(source, SyntheticSource):  # its folder is made
        return
    for name in ("annotations", "root", "videos", "tracks"):
        if (folder := getattr(source, name, "")) and not Path(folder).is_dir():
            raise ConfigError(f"{name}: no such folder: {folder}")


def source_config(name: str, annotations: str, videos: str | None, overrides: Sequence[str]) -> Config:
    """The config of a source from what was typed. Raises ConfigError with the nearest valid key."""
    schema = CONFIGS[name]
    tree: dict[str, Any] = {"annotations" if "annotations" in schema.model_fields else "root": annotations}
    if videos is not None:
        if "videos" not in schema.model_fields:
            raise ConfigError(f"--videos: not for {name}, whose annotations say where their videos are")
        tree["videos"] = videos
    for override in overrides:
        apply_override(tree, override)
    return parse_config(schema, tree, origin=f"--source {name}")


def command_text(parsed: argparse.Namespace) -> str:
    """The command as it could be typed again, without what does not change the result."""
    words = ["python", "-m", "data.prepare", "--source", parsed.source]
    for name in ("annotations", "videos", "out"):
        words += [f"--{name}", getattr(parsed, name)] if getattr(parsed, name) is not None else []
    words += ["--check-videos", "--decoder", parsed.decoder] if parsed.check_videos else []
    words += parsed.overrides
    words += ["--splits", *parsed.splits] if parsed.splits else []
    return shlex.join(words)


def _render_and_count(parsed: argparse.Namespace) -> None:
    config = load_config(DataConfig, parsed.config, parsed.overrides, section="data")
    if isinstance(config.source, SyntheticSource):
        render(config.source)
    splits = config.source.num_videos if isinstance(config.source, SyntheticSource) else parsed.splits or ["train"]
    for split in splits:
        samples = load_samples(config, split)
        logger.info("%s: %d samples %s", split, len(samples), dict(Counter(sample.task for sample in samples)))


if __name__ == "__main__":
    main()
