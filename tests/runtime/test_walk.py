"""A judged frame crosses few borders between source files: `tests/walk.py` counts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WALK = Path(__file__).resolve().parents[1] / "walk.py"
#: To be lowered with each hop that goes.
MOST = 110


def test_the_walk_of_one_judged_frame_is_short():
    done = subprocess.run([sys.executable, str(WALK)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.splitlines()[-1].partition(" ")[0])
    assert 0 < count <= MOST, done.stdout
