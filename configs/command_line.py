"""`--config FILE key=value ...`, the same for every entry point."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from configs.base import C, ConfigError, load_config

logger = logging.getLogger("config")


@contextmanager
def explained(*errors: type[Exception]) -> Iterator[None]:
    """What a user can mend ends the process with status 2 and the reason; any other error keeps its traceback."""
    try:
        yield
    except (ConfigError, *errors) as error:
        end_with_reason(str(error))


def end_with_reason(reason: str, *, status: int = 2) -> NoReturn:
    """End the process with one log entry, which torchrun shows again in the frame that it ends with."""
    logger.error("%s", reason)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # As torch.distributed.elastic.multiprocessing.errors.ErrorHandler writes it, with a reason for the traceback.
        extra = {"py_callstack": reason, "timestamp": str(int(time.time()))}
        Path(path).write_text(json.dumps({"message": {"message": reason, "extraInfo": extra}}))
    sys.exit(status)


def check_out_file(path: Path) -> None:
    """Raise ConfigError where `--out` cannot be a file: said before the work, not after it."""
    if path.is_dir():
        raise ConfigError(f"--out {path}: expected a file, found a folder")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: no such folder: {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--out {path}: no permission to write into {path.parent}")


def check_out_folder(path: Path) -> None:
    """Raise ConfigError where `--out` cannot be a folder, or made one."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ConfigError(f"--out {path}: expected a folder, {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"--out {path}: no permission to write into {existing}")


def config_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--config` and overrides; an entry point may add arguments of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path, help="YAML file; what it leaves out has its default")
    parser.add_argument("overrides", nargs="*", help="key=value, for example optim.learning_rate=1e-5")
    return parser


def config_from_command_line(schema: type[C], description: str | None, arguments: Sequence[str] | None = None) -> C:
    """The config of a run. A config that cannot be used ends the process with status 2 and the reason."""
    parsed = config_parser(description).parse_args(arguments)
    try:
        return load_config(schema, parsed.config, parsed.overrides)
    except ConfigError as error:
        end_with_reason(str(error))
