"""The figures and the page of a run, for whoever works in the clone: `gaplaw.report` under the name of this folder.

The code is in gaplaw/report, because that is what is installed; nothing in gaplaw imports this folder.
"""

from gaplaw.report import *  # noqa: F403
from gaplaw.report import __all__ as __all__
