"""The cases. A case is a name and a function of the `Bench` that raises Failed or Skipped."""

import os
import re
from dataclasses import dataclass
from typing import Callable

from harness.install import Tools
from harness.tracker import Tracker


@dataclass(frozen=True)
class Bench:
    """The environment of every case: the tracker, the clients, and a directory for the run."""

    tracker: Tracker
    tools: Tools
    directory: str

    def room(self, name):
        """A new directory for one case."""
        path = os.path.join(self.directory, re.sub(r"[^\w.]+", "-", name))
        os.makedirs(path)
        return path


@dataclass(frozen=True)
class Case:
    """A case: one line in the output of a run."""

    name: str
    run: Callable[[Bench], None]
