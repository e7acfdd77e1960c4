"""The command line: `jaxqring train`, `budget`, `sweep` and `sensitivity`.

A configuration comes from a TOML file, or by the name of one that comes with the package, and any
value of it can be overridden by a flag:

    jaxqring train --config demo --steps 100 --runs.2.fidelity 0.99
    jaxqring train --config configs/demo.toml --restart
    jaxqring budget --config budget --hardware.length 20e3
    jaxqring sweep --config sweep_fidelity --seeds 2 --task.steps 100
    jaxqring sensitivity --config sensitivity --seeds 8

`jaxqring COMMAND --help` lists the flags of a command, and `jaxqring --version` says which version
this is.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import jax

import jaxqring
from jaxqring._extras import MissingExtraError, needs
from jaxqring.jobs._load import load_config, packaged_configs
from jaxqring.jobs._training_config import TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = ("train", "budget", "sweep", "sensitivity")

Config = TypeVar("Config")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    Errors are one sentence on the standard error stream: status 2 for what was asked wrongly, 1 for
    what is missing or cannot be read or written, 130 for an interrupt.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except (ValueError, TypeError) as error:
        return _fail(f"error: {error}", 2)
    except (MissingExtraError, OSError) as error:
        return _fail(f"error: {error}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from the last checkpoint", 130)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"jaxqring {jaxqring.__version__}")
        return 0
    with needs("train", "The command line"):
        import matplotlib  # noqa: F401  which every command draws with
        import pydantic  # noqa: F401
        import tyro  # noqa: F401
        from rich.console import Console

    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if arguments[0] not in COMMANDS:
        return _fail(f"unknown command {arguments[0]!r}: choose {', '.join(COMMANDS)}", 2)
    commands = dict(zip(COMMANDS, (_train, _budget, _sweep, _sensitivity), strict=True))
    return commands[arguments[0]](arguments[1:], Console())


def _fail(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


def _train(arguments: list[str], console: "Console") -> int:
    about = "Train with a classical or a quantum all-reduce."
    config = _parse(arguments, TrainConfig(), "train", about)
    if config.mapping != "vmap":
        _offer_host_devices(config.nodes)
    # Imported late: device counts must be set before anything of JAX looks at its devices.
    from jaxqring.jobs import _training_job as loop
    from jaxqring.show import _security_figure as security_figure
    from jaxqring.show import _training_figures as figures
    from jaxqring.show import _training_tables as tables

    if loop.finished_summary(config):
        print(f"{config.folder} holds this job, finished: --restart starts over")
        return 0
    summary = loop.train(config, console)
    console.print(tables.summary_table(summary))
    if any("security" in run for run in summary["runs"]):
        console.print(tables.security_table(summary))
    drawn = figures.draw(config.folder, summary)
    drawn += security_figure.draw_security(config.folder, summary)
    for path in [config.folder / "summary.json", *drawn]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _budget(arguments: list[str], console: "Console") -> int:
    from jaxqring.jobs import BudgetConfig, run_budget
    from jaxqring.show import _budget_figure as figures
    from jaxqring.show import _study_tables as tables

    about = "What codes and hardware leave of the factor of two."
    config = _parse(arguments, BudgetConfig(), "budget", about)
    results = run_budget(config, console)
    for table in tables.budget_tables(results):
        console.print(table)
    for path in [config.folder / "budget.json", figures.draw_budget(config.folder, results)]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _sweep(arguments: list[str], console: "Console") -> int:
    from jaxqring.jobs import _sweep_job as sweep_job
    from jaxqring.show import _study_tables as tables
    from jaxqring.show import _sweep_figures as sweep_figures

    about = "Train over and over, on rings whose links differ."
    config = _parse(arguments, sweep_job.SweepConfig(), "sweep", about)
    _offer_cores(config.devices)
    table = sweep_job.run_sweep(config, console)
    console.print(tables.sweep_table(table, f"{config.name}: {config.task.steps} steps"))
    figures = sweep_figures.draw_sweep(config.folder, table)
    for path in [config.folder / "results.csv", *figures]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _sensitivity(arguments: list[str], console: "Console") -> int:
    from jaxqring.jobs import _sensitivity_job as job
    from jaxqring.show import _sensitivity_figure as sensitivity_figures
    from jaxqring.show import _study_tables as tables

    about = "What the physics of each link does to a training."
    config = _parse(arguments, job.SensitivityConfig(), "sensitivity", about)
    _offer_cores(config.devices)
    table = job.run_sensitivity(config, console)
    title = f"{config.name}: {config.task.steps} steps, {config.seeds} seeds, ± standard error"
    console.print(tables.sensitivity_table(table, title))
    figures = [
        sensitivity_figures.draw_sensitivity(config.folder, table, name) for name in config.outcomes
    ]
    for path in [config.folder / "results.csv", *figures]:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _parse(arguments: list[str], default: Config, command: str, about: str) -> Config:
    """A configuration from `--config`, if given, and the flags beside it."""
    import tyro

    kind, flags, path = type(default), [], None
    rest = iter(arguments)
    for word in rest:
        if word == "--config" or word.startswith("--config="):
            path = word[9:] if "=" in word else next(rest, "")
            default = load_config(path, kind)
        else:
            flags.append(word)
    # Read above, wherever it stands, as it has the defaults of the others; here it is listed.
    names = ", ".join(packaged_configs())
    help_config = f"a TOML file, or the name of one that comes with the package: {names}."
    shown = tyro.conf.arg(metavar="FILE|NAME", help=help_config)
    fields: list[Any] = [("config", Annotated[str | None, shown], path)]
    if hasattr(default, "resume"):
        help_restart = "start over, whatever there is of the job: the same as --no-resume."
        switch = tyro.conf.arg(help=help_restart), tyro.conf.FlagCreatePairsOff
        fields.append(("restart", Annotated[bool, *switch], False))
    own: Any = Annotated[kind, tyro.conf.arg(name="")]
    fields.append(("options", own, dataclasses.field(default_factory=lambda: default)))
    call = dataclasses.make_dataclass("Call", fields)
    found: Any = tyro.cli(call, args=flags, prog=f"jaxqring {command}", description=about)
    if getattr(found, "restart", False):
        return dataclasses.replace(found.options, resume=False)
    return found.options


def _offer_host_devices(nodes: int) -> None:
    """Makes `nodes` devices of the host, for machines with fewer accelerators."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", nodes)


def _offer_cores(devices: int | None) -> None:
    """As many devices of the host as it has cores: each carries a training of its own."""
    cores = os.cpu_count() or 1
    _offer_host_devices(min(cores, devices or cores))


if __name__ == "__main__":
    sys.exit(main())
