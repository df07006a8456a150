"""A real worker process whose training is the stand-in's: `python -m tests.sweep.running.stand_in_worker OUT
GROUP_ID`.
"""

import os
import sys

from gaplaw.sweep.running import worker
from tests.sweep.sweeps import StandIn

if __name__ == "__main__":
    worker._run_task = StandIn(seconds=float(os.environ.get("GAPLAW_STAND_IN_SECONDS", "0.2"))).task
    sys.exit(worker.main(*sys.argv[1:]))
