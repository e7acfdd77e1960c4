"""SIGTERM asks a training to stop: it writes a checkpoint, and goes on from there."""

import os
import signal
import threading

import pytest
from launched import children, finished, job, started, wait_for, written

from jaxqring._files import MetricsLog
from jaxqring.jobs import train
from jaxqring.launch import Stopped
from jaxqring.launch._checkpoints import newest
from jaxqring.launch._stopping import STOPPED, caught, stopping


def test_a_job_that_is_asked_to_stop_goes_on_from_the_step_that_it_was_at(tmp_path, monkeypatch):
    _, whole = job(tmp_path / "whole", ["ideal", "noisy"])
    train(whole)
    _, config = job(tmp_path / "other", ["ideal", "noisy"])
    write = MetricsLog.write

    # The lines of a step are written after it was asked for; the second time, a run has ended.
    for last, run, step in ((4, "ideal", 5), (6, "noisy", 1)):

        def asks(log, line, last=last):
            write(log, line)
            if line["step"] == last:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(MetricsLog, "write", asks)
            with pytest.raises(Stopped) as stop:
                train(config)
        assert (stop.value.code, stop.value.where) == (STOPPED, f"{run}, step {step}")
        assert newest(config.folder / "checkpoints" / run) == step
    train(config)
    assert written(config) == written(whole)


def test_the_handler_of_before_is_there_again_and_other_threads_catch_nothing():
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
    assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def elsewhere():
        with caught(seen.append) as event:
            seen.append(event.is_set())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.matrix
@pytest.mark.parametrize("who", ["parent", "child"])
def test_processes_stop_at_a_step_that_they_have_in_common(tmp_path, who):
    _, whole = job(tmp_path / "whole", ["protected"], steps=40)
    train(whole)
    path, config = job(tmp_path / "other", ["protected"], steps=40)
    folder = config.folder / "checkpoints" / "protected"
    with started(path, config, 2) as process:
        wait_for(lambda: (newest(folder) or 0) >= 4, process)
        os.kill(process.pid if who == "parent" else children(process)[1], signal.SIGTERM)
        said, _ = process.communicate(timeout=500)
    assert "stopped on request after protected, step " in said
    if who == "parent":  # which does not start them again
        assert process.returncode == STOPPED
        assert newest(folder) < 40
        with started(path, config, 4) as process:
            finished(process)
    assert process.returncode == 0
    assert written(config) == written(whole)
