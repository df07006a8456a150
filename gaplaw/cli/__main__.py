"""`python -m gaplaw.cli`: the console script `gaplaw`, for where it is not installed."""

import sys

from gaplaw.cli import main

sys.exit(main())
