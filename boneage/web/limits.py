"""Who may come in: a bounded queue before the model, and a rate for each address."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network

from boneage.errors import BoneageError
from boneage.texts import say

PATIENCE = 20.0  # seconds in the queue after which a client is better told to come back
ADDRESSES = 4096  # whose rates are remembered; beyond that the longest unseen is forgotten


class Later(BoneageError):
    """Come back in `retry_after` seconds: the server is full (503), or this address asks too often (429)."""

    def __init__(self, message: str, status: int, retry_after: float):
        super().__init__(message)
        self.status = status
        self.retry_after = max(1, math.ceil(retry_after))


class Turns:
    """At most `workers` jobs at once and `queue` waiting; whoever comes then is told so at once, with 503."""

    def __init__(self, workers: int, queue: int, patience: float = PATIENCE):
        self.workers, self.places, self.patience = workers, workers + queue, patience
        self._slots = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._inside = 0
        self._seconds = 0.1  # a job takes; follows what was measured

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises
        ------
        Later
            503: no place left in the queue, or no turn within `patience` seconds.
        """
        with self._lock:
            if self._inside >= self.places:
                raise self._full()
            self._inside += 1
        try:
            if not self._slots.acquire(timeout=self.patience):
                raise self._full()
            start = time.monotonic()
            try:
                yield
            finally:
                self._slots.release()
                self._seconds += 0.2 * (time.monotonic() - start - self._seconds)
        finally:
            with self._lock:
                self._inside -= 1

    def _full(self) -> Later:
        return Later(say("errors.busy"), 503, self._inside * self._seconds / self.workers)


def _neighbours(address: str) -> str:
    """An IPv6 address without its second half, which whoever has one may choose; any other as it is."""
    with suppress(ValueError):
        if ip_address(address).version == 6:
            return str(ip_network((address, 64), strict=False))
    return address


class Rate:
    """A token bucket for each address, or IPv6 network of 64 bits: bursts of `burst`, `per_minute` in the long run."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self.per_second, self.burst, self.clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> tokens, when
        self._lock = threading.Lock()

    def take(self, address: str) -> None:
        """Take one token.

        Raises
        ------
        Later
            429: none left.
        """
        address = _neighbours(address)
        with self._lock:
            now = self.clock()
            tokens, then = self._buckets.pop(address, (self.burst, now))
            tokens = min(self.burst, tokens + (now - then) * self.per_second)
            enough = tokens >= 1
            self._buckets[address] = (tokens - enough, now)
            if len(self._buckets) > ADDRESSES:
                self._buckets.popitem(last=False)
        if not enough:
            raise Later(say("errors.too_often"), 429, (1 - tokens) / self.per_second)
