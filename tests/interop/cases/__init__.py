"""What is tried. A case is a name and a function of the `Bench`; it raises Failed or Skipped."""

import os
import re
from dataclasses import dataclass
from typing import Callable

from harness.install import Tools
from harness.tracker import Tracker


@dataclass(frozen=True)
class Bench:
    """What every case works on: the tracker, the clients, and a directory for the run."""

    tracker: Tracker
    tools: Tools
    directory: str

    def room(self, name):
        """A new directory of one case."""
        path = os.path.join(self.directory, re.sub(r"[^\w.]+", "-", name))
        os.makedirs(path)
        return path


@dataclass(frozen=True)
class Case:
    """One line of the run's output."""

    name: str
    run: Callable[[Bench], None]
