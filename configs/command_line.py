"""`--config FILE key=value ...`, the same for every entry point."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from configs.base import C, ConfigError, load_config

logger = logging.getLogger("config")


@contextmanager
def explained(*errors: type[Exception]) -> Iterator[None]:
    """What a user can mend ends the process with status 2 and the reason; any other error keeps its traceback."""
    try:
        yield
    except (ConfigError, *errors) as error:
        logger.error("%s", error)
        sys.exit(2)


def config_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--config` and overrides; an entry point may add arguments of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value, for example optim.learning_rate=1e-5")
    return parser


def config_from_command_line(schema: type[C], description: str | None, arguments: Sequence[str] | None = None) -> C:
    """The config of a run. A config that cannot be used ends the process with status 2 and the reason."""
    parser = config_parser(description)
    parsed = parser.parse_args(arguments)
    try:
        return load_config(schema, parsed.config, parsed.overrides)
    except ConfigError as error:
        parser.error(str(error))
