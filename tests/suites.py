"""Tests of other rooms over several processes, for the tests of `launch`."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from jaxqring.launch._supervisor import _free_port


def suite(folder, processes, *selected, seconds=500):
    """Runs tests in several processes at once, which carry the nodes of mappings together.

    Args:
      folder: for what they print.
      processes: their number.
      selected: arguments of pytest.
      seconds: after which they are ended.
    """
    found = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider"]
    outputs = [folder / str(rank) for rank in range(processes)]
    with contextlib.ExitStack() as stack:
        children = []
        for rank, output in enumerate(outputs):
            own = {name: str(value) for name, value in {**found, "RANK": rank}.items()}
            child = subprocess.Popen(
                [*command, "-p", "no:xdist", *selected],
                cwd=Path(__file__).parent.parent,
                env=os.environ | own,
                stdout=stack.enter_context(output.open("w")),
                stderr=subprocess.STDOUT,
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            children.append(child)
        end = time.monotonic() + seconds
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(end - time.monotonic())
        statuses = [child.poll() for child in children]
    assert statuses == [0] * processes, "\n".join(output.read_text() for output in outputs)
