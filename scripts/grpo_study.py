"""Is GRPO worth its time? From one supervised checkpoint, on one set of videos: GRPO, and more supervised training as long.

    python -m scripts.grpo_study --configs configs/grpo_study --out outputs/grounders --results docs/results/grpo

The MLLM and the videos are those of scripts.compare_grounders in the same folder (made first where they are not there). From it a
grounder is trained, supervised, and stopped early; each arm of arms.yaml goes on from there, for every grounder and seed, and is
asked about the held-out videos. Started again after a kill, finished stages are skipped and the interrupted one goes on.
`--grounders text` in one terminal and `--grounders bridge` in another run side by side, once the base is there.
"""

from pathlib import Path

from configs.command_line import explained
from configs.run import quiet_environment, setup_logging
from scripts.demo import run_once
from scripts.grounder_cells import RECORD, base_stages
from scripts.grpo_arms import Arms, arm_stages, load_arms, start_stage, study_folder
from scripts.reports import add_grounders, chosen_grounders, study_parser


def main() -> None:
    """Entry point."""
    parser = study_parser(__doc__, configs="configs/grpo_study", out="outputs/grounders")
    add_grounders(parser)
    parser.add_argument(
        "--base", type=Path, default=Path("configs/grounders"), help="configs of the MLLM that all start from"
    )
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    with explained():
        arms = load_arms(arguments.configs)
    chosen = chosen_grounders(parser, arguments.grounders, arms)
    arguments.out.mkdir(parents=True, exist_ok=True)
    base = base_stages(arguments.base, arguments.out)
    for stage in base:
        run_once(stage, arguments.out / RECORD)
    for seed in arguments.seeds:
        for name in chosen:
            run_arms(arguments.configs, arguments.out, name, arms[name], seed, after=base[-1].key)
    from scripts.grpo_report import publish

    with explained():
        publish(arms, arguments.out, arguments.results, module="scripts.grpo_study")


def run_arms(configs: Path, out: Path, name: str, arms: Arms, seed: int, *, after: str) -> None:
    """The supervised checkpoint of a grounder and a seed, where it is not there, and what goes on from it. after: the base's key."""
    folder = study_folder(out, name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    start = start_stage(configs, out, name, arms, seed, after=after)
    run_once(start, folder / RECORD)
    for stage in arm_stages(configs, out, name, arms, seed, after=start.key):
        run_once(stage, folder / RECORD)


if __name__ == "__main__":
    main()
