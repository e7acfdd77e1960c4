"""The flags of the command line: those of a configuration, and those that say how it is run."""

import dataclasses
from typing import Annotated, Any, NamedTuple, TypeVar

from jaxqring import _checks as checks
from jaxqring.jobs._load import load_config, packaged_configs
from jaxqring.launch import World

Config = TypeVar("Config")

#: Commands whose points several processes share.
SHARDED = ("sweep", "sensitivity")


class Flags(NamedTuple):
    """The flags of a command that are not fields of its configuration.

    Attributes:
      processes: of this host, started by a parent.
      elastic: with fewer processes after the loss of one.
      lose_nodes: without its nodes after the loss of a process.
      shard: "K/N" of a sweep.
      merge: the shards of a sweep, without computing.
      tensorboard: has the metrics of a training written for TensorBoard, too.
    """

    processes: int = 1
    elastic: bool = False
    lose_nodes: bool = False
    shard: str = "1/1"
    merge: bool = False
    tensorboard: bool = False


def parse(
    arguments: list[str], default: Config, command: str, about: str
) -> "tuple[Config, Flags]":
    """A configuration from `--config` and the flags of its fields, and the other flags."""
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
        help_lose = "after the loss of a process, go on without the nodes that it carried."
        help_board = "write the metrics for TensorBoard, too, to `tensorboard` in the job's folder."
        switches = {"elastic": help_elastic, "lose_nodes": help_lose, "tensorboard": help_board}
        for name, text in switches.items():
            switch = tyro.conf.arg(help=text), tyro.conf.FlagCreatePairsOff
            fields.append((name, Annotated[bool, *switch], False))
    without_prefix: Any = Annotated[kind, tyro.conf.arg(name="")]
    fields.append(("options", without_prefix, dataclasses.field(default_factory=lambda: default)))
    call = dataclasses.make_dataclass("Call", fields)
    found: Any = tyro.cli(call, args=flags, prog=f"jaxqring {command}", description=about)
    given = {name: getattr(found, name) for name in Flags._fields if hasattr(found, name)}
    checks.integer("processes", given.get("processes", 1))
    config = found.options
    if getattr(found, "restart", False):
        config = dataclasses.replace(config, resume=False)
    return config, Flags(**given)


def shard_of(text: str, place: World) -> tuple[int, int]:
    """The part of a shard "K/N" that falls to one of the processes of a job."""
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        checks.refuse("shard", "be K/N, the K-th of N shares, with 1 <= K <= N", text)
    # Of every n-th point, every one in so many as there are processes.
    return int(k) + int(n) * place.index, int(n) * place.count
