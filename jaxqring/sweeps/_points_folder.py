"""The folder of a sweep, which several processes may fill at once, each with its shard."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxqring import _checks as checks
from jaxqring._files import lock, number, to_json, write_whole
from jaxqring.sweeps._points import Found, Points

_SAME = "be empty or hold the same sweep"
_POINTS = re.compile(r"points(\.\d+-of-\d+)?\.jsonl")


def points_files(folder: Path) -> list[Path]:
    """The files with points of a folder, which need not exist: of every shard of every split."""
    there = folder.iterdir() if folder.exists() else ()
    return sorted(file for file in there if _POINTS.fullmatch(file.name))


class PointsFolder:
    """The files of a sweep: `sweep.json`, `points.jsonl` and, at its end, `results.csv`.

    Shard k of n appends to `points.k-of-n.jsonl`, a file that no other process may have meanwhile.
    All read the points of all, whatever the split: a point that is done is done for everyone.

    Args:
      path: of the folder, which need not exist; None for no files.
      points: of the sweep.
      about: whatever else tells it from others, as JSON.
      platform: of the devices, "cpu" or another; None where nothing is computed.
      shard: (k, n).

    Raises:
      ValueError: if the folder holds another sweep.
    """

    def __init__(
        self,
        path: str | Path | None,
        points: Points,
        about: Any = None,
        platform: str | None = None,
        shard: tuple[int, int] = (1, 1),
    ) -> None:
        self.path = None if path is None else Path(path)
        self._points = points
        self._what: dict[str, Any] = {
            "about": about,
            "names": points.names,
            "settings": points.settings,
            "seeds": points.seeds,
            "static": points.static,
        }
        if platform is not None:
            # The bits of a result are those of one version on one kind of device.
            self._what |= {"jax": jax.__version__, "platform": platform}
        self._name = "points.jsonl" if shard == (1, 1) else "points.{}-of-{}.jsonl".format(*shard)
        self._file: int | None = None
        self._sizes = 0, 0  # of the own file: its bytes when it was read, those of whole lines
        self.kinds = self._check()

    def _check(self) -> dict[str, str] | None:
        """The outcomes of the sweep that the folder holds, if it is this one."""
        if self.path is None or not self.path.exists():
            return None
        # In one look: another shard may be writing its first files.
        there = {file.name for file in self.path.iterdir()}
        if "sweep.json" not in there:
            for name in sorted(there):
                if name == "results.csv" or _POINTS.fullmatch(name):
                    checks.refuse("folder", _SAME, f"{self.path} with {name} alone")
            return None
        held = json.loads((self.path / "sweep.json").read_text())
        for name, value in json.loads(_line(self._what)).items():
            if held.get(name) != value:
                checks.refuse("folder", _SAME, f"{self.path} with other {name}")
        return held["outcomes"]

    def read(self) -> Found:
        """Reads the outcomes of earlier runs and of other shards.

        Raises:
          ValueError: if a point stands there twice, or is that of another sweep.
        """
        found: Found = {}
        files: dict[int, str] = {}
        paths = [] if self.path is None else points_files(self.path)
        self.kinds = self._check()  # after that look: where there are points, there is the marker
        for path in paths:
            content = path.read_bytes()
            whole = 0
            for line in content.split(b"\n")[:-1]:
                try:
                    entry = json.loads(line)
                except ValueError:  # the disk lost power, say
                    break
                whole += len(line) + 1
                point = self._point(entry, path)
                if point in found:
                    got = f"{self.in_words(point)} in {files[point]} and {path.name}"
                    checks.refuse("folder", "hold each point once", f"{self.path} with {got}")
                found[point] = {n: number(v) for n, v in entry["outcomes"].items()}
                files[point] = path.name
            if path.name == self._name:
                self._sizes = len(content), whole
        return found

    def _point(self, entry: dict[str, Any], file: Path) -> int:
        """The number of a point, which is one of this sweep."""
        point = entry["point"]
        at = json.loads(_line(self._points.at(point))) if point < len(self._points) else None
        if entry["at"] != at or set(entry["outcomes"]) != set(self.kinds or ()):
            checks.refuse("folder", _SAME, f"{file} with another point {point}")
        return point

    def in_words(self, point: int) -> str:
        """The number, the setting and the seed of a point."""
        values = [f"{name} = {value}" for name, value in self._points.at(point).items()]
        return f"point {point} ({', '.join(values)})"

    def hold(self, *, new: bool = False) -> None:
        """Takes the points of this shard, if there are any, for this process alone, until `close`.

        Cuts the file where a line is cut short.

        Args:
          new: makes the file where there is none.

        Raises:
          ValueError: if another process has them, or has had them since they were read.
        """
        if self.path is None or self._file is not None:
            return
        path = self.path / self._name
        try:
            flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT if new else 0)
            self._file = os.open(path, flags, 0o666)
        except FileNotFoundError:
            return
        size, whole = self._sizes
        if not lock(self._file) or os.fstat(self._file).st_size != size:
            checks.refuse("folder", "be one in which no other process works on this shard", path)
        os.ftruncate(self._file, whole)

    def begin(self, kinds: dict[str, str]) -> None:
        """Writes `sweep.json`, now that the outcomes are known, and makes the file for the points.

        Raises:
          ValueError: if the folder holds a sweep with other outcomes, or as `hold` does.
        """
        if self.path is None:
            return
        self.kinds = self._check()  # another shard may have begun
        if self.kinds is None:
            marker = _line({**self._what, "outcomes": kinds}).encode()
            write_whole(self.path / "sweep.json", marker, alone=False)
            self.kinds = kinds
        elif self.kinds != kinds:
            checks.refuse("folder", _SAME, f"{self.path} with outcomes {self.kinds}")
        self.hold(new=True)

    def append(self, found: Found) -> None:
        """Adds points with a single write, and waits until the disk has them."""
        if self._file is None:
            return
        text = "".join(self._lines(found)).encode()
        if os.write(self._file, text) < len(text):
            raise OSError(f"{self._name} could not be written: disk full")
        os.fsync(self._file)

    def _lines(self, found: Found) -> Iterator[str]:
        for point, outcomes in found.items():
            yield _line({"point": point, "at": self._points.at(point), "outcomes": outcomes})

    def finish(self, table: Mapping[str, np.ndarray]) -> None:
        """Writes the table as `results.csv`, whole; numbers as Python would read them back."""
        if self.path is None:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
        # Two shards that end at once write the same bytes.
        write_whole(self.path / "results.csv", text.getvalue().encode(), alone=False)

    def close(self) -> None:
        """Leaves the points of this shard to others."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _line(value: Any) -> str:
    """A line of JSON, in which static values that JSON does not know stand as their `repr`."""
    return to_json(value, default=repr) + "\n"
