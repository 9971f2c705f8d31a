"""Make the samples of a data config ready: render the synthetic source, then count what every split holds.

python -m data.prepare --config configs/demo/sft.yaml
python -m data.prepare --config configs/demo/sft.yaml data.source.num_videos.train=1000
"""

import logging
from collections import Counter

from configs.base import load_config
from configs.command_line import config_parser
from configs.data import DataConfig
from configs.run import setup_logging
from configs.sources import SyntheticSource
from data.sources import load_samples
from data.sources.synthetic import render

logger = logging.getLogger("data.prepare")


def main() -> None:
    """Entry point."""
    parser = config_parser(__doc__)
    parser.add_argument("--splits", nargs="+", default=["train"], help="to count, of a source that is not rendered")
    arguments = parser.parse_args()
    setup_logging()
    config = load_config(DataConfig, arguments.config, arguments.overrides, section="data")
    if isinstance(config.source, SyntheticSource):
        render(config.source)
    for split in config.source.num_videos if isinstance(config.source, SyntheticSource) else arguments.splits:
        samples = load_samples(config, split)
        logger.info("%s: %d samples %s", split, len(samples), dict(Counter(sample.task for sample in samples)))


if __name__ == "__main__":
    main()
