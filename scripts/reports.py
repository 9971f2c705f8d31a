"""What the commands of a study share: their arguments, and the three files of a report."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.checkpoints import write_atomically


def study_parser(description: str | None, *, configs: str, out: str) -> argparse.ArgumentParser:
    """`--configs`, `--out` and `--results`; an entry point may add arguments of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=Path(configs), help="folder of the study's configs")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of everything that the study makes")
    parser.add_argument("--results", type=Path, required=True, help="path of the report, without its ending")
    return parser


def add_grounders(parser: argparse.ArgumentParser) -> None:
    """`--seeds` and `--grounders`, which of a table to train now."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of every grounder")
    parser.add_argument("--grounders", nargs="+", help="names of the table, those to train now; all by default")


def chosen_grounders(parser: argparse.ArgumentParser, chosen: list[str] | None, table: Mapping[str, Any]) -> list[str]:
    """Those of `--grounders`. A name that is not in the table ends the process with status 2."""
    if unknown := [name for name in chosen or [] if name not in table]:
        parser.error(f"--grounders {unknown[0]}: expected names of {', '.join(table)}")
    return chosen or list(table)


def write_report(
    results: Path,
    record: Mapping[str, Any],
    text: Callable[[Mapping[str, Any], str], str],
    draw: Callable[[Mapping[str, Any], Path], None],
) -> None:
    """{results}.json, .md and .png. text: of the record and the picture's name; draw: a figure of the record to a path."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(results.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    write_atomically(results.with_suffix(".md"), text(record, f"{results.name}.png"))
    draw(record, results.with_suffix(".png"))
