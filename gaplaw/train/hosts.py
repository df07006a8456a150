"""How do several processes become one machine? They meet at process 0's address; then every device is part of one mesh.

A group of several processes runs the same program in each: all call the same collectives in the same order, each makes
only its own rows of a batch, and process 0 alone writes results. Nothing here is needed by one process.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

from gaplaw.errors import SpecError
from gaplaw.spec import Execution

# Set by whoever starts a process that cannot find the others by itself.
COORDINATOR, PROCESS_ID = "GAPLAW_COORDINATOR", "GAPLAW_PROCESS_ID"
COMPILE_SECONDS = 3600
LAST_WORD_SECONDS = 3
SPARE_SECONDS = 30  # JAX ends a process that waits in vain without a word to people; ours comes first


def connect(execution: Execution, give_up: Callable[[str], None]) -> int:
    """Join the other processes of the group. Returns: this process's number, 0 for the one that writes.

    Args:
      give_up: called from another thread with one line when the others do not come; must end the process.
    Raises: SpecError when there are more or fewer processes or devices than the plan says.
    """
    hosts = execution.hosts
    if hosts.processes == 1:
        return 0
    import jax

    address, explicit = os.environ.get(COORDINATOR), {}
    if address:
        explicit = {"coordinator_address": address, "num_processes": hosts.processes}
        explicit["process_id"] = int(os.environ[PROCESS_ID])
    wait = hosts.initialization_timeout_seconds
    missing = (
        f"Execution.hosts.processes = {hosts.processes}: not so many came {f'to {address} ' if address else ''}within "
        f"{wait} s (Execution.hosts.initialization_timeout_seconds)"
    )
    patience = threading.Timer(wait, give_up, [missing])
    patience.daemon = True
    patience.start()
    jax.distributed.initialize(
        **explicit,
        initialization_timeout=wait + SPARE_SECONDS,
        heartbeat_timeout_seconds=hosts.heartbeat_timeout_seconds,
    )
    count, devices = jax.process_count(), jax.device_count()  # the first look at the devices waits for all, too
    patience.cancel()
    if count != hosts.processes or devices != execution.mesh.devices:
        time.sleep(
            LAST_WORD_SECONDS if jax.process_index() == 0 else 0
        )  # the end of process 0 would cut the others off
    if count != hosts.processes:
        raise SpecError(f"Execution.hosts.processes = {hosts.processes}: the plan's number, but {count} are here")
    execution.check_devices(jax.default_backend(), devices)
    return jax.process_index()


def agree(text: str) -> str:
    """Process 0's text, in every process; all of them call it together."""
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    if jax.process_count() == 1:
        return text
    own = text.encode()
    size = int(broadcast_one_to_all(np.int32(len(own))))
    own = np.frombuffer(own[:size].ljust(size), np.uint8)
    return bytes(np.asarray(broadcast_one_to_all(own))).decode()


def in_any(true: bool) -> bool:
    """Whether it is true in any process; all of them call it together."""
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    return true if jax.process_count() == 1 else bool(np.any(process_allgather(np.int32(true))))


def begun_together(program):
    """A jitted program that no process starts before all have compiled it: over gloo, who is early waits for 30 s
    only.
    """
    import jax
    from orbax.checkpoint import v1 as ocp

    if jax.process_count() == 1:
        return program
    compiled = False

    def call(*arguments):
        nonlocal compiled
        if not compiled:
            program.lower(*arguments).compile()
            asyncio.run(ocp.multihost.sync_global_processes("compiled", operation_id="gaplaw", timeout=COMPILE_SECONDS))
            compiled = True
        return program(*arguments)

    return call
