"""The devices of a job."""

import jax

from jaxqring import _checks as checks


def used_devices(count: int | None) -> list[jax.Device]:
    """The first `count` of the local devices; all of them for None.

    Raises:
      ValueError: if there are fewer.
    """
    devices = jax.local_devices()
    if count is not None and count > len(devices):
        checks.refuse("devices", f"be at most the {len(devices)} there are", count)
    return devices[:count]
