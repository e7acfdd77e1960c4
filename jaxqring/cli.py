"""The command line: `train`, `budget`, `sweep`, `sensitivity`, `compression` and `inversion`.

A configuration comes from a TOML file, or by the name of one that comes with the package, and any
value of it can be overridden by a flag:

    jaxqring train --config demo --steps 100 --runs.2.fidelity 0.99
    jaxqring train --config configs/demo.toml --restart
    jaxqring train --config demo --processes 2
    jaxqring budget --config budget --hardware.length 20e3
    jaxqring sweep --config sweep_fidelity --seeds 2 --task.steps 100
    jaxqring sweep --config sweep_fidelity --processes 4
    jaxqring sweep --config sweep_fidelity --shard 2/3
    jaxqring sweep --config sweep_fidelity --merge
    jaxqring sensitivity --config sensitivity --seeds 8
    jaxqring compression --config compression_noise --seeds 2
    jaxqring inversion --config inversion --images 4

`jaxqring COMMAND --help` lists the flags of a command, and `jaxqring --version` prints the version.
"""

import dataclasses
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import jax

import jaxqring
from jaxqring import _checks as checks
from jaxqring._extras import MissingExtraError, needs
from jaxqring.jobs import (
    _budget_job,
    _compression_job,
    _inversion_job,
    _sensitivity_job,
    _sweep_job,
    _training_job,
)
from jaxqring.jobs._load import load_config, packaged_configs
from jaxqring.jobs._security_curves import security_curves
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_folder import (
    check_folder,
    finished_summary,
    forget,
    locked,
    resume_points,
)
from jaxqring.launch._processes import World, initialize, is_first, world
from jaxqring.launch._stopping import STOPPED, Stopped
from jaxqring.launch._supervisor import LEFT, follow_parent, is_child, supervise
from jaxqring.sweeps._points_folder import points_files
from jaxqring.train._placement import check_processes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    #: The tables of a command and the files that it names.
    Output = tuple[list[Table], list[Path]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    Errors are one sentence on the standard error stream: status 2 for a wrong request, 1 for a
    missing package or a file that cannot be read or written, 130 for an interrupt, 143 where
    SIGTERM has asked a training to stop.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except (ValueError, TypeError) as error:
        status = _fail(f"error: {error}", 2)
    except (MissingExtraError, OSError) as error:
        status = _fail(f"error: {error}", 1)
    except Stopped as stop:
        sentence = f"stopped on request after {stop.where}; the same command goes on from there"
        status = _fail(sentence, STOPPED)
    except KeyboardInterrupt:
        status = _fail("interrupted; the same command goes on from the last checkpoint", 130)
    except RuntimeError:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        status = LEFT
    if jax.distributed.is_initialized():
        # At once: on its way out, JAX would wait for processes that wait for this one.
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"jaxqring {jaxqring.__version__}")
        return 0
    with needs("train", "The command line"):
        for package in ("matplotlib", "pydantic", "rich", "tyro"):
            importlib.import_module(package)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    name, *flags = arguments
    if name not in COMMANDS:
        return _fail(f"unknown command {name!r}: choose {', '.join(COMMANDS)}", 2)
    from rich.console import Console

    command, console = COMMANDS[name], Console()
    call = _parse(flags, command.config(), name, command.about)
    config, share = call.options, {}
    if name in SHARDED:
        share = {"shard": _shard(call.shard, world(os.environ)), "merge": call.merge}
        status = _by_processes(arguments, config.folder, call.processes, call.merge, console)
        if status:
            return status
    elif is_child():  # the parent has removed what was to be started over
        config = dataclasses.replace(config, resume=True)
    elif name == "train" and call.processes > 1:
        return _supervised(arguments, config, call.processes, call.elastic, console)
    tables, paths = command.run(config, console, **share)
    for table in tables:
        console.print(table)
    for path in paths:
        _say(console, f"wrote {path}")
    return 0


def _say(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _fail(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


# The modules of `show` are imported late, as they need packages of the extra.


def _train(config: TrainConfig, console: "Console") -> "Output":
    from jaxqring.show import _compression_figures, _security_figure, _tables, _training_figures

    processes = world(os.environ).count
    check_processes(config.mapping, config.nodes, processes)
    if config.mapping != "vmap":
        _offer_host_devices(config.nodes // processes)
    initialize(preemption=True)
    console.quiet = not is_first()
    folder, finished = config.folder, finished_summary(config)
    if finished:
        _say(console, f"{folder} holds this job, finished: --restart starts over")
    summary = finished or _training_job.train(config, console)
    if not is_first():
        return [], []
    compressed = any("compress" in run for run in summary["config"]["runs"])
    paths = []
    if compressed and not (finished and (folder / "compression.png").exists()):
        paths.append(_compression_figures.draw_compression(folder, summary))
    if not compressed or len(summary["runs"]) <= _training_figures.MOST_RUNS:
        only_missing = bool(finished)
        paths += _training_figures.draw_training(folder, summary, only_missing=only_missing)
    if not (finished and (folder / "security.png").exists()):
        curves = security_curves(summary)
        if curves is not None:
            paths.append(_security_figure.draw_security(folder, summary, curves))
    if finished:
        return [], paths
    tables = [(_tables.compression_table if compressed else _tables.summary_table)(summary)]
    if any("security" in run for run in summary["runs"]):
        tables.append(_tables.security_table(summary))
    return tables, [folder / "summary.json", *paths]


def _supervised(
    arguments: list[str], config: TrainConfig, processes: int, elastic: bool, console: "Console"
) -> int:
    """Trains in several processes of this host, again and again until the job is finished."""
    nodes = config.nodes
    check_processes(config.mapping, nodes, processes)
    check_folder(config)

    def fewer(count: int) -> int:
        smaller = [each for each in range(1, count) if nodes % each == 0]
        return smaller[-1] if elastic and smaller else count

    if not config.resume:
        with locked(config.folder):
            forget(config.folder)
    return supervise(
        [sys.executable, "-m", "jaxqring.cli", *arguments],
        processes,
        progress=lambda: resume_points(config),
        fewer=fewer,
        say=lambda line: _say(console, line),
    )


def _by_processes(
    arguments: list[str], folder: Path, processes: int, merge: bool, console: "Console"
) -> int:
    """Has processes of this host compute the points of a shard, again and again until all are done.

    What is left to the parent is to read them.
    """
    if is_child():
        follow_parent()
    elif processes > 1 and not merge:
        return supervise(
            [sys.executable, "-m", "jaxqring.cli", *arguments],
            processes,
            progress=lambda: [file.stat().st_size for file in points_files(folder)],
            say=lambda line: _say(console, line),
        )
    return 0


def _unfinished(folder: Path, table: dict[str, Any], console: "Console") -> bool:
    """True where points are missing, or the parent of this process is to show them."""
    whole = len(next(iter(table.values()))) > 0
    if not (whole or is_child()):
        _say(console, f"this shard is done; {folder} waits for points of others")
    return is_child() or not whole


def _budget(config: _budget_job.BudgetConfig, console: "Console") -> "Output":
    from jaxqring.show import _budget_figure, _tables

    results = _budget_job.run_budget(config, console)
    figure = _budget_figure.draw_budget(config.folder, results)
    return _tables.budget_tables(results), [config.folder / "budget.json", figure]


def _sweep(config: _sweep_job.SweepConfig, console: "Console", **share: Any) -> "Output":
    from jaxqring.show import _sweep_figures, _tables

    _offer_cores(config.devices)
    table = _sweep_job.run_sweep(config, console, **share)
    if _unfinished(config.folder, table, console):
        return [], []
    figures = _sweep_figures.draw_sweep(config.folder, table)
    title = f"{config.name}: {config.task.steps} steps"
    return [_tables.sweep_table(table, title)], [config.folder / "results.csv", *figures]


def _sensitivity(
    config: _sensitivity_job.SensitivityConfig, console: "Console", **share: Any
) -> "Output":
    from jaxqring.show import _sensitivity_figure, _tables

    _offer_cores(config.devices)
    table = _sensitivity_job.run_sensitivity(config, console, **share)
    if _unfinished(config.folder, table, console):
        return [], []
    draw = _sensitivity_figure.draw_sensitivity
    figures = [draw(config.folder, table, name) for name in config.outcomes]
    title = f"{config.name}: {config.task.steps} steps, {config.seeds} seeds, ± standard error"
    return [_tables.sensitivity_table(table, title)], [config.folder / "results.csv", *figures]


def _compression(config: _compression_job.CompressionConfig, console: "Console") -> "Output":
    from jaxqring.show import _compression_figures, _tables

    _offer_cores(config.devices)
    curves = _compression_job.run_compression(config, console)
    figure = _compression_figures.draw_curves(config.folder, config.varied, curves)
    table = _tables.curves_table(config.varied, curves)
    return [table], [config.folder / "summary.json", figure]


def _inversion(config: _inversion_job.InversionConfig, console: "Console") -> "Output":
    from jaxqring.show import _inversion_figures, _tables

    summary = _inversion_job.run_inversion(config, console)
    figures = _inversion_figures.draw_inversion(config, summary)
    return _tables.inversion_tables(summary), [config.folder / "summary.json", *figures]


class Command(NamedTuple):
    """A command: the class of its configuration, its description, and the function that runs it."""

    config: type
    about: str
    run: "Callable[..., Output]"


COMMANDS = {
    "train": Command(TrainConfig, "Train with a classical or a quantum all-reduce.", _train),
    "budget": Command(
        _budget_job.BudgetConfig, "Compute the net rates of codes on hardware.", _budget
    ),
    "sweep": Command(
        _sweep_job.SweepConfig, "Train again and again, on rings whose links differ.", _sweep
    ),
    "sensitivity": Command(
        _sensitivity_job.SensitivityConfig,
        "Differentiate a training by the physics of each link.",
        _sensitivity,
    ),
    "compression": Command(
        _compression_job.CompressionConfig,
        "Train with compressed gradients, over one parameter.",
        _compression,
    ),
    "inversion": Command(
        _inversion_job.InversionConfig,
        "Reconstruct images from gradients that compressors and masks are to hide.",
        _inversion,
    ),
}

#: Commands whose points several processes share.
SHARDED = ("sweep", "sensitivity")


def _parse(arguments: list[str], default: Any, command: str, about: str) -> Any:
    """The flags of a command, by name.

    Returns:
      `options`, the configuration from `--config`, if given, with what the flags beside it change;
      and the flags that are no part of it.
    """
    import tyro

    kind, flags, path = type(default), [], None
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config" or argument.startswith("--config="):
            path = argument[9:] if "=" in argument else next(rest, "")
            default = load_config(path, kind)
        else:
            flags.append(argument)
    # Read above, wherever it stands, as it has the defaults of the others; here it is listed.
    names = ", ".join(packaged_configs())
    help_config = f"a TOML file, or the name of one that comes with the package: {names}."
    shown = tyro.conf.arg(metavar="FILE|NAME", help=help_config)
    fields: list[Any] = [("config", Annotated[str | None, shown], path)]
    if hasattr(default, "resume"):
        help_restart = "start over, whatever there is of the job: the same as --no-resume."
        switch = tyro.conf.arg(help=help_restart), tyro.conf.FlagCreatePairsOff
        fields.append(("restart", Annotated[bool, *switch], False))
    together = {"train": "carry the nodes together, equally many each"}
    together |= dict.fromkeys(SHARDED, "share the points")
    if command in together:
        shown_as = tyro.conf.arg(help=f"of this host that {together[command]}.")
        fields.append(("processes", Annotated[int, shown_as], 1))
    if command in SHARDED:
        help_shard = "the K-th of N shares of the points, counted from 1; others do the rest."
        shown_as = tyro.conf.arg(metavar="K/N", help=help_shard)
        fields.append(("shard", Annotated[str, shown_as], "1/1"))
        help_merge = "compute nothing, and take the points of all shards together."
        switch = tyro.conf.arg(help=help_merge), tyro.conf.FlagCreatePairsOff
        fields.append(("merge", Annotated[bool, *switch], False))
    if command == "train":
        help_elastic = "after the loss of a process, go on with fewer of them, and the same nodes."
        switch = tyro.conf.arg(help=help_elastic), tyro.conf.FlagCreatePairsOff
        fields.append(("elastic", Annotated[bool, *switch], False))
    without_prefix: Any = Annotated[kind, tyro.conf.arg(name="")]
    fields.append(("options", without_prefix, dataclasses.field(default_factory=lambda: default)))
    call = dataclasses.make_dataclass("Call", fields)
    found: Any = tyro.cli(call, args=flags, prog=f"jaxqring {command}", description=about)
    checks.integer("processes", getattr(found, "processes", 1))
    if getattr(found, "restart", False):
        found.options = dataclasses.replace(found.options, resume=False)
    return found


def _shard(text: str, place: World) -> tuple[int, int]:
    """The part of a shard "K/N" that falls to one of the processes of a job."""
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        checks.refuse("shard", "be K/N, the K-th of N shares, with 1 <= K <= N", text)
    # Of every n-th point, every one in so many as there are processes.
    return int(k) + int(n) * place.index, int(n) * place.count


def _offer_host_devices(num_nodes: int) -> None:
    """Makes a device of the host for each node, for machines with fewer accelerators."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", num_nodes)


def _offer_cores(devices: int | None) -> None:
    """Makes a device for each core of this process: each carries a training of its own."""
    allowed = getattr(os, "sched_getaffinity", None)  # fewer than there are, as a scheduler says
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    if is_child():  # all are on one host
        cores = max(1, cores // world(os.environ).count)
    _offer_host_devices(min(cores, devices or cores))


if __name__ == "__main__":
    sys.exit(main())
