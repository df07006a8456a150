"""Has the kernel killed a worker for want of memory? Linux counts such kills, for a control group or for the whole
machine.
"""

from __future__ import annotations

from pathlib import Path


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for want of memory in our control group, else on this machine; None if
    unknown.
    """
    for path in (*_of_our_group(root), root / "proc/vmstat"):
        try:
            counts = dict(line.split()[:2] for line in path.read_text().splitlines() if len(line.split()) >= 2)
        except OSError:
            continue
        if counts.get("oom_kill", "").isdigit():
            return int(counts["oom_kill"])
    return None


def _of_our_group(root: Path) -> list[Path]:
    """The counters of this process's control group, of version 2 and 1; where only the own group is seen, at the
    top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        below = dict.fromkeys((path.strip("/"), ""))  # in a container the path may be that of another view
        if not kinds:
            found += [root / "sys/fs/cgroup" / part / "memory.events" for part in below]
        elif "memory" in kinds.split(","):
            found += [root / "sys/fs/cgroup/memory" / part / "memory.oom_control" for part in below]
    return found


class KernelKills:
    """Tells, of workers that ended by SIGKILL, which ones the kernel probably killed: each of its kills explains
    one.
    """

    def __init__(self, count=oom_kills):
        self._count = count
        self._explained = 0

    def so_far(self) -> int:
        return self._count() or 0

    def explain(self, since: int) -> bool:
        """Whether the kernel has killed one more than was explained. since: `so_far` when the worker started."""
        before = max(self._explained, since)
        if self.so_far() <= before:
            return False
        self._explained = before + 1
        return True
