"""Jobs whose nodes leave and join: the same bytes wherever they are cut off and go on."""

import dataclasses
import os
import signal

import jax
import pytest
from launched import children, finished, job, started, wait_for, written
from saved import last_state

from jaxqring._files import to_json
from jaxqring.jobs import TrainConfig, load_config, train
from jaxqring.jobs._training_folder import _identity, checkpoint_path, losses_path
from jaxqring.jobs._training_job import _initial_state
from jaxqring.jobs._training_loop import restored
from jaxqring.jobs._training_losses import lose, sizes_ahead, with_losses
from jaxqring.launch._checkpoints import Checkpoints, newest
from jaxqring.train import _datasets as datasets
from jaxqring.train._membership import MembershipConfig
from jaxqring.train._placement import Placement

CHANGES = (MembershipConfig(2, (0, 2, 3)), MembershipConfig(4, (0, 1, 2, 3)))


def holds(config, *steps):
    """Makes the folder of a job that was cut off after the checkpoint of each run."""
    config.folder.mkdir(parents=True)
    (config.folder / "config.json").write_text(to_json(_identity(config)))
    for run, step in zip(config.runs, steps, strict=False):
        (checkpoint_path(config.folder, run.name) / str(step)).mkdir(parents=True)


class CutError(Exception):
    """The end of a process."""


def changing(folder, runs, changes=CHANGES):
    """A job whose runs change their nodes; those with a compressor keep copies of its memory."""
    path, config = job(folder, runs)
    changed = tuple(
        dataclasses.replace(
            run, membership=changes, memory="neighbour" if run.compress is not None else "fresh"
        )
        for run in config.runs
    )
    return path, dataclasses.replace(config, runs=changed)


def cut_off(config, monkeypatch, at):
    """Trains up to the checkpoint after so many steps."""
    save = Checkpoints.save

    def cut(checkpoints, step, state):
        save(checkpoints, step, state)
        if step == at:
            checkpoints.wait()
            raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", cut)
        with pytest.raises(CutError):
            train(config)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """The configuration, the result and the bytes of a run of 4, 3 and 4 nodes."""
    _, config = changing(tmp_path_factory.mktemp("whole"), ["compressed"])
    (result,) = train(config)["runs"]
    return config, result, written(config)


@pytest.mark.parametrize("at", [2, *(pytest.param(i, marks=pytest.mark.matrix) for i in (3, 4, 5))])
def test_a_run_cut_off_at_or_between_changes_ends_in_the_same_bytes(
    compressed, tmp_path, monkeypatch, at
):
    config, _, whole = compressed
    again = dataclasses.replace(config, out=str(tmp_path), checkpoint_every=1)
    cut_off(again, monkeypatch, at)
    train(again)
    assert written(again) == whole


def test_traffic_is_the_mean_over_the_steps_and_copies_are_counted(compressed):
    config, result, _ = compressed
    (run,) = config.runs
    state, step = last_state(config, "compressed")
    assert step == 6
    params = jax.tree.map(lambda leaf: leaf[0], state["params"])
    four, three = (run.compressor().cost(run.ring(), params, n) for n in (4, 3))
    assert result["online_bits_per_link_step"] == round((4 * four.bits + 2 * three.bits) / 6)
    control = (4 * four.control_bits + 2 * three.control_bits) / 6
    assert result["control_bits_per_link_step"] == round(control)
    # A node's own memory is an error for each of its parameters.
    assert result["copy_bits_per_link_step"] == 32 * result["parameters"]
    sent = 4 * 4 * four.symbols + 2 * 3 * three.symbols
    assert result["symbol_error_rate"] == result["symbol_errors"] / sent > 0


@pytest.mark.matrix
def test_runs_of_every_kind_change_their_nodes_alike_when_cut_off(tmp_path, monkeypatch):
    runs = ["noisy", "protected", "secure"]
    _, whole = changing(tmp_path / "whole", runs)
    results = train(whole)["runs"]
    assert results[1]["parameter_agreement"] == results[2]["parameter_agreement"] == 1
    assert results[2]["security"]["attempts"] == 6
    for run, at in zip(runs, (2, 4, 3), strict=True):
        _, config = changing(tmp_path / run, [run])
        config = dataclasses.replace(config, checkpoint_every=1)
        cut_off(config, monkeypatch, at)
        train(config)
        bytes_of = {name: value for name, value in written(whole).items() if name.startswith(run)}
        assert {k: v for k, v in written(config).items() if k != "metrics"} == bytes_of


def test_a_run_goes_on_without_lost_nodes_as_its_replay_does(tmp_path, monkeypatch):
    _, config = job(tmp_path / "lost", ["compressed"])
    assert lose(config, 1, 2) == ()  # before there is a checkpoint
    cut_off(config, monkeypatch, 2)
    assert sizes_ahead(config) == [4]
    assert lose(config, 1, 2) == (2, 3)
    assert lose(config, 0, 1) == ()  # nobody would be left
    going = with_losses(config)
    assert sizes_ahead(config) == [2]
    replay = (MembershipConfig(2, (0, 1)),)
    assert going.runs[0].membership == replay
    summary = train(config)
    assert summary["config"]["runs"][0]["membership"] == ({"step": 2, "nodes": (0, 1)},)
    _, again = job(tmp_path / "replay", ["compressed"])
    again = dataclasses.replace(
        again, runs=(dataclasses.replace(again.runs[0], membership=replay),)
    )
    train(again)
    assert written(config) == written(again)
    # It starts over with all of them.
    assert with_losses(dataclasses.replace(config, resume=False)).runs[0].membership == ()


def test_processes_need_carry_no_nodes_but_those_that_are_ahead(tmp_path):
    _, config = changing(tmp_path, ["noisy", "ideal"], (MembershipConfig(4, (0, 1, 2, 3, 4, 5)),))
    assert sizes_ahead(config) == [6, 4]
    holds(config, 4, 5)
    assert sizes_ahead(config) == [6]
    # All steps are done, and the result is not: it is that of the last nodes.
    (checkpoint_path(config.folder, "noisy") / "6").mkdir()
    (checkpoint_path(config.folder, "ideal") / "6").mkdir()
    assert sizes_ahead(config) == [6]
    # What is left of a folder that was being cleared counts for nothing.
    (config.folder / "config.json").unlink()
    assert sizes_ahead(config) == [6, 4]
    for run in config.runs:
        (config.folder / "results").mkdir(exist_ok=True)
        (config.folder / "results" / f"{run.name}.json").write_text("{}")
    (config.folder / "config.json").write_text(to_json(_identity(config)))
    assert sizes_ahead(config) == []


def test_processes_that_cannot_carry_the_nodes_of_a_checkpoint_read_the_whole_of_it(
    tmp_path, monkeypatch
):
    _, config = changing(tmp_path, ["ideal"], (MembershipConfig(2, (0, 2)),))
    cut_off(config, monkeypatch, 2)
    (run,) = config.runs
    initial = _initial_state(run, config, datasets.load(config.data))
    two = Placement("shard_map", tuple(jax.devices()[:2]), 2, processes=2)
    checkpoints = Checkpoints(checkpoint_path(config.folder, "ideal"))
    point = restored(run, config, initial, two, checkpoints)
    assert point.done == 2
    assert {leaf.shape[0] for leaf in jax.tree.leaves(point.state.params)} == {4}
    assert two.of(2) == two


def test_a_listed_change_says_anew_which_nodes_there_are(tmp_path):
    _, config = changing(tmp_path, ["noisy"])
    holds(config)
    losses_path(config.folder).write_text(
        '{"noisy": [{"step": 1, "nodes": [1]}, {"step": 4, "nodes": [0, 3]}]}'
    )
    # The change at step 2 changes nothing any more.
    assert with_losses(config).runs[0].membership == (
        MembershipConfig(1, (0, 2, 3)),
        MembershipConfig(4, (1, 2)),
    )


@pytest.mark.matrix
def test_eight_six_and_eight_nodes_over_two_processes_are_those_of_one(tmp_path):
    changes = "membership = [{step = 2, nodes = [0, 1, 3, 4, 6, 7]}, {step = 4, nodes = %s}]"
    found = []
    for processes in (1, 2):
        path, _ = job(tmp_path / str(processes), ["noisy"])
        lines = path.read_text().replace("nodes = 4", "nodes = 8")
        begin = 'name = "noisy"\n'
        path.write_text(lines.replace(begin, begin + changes % list(range(8)) + "\n"))
        config = dataclasses.replace(load_config(path, TrainConfig), out=str(path.parent))
        assert config.sizes(config.runs[0]) == (8, 6, 8)
        with started(path, config, processes) as process:
            finished(process)
        found.append(written(config))
    assert found[0] == found[1]


@pytest.mark.matrix
@pytest.mark.parametrize("flag", ["--elastic", "--lose-nodes"])
def test_a_job_that_lost_a_process_goes_on_with_fewer(tmp_path, flag):
    path, config = job(tmp_path / "lost", ["protected"], steps=40)
    folder = config.folder / "checkpoints" / "protected"
    with started(path, config, 2, flag) as process:
        assert wait_for(lambda: (newest(folder) or 0) >= 4, process)
        os.kill(children(process)[1], signal.SIGKILL)
        said = finished(process)
    assert "one process starts again, from the last checkpoint" in said
    _, whole = job(tmp_path / "whole", ["protected"], steps=40)
    if flag == "--lose-nodes":
        assert "the nodes 2, 3 are lost, and the run goes on without them" in said
        whole = dataclasses.replace(whole, runs=with_losses(config).runs)
        assert whole.runs[0].membership
    train(whole)
    assert written(config) == written(whole)
