"""How is a run folder kept on an object store? Workers write to a local folder; what is finished goes to the store,
whole, at once.

Every process has a local copy of what it needs (the processes of one machine share one, for as long as the `run`
lasts). A cell is finished when its row is there, a teacher when its row is there, which is put last. Tasks, progress
and claims go there too, so that `run` commands and engines on machines that share nothing else work on one sweep. So do
checkpoints of groups in training, a little
later than they are made: a group whose machine is lost goes on from the last one. Of logs, those of failed groups.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gaplaw.errors import SweepError
from gaplaw.objects import Mirror, is_url, join, refuse_credentials
from gaplaw.spec import Cell
from gaplaw.sweep.folder.object_claim import Leases
from gaplaw.sweep.folder.run_folder import STORE, RunFolder

SCRATCH = "GAPLAW_SCRATCH"  # the local copy, for workers on the machine of their `run`
REFRESH_SECONDS, PUBLISH_SECONDS = 10.0, 15.0
NEWEST = "newest"  # names the step of a group's newest whole checkpoint
NOT_PULLED = ("locks", "presence", "tasks", "logs", "checkpoints", "checkpoint")


def folder_at(place: Path | str) -> RunFolder:
    """The run folder at a path or a URL. Raises: SweepError when it cannot be used."""
    if str(place).rstrip("/").rpartition("/")[2] == STORE:
        raise SweepError(
            f"{place}: no run folder may be called {STORE!r}, which holds the teachers of the sweeps beside it"
        )
    if not is_url(place):
        return RunFolder(Path(place))
    refuse_credentials(
        str(place), "the store's client finds them in the environment, in its own file or from the machine's role"
    )
    parent, _, name = str(place).rstrip("/").rpartition("/")
    if not name or parent.endswith("/"):
        raise SweepError(f"{place}: a run folder is a folder in a bucket, such as s3://bucket/runs/{name or 'NAME'}")
    given = os.environ.get(SCRATCH)
    if given and Path(given).is_dir():
        root = Path(given)
    else:
        root = Path(tempfile.mkdtemp(prefix="gaplaw-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        RunFolder(root / name).make()
    return Bucket(root / name, Mirror(parent, root))


@dataclass(frozen=True)
class Bucket(RunFolder):
    """A run folder whose truth is under a URL, and whose paths are those of the local copy."""

    mirror: Mirror
    refreshed: list[float] = field(default_factory=lambda: [float("-inf")])

    @property
    def name(self) -> str:
        return join(self.mirror.url, self.out.name)

    @property
    def address(self) -> str:
        return self.name

    @property
    def settings(self) -> dict[str, str]:
        return {SCRATCH: str(self.mirror.root)}

    @cached_property
    def claims(self) -> Leases:
        return Leases(mirror=self.mirror)

    def prepare(self) -> None:
        self.mirror.prove_writable(f"{self.out.name}/probe-{uuid.uuid4().hex[:8]}")
        self.refresh(now=True)

    def refresh(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self.refreshed[0] > REFRESH_SECONDS:
            self.mirror.pull(self.out.name, "store/teachers", but=NOT_PULLED)
            self.refreshed[0] = time.monotonic()

    def publish(self, *paths: Path) -> None:
        self.mirror.push(*paths)

    def publish_missing(self, cells: tuple[Cell, ...]) -> None:
        self.mirror.push_missing(
            *(self.part(part) / f"{cell.id}.parquet" for cell in cells for part in ("curves", "cells"))
        )

    def show(self, log: Path) -> str:
        if not log.exists():  # on the machine of its worker
            return str(log)
        self.publish(log)
        return join(self.mirror.url, self._below(log))

    def withdraw(self, *paths: Path) -> None:
        super().withdraw(*paths)
        self.mirror.remove(*paths)

    def task(self, group_id: str) -> dict | None:
        text = self.mirror.text(f"{self.out.name}/tasks/{group_id}.json")
        return None if text is None else json.loads(text)

    def bring_checkpoint(self, group_id: str) -> None:
        home = self.part("checkpoints") / group_id
        newest = int(self.mirror.text(self._below(home / NEWEST)) or 0)
        if newest > self.checkpoint_step(group_id):
            self._bring(home / str(newest))

    @contextlib.contextmanager
    def publishing(self, group_id: str):
        home, done = self.part("checkpoints") / group_id, threading.Event()
        thread = threading.Thread(target=self._keep_publishing, args=(group_id, home, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _keep_publishing(self, group_id: str, home: Path, done: threading.Event) -> None:
        mirror, put = Mirror(self.mirror.url, self.mirror.root), 0  # of this thread's own
        while not done.wait(PUBLISH_SECONDS):
            # A store may hiccup, and a checkpoint may be replaced while it is read: the next one will do.
            with contextlib.suppress(SweepError, OSError):
                mirror.push(*self.part("progress").glob(f"{group_id}.json"))
                step = self.checkpoint_step(group_id)
                if step > put and self._push_checkpoint(group_id, home / str(step)):
                    mirror.put_text(
                        self._below(home / NEWEST), str(step)
                    )  # last: who reads it finds a whole checkpoint
                    mirror.remove(home / str(put))
                    put = step

    def _push_checkpoint(self, group_id: str, place: Path) -> bool:
        """Push a checkpoint as it is now, however long that takes. Returns: False when it was being replaced."""
        with tempfile.TemporaryDirectory(dir=self.mirror.root) as root:
            kept = Path(root) / self._below(place)
            shutil.copytree(place, kept, copy_function=os.link)
            if self.checkpoint_step(group_id) != int(place.name):
                return False
            Mirror(self.mirror.url, Path(root)).push(kept)
            return True

    def forget_checkpoints(self, group_id: str = "") -> None:
        self.mirror.remove(self.part("checkpoints") / group_id)

    def has_checkpoint(self, entry: Path) -> bool:
        return True  # the row is there, and was put last

    def checkpoint_of(self, entry: Path) -> Path:
        if not (entry / "checkpoint").exists():
            self._bring(entry / "checkpoint")
        return entry / "checkpoint"

    def _bring(self, place: Path) -> None:
        """Copy a folder here, whole or not at all; another process of this machine may do the same."""
        with tempfile.TemporaryDirectory(dir=self.mirror.root) as root:
            own = Mirror(self.mirror.url, Path(root))
            own.pull(self._below(place))
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # the other was faster, or nothing is there
                (own.root / self._below(place)).rename(place)

    def drop_teacher(self, entry: Path) -> None:
        super().drop_teacher(entry)
        shutil.rmtree(entry, ignore_errors=True)
        self.mirror.remove(entry / "cells", entry)

    def _below(self, path: Path) -> str:
        return path.relative_to(self.mirror.root).as_posix()
