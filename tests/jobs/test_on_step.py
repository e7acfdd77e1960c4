"""The event files of TensorBoard say what the metrics say, and a run that goes on says so."""

import math
import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxqring.jobs import tensorboard


def events(folder):
    """Every event of the files of a run, in the order in which they were written."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])  # then 4 bytes of checksum, as after it
            event = Event()
            event.ParseFromString(content[12 : 12 + size])
            yield event
            content = content[16 + size :]


def shown(folder):
    """The values that TensorBoard shows: a session's begin removes what it computes again."""
    found = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = {(tag, step): x for (tag, step), x in found.items() if step < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value.simple_value
    return found


def test_every_number_is_in_the_file_when_the_function_returns(tmp_path):
    on_step = tensorboard(tmp_path)
    on_step("ideal", 1, {"loss": 2.5, "symbol_errors": 3.0})
    assert shown(tmp_path / "ideal") == {("loss", 1): 2.5, ("symbol_errors", 1): 3.0}
    on_step("ideal", 2, {"loss": 0.5, "test_accuracy": 0.75})
    on_step("noisy", 1, {"loss": math.inf})
    assert shown(tmp_path / "ideal") == {
        **{("loss", 1): 2.5, ("symbol_errors", 1): 3.0},
        **{("loss", 2): 0.5, ("test_accuracy", 2): 0.75},
    }
    assert shown(tmp_path / "noisy") == {("loss", 1): math.inf}


def test_a_run_that_goes_on_takes_the_place_of_what_it_computes_again(tmp_path):
    first = tensorboard(tmp_path)
    for step in (1, 2, 3, 4):
        first("ideal", step, {"loss": 1 / step})
    again = tensorboard(tmp_path)  # from a checkpoint after step 2
    for step in (3, 4, 5):
        again("ideal", step, {"loss": 2.0**-step})
    losses = [1, 0.5, 0.125, 0.0625, 0.03125]
    assert shown(tmp_path / "ideal") == {("loss", step + 1): x for step, x in enumerate(losses)}
