"""Nodes that a job has lost with the process that carried them."""

import dataclasses
import json
import math

from jaxqring._files import to_json, write_whole
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_folder import goes_on, losses_path, resume_points
from jaxqring.train._membership import MembershipConfig


def with_losses(config: TrainConfig) -> TrainConfig:
    """The configuration whose runs also lose the nodes that were lost in its folder."""
    if not goes_on(config) or not losses_path(config.folder).exists():
        return config
    losses = json.loads(losses_path(config.folder).read_text())
    runs = tuple(_with(run, config, losses.get(run.name, [])) for run in config.runs)
    return dataclasses.replace(config, runs=runs)


def sizes_ahead(config: TrainConfig) -> list[int]:
    """The numbers of nodes that runs need from here on, largest first; none if all are finished.

    Args:
      config: the job, without losses.
    """
    going = with_losses(config)
    done = resume_points(going) if goes_on(config) else {}
    sizes = {
        len(period.nodes)
        for run in going.runs
        if not math.isinf(done.get(run.name, 0))
        for period in going.periods(run)
        # The last period of a run that lacks nothing but its result is needed for that.
        if period.end > min(done.get(run.name, 0), going.steps - 1)
    }
    return sorted(sizes, reverse=True)


def _with(run: RunConfig, config: TrainConfig, losses: list[dict]) -> RunConfig:
    """The run with losses among its changes; a change says anew which nodes there are."""
    members = tuple(range(config.nodes))
    changes: list[MembershipConfig] = []
    listed = {change.step: change.nodes for change in run.membership}
    for step in sorted({*listed, *(loss["step"] for loss in losses)}):
        lost = {node for loss in losses if loss["step"] == step for node in loss["nodes"]}
        after = tuple(node for node in listed.get(step, members) if node not in lost)
        if after != members:
            changes.append(MembershipConfig(step, after))
            members = after
    return dataclasses.replace(run, membership=tuple(changes))


def lose(config: TrainConfig, rank: int, processes: int) -> tuple[int, ...]:
    """Has the run that is being trained lose the nodes of a process, from its last checkpoint on.

    Before the first checkpoint, or where a configuration may not have the nodes that are left, no
    node is lost.

    Args:
      config: the job, without losses.
      rank: of the process that was lost.
      processes: of the job, which carried equally many nodes.

    Returns:
      The nodes that are lost.
    """
    going, done = with_losses(config), resume_points(config)
    unfinished = [run for run in going.runs if not math.isinf(done[run.name])]
    if not unfinished or not done[unfinished[0].name]:
        return ()
    run, step = unfinished[0], int(done[unfinished[0].name])
    period = next((each for each in going.periods(run) if each.first <= step < each.end), None)
    if period is None:  # all of its steps are done
        return ()
    each = len(period.nodes) // processes
    lost = period.nodes[rank * each : (rank + 1) * each]
    path = losses_path(config.folder)
    losses = json.loads(path.read_text()) if path.exists() else {}
    before = losses.setdefault(run.name, [])
    before.append({"step": step, "nodes": lost})
    try:
        changed = [_with(own, config, losses.get(own.name, [])) for own in config.runs]
        dataclasses.replace(config, runs=tuple(changed))
    except ValueError:
        return ()
    write_whole(path, to_json(losses).encode())
    return lost
