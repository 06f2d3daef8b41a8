"""`ccl fit` as far as it needs neither torch nor Lightning: its page of help, and configs that cannot be read.

LightningCLI's own help, of every option of every class, is `ccl fit --help_all`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from ccl.cli.errors import UsageError, compose
from ccl.cli.parser import Parser

WITHOUT_CONFIG = (
    "fit needs a config: `ccl fit --config configs/joint.yaml` trains the embedded default; more --config files "
    "override it in turn, and then --key value, such as --trainer.max_steps 100"
)
# option: (its value, what it does)
OPTIONS = {
    "--config": ("FILE", "YAML; a later one overrides those before it, and --key value all of them; repeatable"),
    "--name": ("NAME", "of the run's folder, which is never overwritten (joint)"),
    "--runs_dir": ("DIR", "where run folders lie (runs)"),
    "--seed_everything": ("SEED", "of weights, batches and noise (0)"),
    "--ckpt_path": ("PATH", "go on from `last` of the run of that name, or from a checkpoint"),
    "--checkpoint_every": ("STEPS", "save one so often (as trainer.callbacks say)"),
    "--preview_every": ("STEPS", "make previews so often (as trainer.callbacks say)"),
    "--preview_prompts": ("PROMPTS", "what previews show (captions of the data)"),
    "--task_per": ("batch|sample", "draw a task for each step, or for each of its clips (as trainer.callbacks say)"),
    "--print_config": ("", "print what files and flags add up to, and train nothing"),
}
KEYS = {
    "--grid.KEY": "length, size and rates of a clip",
    "--codec.KEY": "the video and the audio codec",
    "--model.KEY": "network, text encoder, tasks, optimizer, LoRA, pretrained weights",
    "--data.KEY": "shards or the world, batch_size, num_workers: --data.init_args.batch_size 8",
    "--trainer.KEY": "Lightning's: max_steps, devices, precision, strategy, callbacks",
    "--sampling.KEY": "what an exported model is sampled with",
}


def main(argv: list[str]) -> int:
    """Train; the exit status.

    Raises:
        UsageError: no config is given, or one is not there or no YAML.
    """
    if "-h" in argv or "--help" in argv:
        page().parse(["--help"])
    asks = any(arg.startswith(("--help_all", "--print_config")) or arg.endswith(".help") for arg in argv)
    files = config_files(argv)
    if not files and not asks and not any(arg.startswith("--help") for arg in argv):
        raise UsageError(WITHOUT_CONFIG)
    for file in files:
        compose(file)
    from ccl.cli import fit

    return fit.main(["--help" if arg == "--help_all" else arg for arg in argv])


def page() -> Parser:
    """The help of `ccl fit`."""
    parser = Parser(
        "fit",
        "Train from one or more stacked YAML files; the run lies in runs/NAME.",
        "ccl fit --config configs/joint.yaml",
        "ccl fit --config configs/joint.yaml --config configs/data/shards.yaml --data.init_args.shards data/mine "
        "--name mine",
        "ccl fit --config configs/joint.yaml --name mine --ckpt_path last",
        "ccl fit --config configs/joint.yaml --print_config",
    )
    for option, (value, what) in OPTIONS.items():
        if value:
            parser.add_argument(option, help=what, metavar=value)
        else:
            parser.add_argument(option, help=what, action="store_true")
    parser.add_argument("--help_all", action="store_true", help="every option of every class; takes some seconds")
    keys = parser.add_argument_group("keys of the configs, as options (--print_config shows them all)")
    for option, what in KEYS.items():
        keys.add_argument(option, help=what, metavar="VALUE")
    return parser


def config_files(argv: list[str] | tuple[str, ...]) -> list[Path]:
    """The `--config` files of a command line, in order."""
    files = [value for flag, value in pairwise(argv) if flag in ("--config", "-c")]
    return [Path(file) for file in files + [arg.partition("=")[2] for arg in argv if arg.startswith("--config=")]]
