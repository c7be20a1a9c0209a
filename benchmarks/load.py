"""`boneage serve` with 32 clients at once against one client, on the same cores, one after the other.

Each client sends a radiograph over the HTTP API, waits for its answer and sends the next; one that is told 503 waits as
long as `Retry-After` says. Server and clients share the machine. The model is the best that is shipped.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import cv2
import numpy as np

from benchmarks.common import Result
from boneage.data.phantom import render

CLIENTS, SECONDS = 32, 60.0
EDGE = "an-edge-that-no-png-holds"


@dataclass
class Tally:
    """What the clients of one round saw."""

    waited: list[float] = field(default_factory=list)  # seconds, of every answer
    busy: int = 0  # 503 with Retry-After
    wrong: int = 0  # anything else
    memory: list[float] = field(default_factory=list)  # MB, sampled every half second


def run(seconds: float = SECONDS) -> list[Result]:
    body = _form(cv2.imencode(".png", render(120, 1, 0, 768).image)[1].tobytes())
    with server() as (host, process):
        _round(host, process.pid, body, 1, seconds / 12)  # warm-up
        one = _round(host, process.pid, body, 1, seconds / 4)
        many = _round(host, process.pid, body, CLIENTS, seconds)
    early, late = np.array_split(np.array(many.memory), 2)
    p95, alone = (float(np.quantile(tally.waited, 0.95)) for tally in (many, one))
    rate = (len(many.waited) / seconds) / (len(one.waited) / (seconds / 4))
    told = f"{CLIENTS} clients for {seconds:.0f} s"
    return [
        Result(f"Failures other than 503 with Retry-After, {told}", many.wrong + one.wrong, "", 0, "at most"),
        Result(f"p95 of an answer, {told}, against one client", p95 / alone, "x"),
        Result("p95 of an answer, one client", 1000 * alone, "ms"),
        Result(f"Answers a second, {told}, against one client", rate, "x"),
        Result(f"Requests told 503, {told}", 100 * many.busy / (many.busy + len(many.waited)), "%"),
        Result(f"Server's memory in the second half against the first, {told}", late.max() / early.max(), "x", 1.05,
               "at most"),
        Result("Server's memory at most", max(many.memory), "MB"),
    ]  # fmt: skip


@contextmanager
def server() -> Iterator[tuple[str, subprocess.Popen]]:
    """A `boneage serve` of its own, for as long as the block lasts: where it listens, and its process."""
    command = [sys.executable, "-m", "boneage", "serve", "--port", "0", "--rate", "1e6"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            line = process.stdout.readline().decode()
            yield urlsplit(re.search(r"http://\S+", line)[0]).netloc, process
        finally:
            process.terminate()


def _round(host: str, pid: int, body: bytes, clients: int, seconds: float) -> Tally:
    tally, end = Tally(), time.monotonic() + seconds
    threads = [threading.Thread(target=_client, args=(host, body, end, tally)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        tally.memory.append(_megabytes(pid))
        time.sleep(0.5)
    for thread in threads:
        thread.join()
    return tally


def _client(host: str, body: bytes, end: float, tally: Tally) -> None:
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            connection.request("POST", "/api/v1/predictions", body, headers)
            response = connection.getresponse()
            answer, wait = json.loads(response.read()), response.headers.get("Retry-After")
        except (OSError, http.client.HTTPException, ValueError):
            tally.wrong += 1
            connection.close()
            continue
        if response.status == 200 and "months" in answer:
            tally.waited.append(time.monotonic() - start)
        elif response.status == 503 and wait:
            tally.busy += 1
            time.sleep(float(wait))
        else:
            tally.wrong += 1


def _form(image: bytes) -> bytes:
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="sex"\r\n\r\nmale\r\n--{EDGE}\r\n'
    head += 'Content-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    return head.encode() + image + f"\r\n--{EDGE}--\r\n".encode()


def _megabytes(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
