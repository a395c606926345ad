"""The place in a store where the processes of one start meet, also if the store holds what earlier starts have left."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist

__all__ = ["fresh_part"]

_TOKEN = "sn2fpn_token"
_POLL_S = 0.1


def fresh_part(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """Return a part of a store that only the processes of this start use.

    After a restart by torchrun, the store still holds the addresses of the processes before. No variable of its
    environment tells the starts apart, since each machine counts its own restarts. So the first process makes a token,
    and answers each other one under it. A process that has read the token of an earlier start gets no answer, and reads
    again.

    Args:
        store: the store, which all processes of this start share. Those of earlier starts have ended.
        rank: the rank of this process.
        world_size: the number of processes.
        timeout: how long to wait for the others.

    Raises:
        DistStoreError: some process has not come.
    """
    if rank == 0:
        token = uuid4().hex
        store.set(_TOKEN, token)
        for other in range(1, world_size):
            name = store.get(f"{token}/{other}").decode()
            store.set(f"{token}/{name}", "")
        return dist.PrefixStore(token, store)
    name, deadline = uuid4().hex, time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        token = store.get(_TOKEN).decode()
        store.set(f"{token}/{rank}", name)
        if store.check([f"{token}/{name}"]):
            return dist.PrefixStore(token, store)
        time.sleep(_POLL_S)
    raise dist.DistStoreError(f"process {rank} got no answer from the first process within {timeout}")
