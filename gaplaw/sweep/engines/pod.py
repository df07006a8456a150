"""How does one `gaplaw run` on every host become one sweep? The hosts call the roll; number 0 leads, the others follow
it.

The leader runs the sweep as always; for each attempt at a group it leaves a notice in the shared folder and starts its
own worker. A follower watches that notice and starts, or stops, its own worker. JAX joins the workers of one attempt;
they end with it, so that a lost process costs an attempt, not the sweep.

    OUT/pods/<token>/            the leader's claim: its heartbeat says that it lives, its end that the sweep has ended
    OUT/pods/<token>.json        {"attempt", "group"}: what to run now; group null: nothing
    OUT/pods/<token>.lost.json   {"attempt", "code", "ending", "log"}: a follower's worker that ended badly
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gaplaw.canonical import from_dict, to_dict
from gaplaw.errors import GaplawError, SweepError
from gaplaw.files import read_json, write_json
from gaplaw.objects import is_url
from gaplaw.spec import Execution
from gaplaw.sweep.engines.engine import FOLLOWING, how_it_ended, worker_settings
from gaplaw.sweep.engines.local import LocalExecutor, LocalProcesses, meeting
from gaplaw.sweep.folder.claim import Heartbeat
from gaplaw.sweep.folder.owner import EXPIRY_SECONDS
from gaplaw.sweep.folder.run_folder import RunFolder

LOOK_SECONDS = 0.5
SEEN_SECONDS = 60.0  # for a file of another host to appear on a network file system


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One run on several hosts, as one of them sees it. `number` is this host's; `token` names the run."""

    folder: RunFolder
    execution: Execution
    number: int
    token: str

    @property
    def place(self) -> Path:
        """Of the leader's claim."""
        return self.folder.part("pods") / self.token

    def file(self, ending: str) -> Path:
        return self.folder.part("pods") / f"{self.token}{ending}"


def call_roll(folder: RunFolder, execution: Execution) -> Pod:
    """Meet the other hosts once, in a process of its own, before anything is started.

    Raises: SweepError in one line when hosts are missing or too many, or do not share the run folder.
    """
    folder.make()
    (folder.part("pods")).mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "gaplaw.sweep.engines.pod",
        str(folder.out.absolute()),
        json.dumps(to_dict(execution)),
    ]
    settings = worker_settings(execution, folder) | meeting(execution, 0)
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip().splitlines() or [""]
        raise SweepError(f"the hosts did not meet: {how_it_ended(done.returncode)}: {said[-1][:300]}") from None
    if "error" in told:
        raise SweepError(told["error"])
    return Pod(folder=folder, execution=execution, **told)


def _answer_roll(out: str, execution: Execution) -> dict:
    """What the process of `call_roll` does: join, agree on a token, and see whether all see one folder."""

    def give_up(error: str) -> None:
        print(json.dumps({"error": error}), flush=True)
        os._exit(1)

    from gaplaw.train.hosts import agree, connect

    number = connect(execution, give_up)
    token = agree(uuid.uuid4().hex[:8])
    seen = Path(out) / "pods" / f"{token}.json"
    if number == 0:
        write_json(seen, {"attempt": 0, "group": None})
    agree("written")
    end = time.monotonic() + SEEN_SECONDS
    while not seen.exists():
        if time.monotonic() > end:
            raise SweepError(f"{out}: not the folder that host 0 sees; the hosts must share the run folder")
        time.sleep(LOOK_SECONDS)
    return {"number": number, "token": token}


@contextlib.contextmanager
def joined(folder: RunFolder, execution: Execution) -> Iterator[LeadingExecutor | None]:
    """The engine of the host that leads; on leaving, the followers end. None on a follower, after the sweep.

    Raises: as `call_roll` and `follow`.
    """
    if is_url(folder.address):
        raise SweepError(
            f"{folder.name}: an object store; under hosts.launch = everywhere the hosts must share a folder, such "
            "as the same "
            "bucket mounted as a file system"
        )
    pod = call_roll(folder, execution)
    if pod.number:
        follow(pod)
        yield None
        return
    with Heartbeat() as heartbeat:
        heartbeat.keep(pod.folder.claims.claim(pod.place))
        try:
            yield LeadingExecutor(pod=pod)
        finally:
            for ending in (".json", ".lost.json"):
                pod.file(ending).unlink(missing_ok=True)


@dataclass(kw_only=True)
class LeadingExecutor:
    """Starts a group's first process here and leaves the notice by which every follower starts another."""

    pod: Pod
    attempt: int = 0
    local: LocalExecutor = field(default_factory=LocalExecutor)

    def prepare(self, execution: Execution) -> str:
        """The roll has been called."""
        return f"{execution.hosts.processes} hosts; this one leads"

    def start(self, folder: RunFolder, group_id: str, execution: Execution) -> _Led:
        self.attempt += 1
        write_json(self.pod.file(".json"), {"attempt": self.attempt, "group": group_id})
        return _Led(pod=self.pod, attempt=self.attempt, own=self.local.start(folder, group_id, execution))


@dataclass(kw_only=True)
class _Led:
    """One attempt at a group on all hosts, as the leader sees it. `lost` is what a follower told of its worker's bad
    end.
    """

    pod: Pod
    attempt: int
    own: LocalProcesses
    lost: dict = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return Path(self.lost.get("log") or self.own.log)

    def poll(self) -> int | None:
        code, told = self.own.poll(), read_json(self.pod.file(".lost.json")) or {}
        if code in (None, *FOLLOWING) and told.get("attempt") == self.attempt:
            self.lost, code = told, told["code"]
        if code:
            self.stop()
        return code

    def ending(self) -> str:
        return self.lost.get("ending") or self.own.ending()

    def stop(self) -> None:
        write_json(self.pod.file(".json"), {"attempt": self.attempt, "group": None})
        self.own.stop()


def follow(pod: Pod) -> None:
    """Run this host's process of every group, until the leader ends.

    Raises: SweepError when the leader is gone without a word.
    """
    local, attempt, running = LocalExecutor(first=pod.number), 0, None
    end = time.monotonic() + EXPIRY_SECONDS
    try:
        while _leader_lives(pod, begun=time.monotonic() > end):
            notice = read_json(pod.file(".json")) or {"attempt": attempt, "group": None}
            if running and (notice["attempt"] != attempt or notice["group"] is None):
                running = running.stop()
            if notice["group"] and notice["attempt"] > attempt:
                attempt = notice["attempt"]
                running = local.start(pod.folder, notice["group"], pod.execution)
            code = running.poll() if running else None
            if code:
                lost = {"attempt": attempt, "code": code, "ending": f"on host {pod.number}: {running.ending()}"}
                write_json(pod.file(".lost.json"), lost | {"log": str(running.log)})
            if code is not None:
                running = None
            time.sleep(LOOK_SECONDS)
    finally:
        if running:
            running.stop()


def _leader_lives(pod: Pod, begun: bool) -> bool:
    """False when the leader has ended in order. begun: whether it must have claimed its place by now."""
    if pod.folder.claims.look(pod.place) is None and not (begun and pod.file(".json").exists()):
        return pod.file(".json").exists()
    taken = pod.folder.claims.claim(pod.place)
    if taken is None:
        return True
    taken.release()
    raise SweepError(f"{pod.folder.out}: host 0 has not been heard of for {EXPIRY_SECONDS:.0f} s; this host stops, too")


if __name__ == "__main__":
    try:
        print(json.dumps(_answer_roll(sys.argv[1], from_dict(Execution, json.loads(sys.argv[2])))), flush=True)
    except GaplawError as refusal:
        print(json.dumps({"error": str(refusal)}), flush=True)
        os._exit(refusal.exit_code)
