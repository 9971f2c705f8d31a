"""Is GRPO worth its time? From one supervised checkpoint, on one set of videos: GRPO, and more supervised training as long.

    python -m scripts.grpo_study --configs configs/grpo_study --out outputs/grounders --results docs/results/grpo

The checkpoints are those of scripts.compare_grounders in the same folder (made first where they are not there). Each arm of
arms.yaml goes on from them, for every grounder and seed, and is asked about the held-out videos. Started again after a kill,
finished stages are skipped and the interrupted one goes on. `--grounders text` in one terminal and `--grounders bridge` in
another run side by side, once the base is there.
"""

from pathlib import Path

from configs.command_line import explained
from configs.run import quiet_environment, setup_logging
from scripts.demo import Stage, run_once
from scripts.grounder_cells import RECORD, base_stages, cell_folder, cell_stages, load_grounders
from scripts.grpo_arms import Arms, arm_stages, check_prompts, load_arms, study_folder
from scripts.reports import add_grounders, chosen_grounders, study_parser


def main() -> None:
    """Entry point."""
    parser = study_parser(__doc__, configs="configs/grpo_study", out="outputs/grounders")
    add_grounders(parser)
    parser.add_argument("--base", type=Path, default=Path("configs/grounders"), help="configs of the checkpoints")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    with explained():
        arms = load_arms(arguments.configs)
        compared = load_grounders(arguments.base)
        check_prompts(arms, arguments.configs, compared, arguments.base)
    chosen = chosen_grounders(parser, arguments.grounders, arms)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stage in base_stages(arguments.base, arguments.out):
        run_once(stage, arguments.out / RECORD)
    for seed in arguments.seeds:
        for name in chosen:
            checkpoint, *_ = cell_stages(arguments.base, arguments.out, name, compared[name], seed)
            run_arms(checkpoint, arguments.configs, arguments.out, name, arms[name], seed)
    from scripts.grpo_report import publish

    with explained():
        publish(arms, arguments.out, arguments.results, module="scripts.grpo_study")


def run_arms(checkpoint: Stage, configs: Path, out: Path, name: str, arms: Arms, seed: int) -> None:
    """The supervised checkpoint of a grounder and a seed, where it is not there, and what goes on from it."""
    for folder in (cell_folder(out, name, seed), study_folder(out, name, seed)):
        folder.mkdir(parents=True, exist_ok=True)
    run_once(checkpoint, cell_folder(out, name, seed) / RECORD)
    for stage in arm_stages(configs, out, name, arms, seed, after=checkpoint.key):
        run_once(stage, study_folder(out, name, seed) / RECORD)


if __name__ == "__main__":
    main()
