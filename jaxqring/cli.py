"""The command line: `train`, `budget`, `sweep`, `sensitivity`, `compression` and others.

A configuration comes from a TOML file, or by the name of one that comes with the package, and any
value of it can be overridden by a flag:

    jaxqring train --config demo --steps 100 --runs.2.fidelity 0.99
    jaxqring train --config configs/demo.toml --restart
    jaxqring train --config demo --processes 2
    jaxqring train --config demo --tensorboard
    jaxqring budget --config budget --hardware.length 20e3
    jaxqring sweep --config sweep_fidelity --seeds 2 --task.steps 100
    jaxqring sweep --config sweep_fidelity --processes 4
    jaxqring sweep --config sweep_fidelity --shard 2/3
    jaxqring sweep --config sweep_fidelity --merge
    jaxqring sensitivity --config sensitivity --seeds 8
    jaxqring compression --config compression_noise --seeds 2
    jaxqring inversion --config inversion --images 4
    jaxqring outer --config outer --seeds 1
    jaxqring robust --config robust --seeds 1
    jaxqring reproduce --list
    jaxqring reproduce --quick
    jaxqring reproduce gap-ip tie-audit

`jaxqring COMMAND --help` lists the flags of a command, and `jaxqring --version` prints the version.
"""

import dataclasses
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import jaxqring
from jaxqring import _checks as checks
from jaxqring._commands import COMMANDS
from jaxqring._commands import say as _say
from jaxqring._extras import MissingExtraError, needs
from jaxqring._files import locked
from jaxqring.claims import CLAIMS
from jaxqring.jobs._flags import SHARDED, Flags, parse, shard_of
from jaxqring.jobs._on_step import tensorboard
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_folder import check_folder, forget, resume_points
from jaxqring.jobs._training_losses import lose, sizes_ahead
from jaxqring.launch._processes import world
from jaxqring.launch._stopping import STOPPED, Stopped
from jaxqring.launch._supervisor import LEFT, follow_parent, is_child, supervise
from jaxqring.sweeps._points_folder import points_files
from jaxqring.train._placement import check_processes

if TYPE_CHECKING:
    from rich.console import Console


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
        sentence = f"stopped on request after {stop.where}; {_again(arguments)} goes on from there"
        status = _fail(sentence, STOPPED)
    except KeyboardInterrupt:
        status = _fail(f"interrupted; {_again(arguments)} goes on from the last checkpoint", 130)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        status = LEFT
    if jax.distributed.is_initialized():
        # At once: on its way out, JAX would wait for processes that wait for this one.
        sys.stderr.flush()
        os._exit(status)
    return status


def _again(arguments: list[str]) -> str:
    restarts = {"--restart", "--no-resume"}.intersection(arguments)
    return "the same command" + "".join(f" without {flag}" for flag in sorted(restarts))


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
    config, switches = parse(flags, command.config(), name, command.about)
    share: dict[str, Any] = {}
    if switches.list:
        for claim in CLAIMS.values():
            _say(console, f"{claim.name:24} {claim.title} ({claim.source})")
        return 0
    if name in SHARDED:
        shard, merge = shard_of(switches.shard, world(os.environ)), switches.merge
        share = {"shard": shard, "merge": merge}
        status = _by_processes(arguments, config.folder, switches.processes, merge, console)
        if status:
            return status
    elif (switches.elastic or switches.lose_nodes) and switches.processes == 1:
        rule = "be at least 2 with --elastic or --lose-nodes"
        checks.refuse("processes", rule, switches.processes)
    elif is_child():  # the parent has removed what was to be started over
        config = dataclasses.replace(config, resume=True)
    elif switches.processes > 1:
        return _supervised(arguments, config, switches, console)
    if name == "train" and switches.tensorboard:
        share = {"on_step": tensorboard(config.folder / "tensorboard")}
    tables, paths = command.run(config, console, **share)
    for table in tables:
        console.print(table)
    for path in paths:
        beside = f" and {path.stem}.svg" if path.suffix == ".png" else ""
        _say(console, f"wrote {path}{beside}")
    return 0


def _fail(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status


def _supervised(
    arguments: list[str], config: TrainConfig, flags: "Flags", console: "Console"
) -> int:
    """Trains in several processes of this host, again and again until the job is finished."""
    check_folder(config)
    for nodes in sizes_ahead(config):
        check_processes(config.mapping, nodes, flags.processes)

    def after(rank: int, processes: int) -> int:
        if flags.lose_nodes and (lost := lose(config, rank, processes)):
            nodes = ", ".join(map(str, lost))
            _say(console, f"the nodes {nodes} are lost, and the run goes on without them")
        elif not flags.elastic:
            return processes
        ahead = sizes_ahead(config)
        fewer = [each for each in range(1, processes) if not any(n % each for n in ahead)]
        return max(fewer, default=processes)

    if not config.resume:
        with locked(config.folder):
            forget(config.folder)
        config = dataclasses.replace(config, resume=True)
    return supervise(
        [sys.executable, "-m", "jaxqring.cli", *arguments],
        flags.processes,
        progress=lambda: resume_points(config),
        after=after,
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


if __name__ == "__main__":
    sys.exit(main())
