"""How the processes of a training meet: process 0 calls all others, each at its own address.

The lines stay open. One that is closed is noticed by the other end at once; a machine or network that is gone, by TCP's
keep-alive within `SILENCE` seconds.
"""

from __future__ import annotations

import json
import socket
import time

from keras_mrpose.errors import InputError

PEER_TIMEOUT = 30  # seconds until a machine that has gone dark is given up


def addresses(hosts: str) -> list[str]:
    """``"a:port,b:port"`` as a list, checked: at least two, all different, each a name and a port."""
    listed = [address.strip() for address in hosts.split(",")]
    for address in listed:
        name, _, port = address.rpartition(":")
        if not name or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise InputError(f"--hosts has {address!r}; give each machine as name:port, separated by commas.")
    if len(listed) < 2:
        raise InputError(f"--hosts has only {hosts!r}; give the addresses of all machines, or leave it out for one.")
    if twice := {address for address in listed if listed.count(address) > 1}:
        raise InputError(f"--hosts has {min(twice)} twice; give each process an address of its own.")
    return listed


def rendezvous(listed: list[str], index: int, patience: float) -> tuple[socket.socket, ...]:
    """Open lines: of process 0 to all others in their order, of every other process to process 0."""
    end = time.monotonic() + patience
    with _server(listed[index]) as server:  # process 0: to see that JAX can have the port
        if index:
            return (_called(server, listed, index, end),)
    lines = []
    try:
        for i, address in enumerate(listed[1:], start=1):
            lines.append(_call(address, listed, i, end))
    except InputError:
        for line in lines:
            line.close()
        raise
    return tuple(lines)


def _server(address: str) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        port = int(address.rpartition(":")[2])
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(f"{address} cannot be used here ({error.strerror}); give another port in --hosts.") from None


def _call(address: str, listed: list[str], index: int, end: float) -> socket.socket:
    """Process 0's line to process `index`, which may not be there yet."""
    name, _, port = address.rpartition(":")
    while (left := end - time.monotonic()) > 0:
        try:
            line = socket.create_connection((name.strip("[]"), int(port)), timeout=min(left, 5))
        except OSError:
            time.sleep(0.2)
            continue
        if _agreed(line, listed, address):
            return line
        time.sleep(0.2)
    raise InputError(
        f"{address} was not there in time; start process {index} on it, and see that its port can be reached."
    )


def _called(server: socket.socket, listed: list[str], index: int, end: float) -> socket.socket:
    """The line on which process 0 calls process `index`; other callers are sent away."""
    while (left := end - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            line, _ = server.accept()
        except TimeoutError:
            break
        line.settimeout(min(left, 5))
        if _agreed(line, listed, "Process 0"):
            return line
    raise InputError(
        f"Process 0 at {listed[0]} did not call in time; start it, and see that it can reach {listed[index]}."
    )


def _agreed(line: socket.socket, listed: list[str], name: str) -> bool:
    """Whether the other end is one of these processes; a line to any other is closed.

    Raises:
        InputError: it is one, but was given other addresses.
    """
    theirs = _exchange(line, listed)
    if theirs == listed:
        _keep_alive(line)
        return True
    line.close()
    if theirs:
        raise InputError(f"{name} was started with --hosts {','.join(theirs)}; give all processes the same.")
    return False


def _exchange(line: socket.socket, listed: list[str]) -> list[str]:
    """The other end's list of addresses, for this one; empty if it is none of these processes."""
    try:
        line.sendall(json.dumps(listed).encode() + b"\n")
        theirs = json.loads(recv_line(line))
    except (OSError, ValueError):
        return []
    return theirs if isinstance(theirs, list) and all(isinstance(address, str) for address in theirs) else []


def _keep_alive(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", PEER_TIMEOUT // 3), ("TCP_KEEPINTVL", PEER_TIMEOUT // 6), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # macOS has them under other names, and its own pace
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def recv_line(line: socket.socket) -> str:
    """The next word; "" when the line is closed or broken."""
    word = b""
    try:
        while not word.endswith(b"\n") and (byte := line.recv(1)):
            word += byte
    except OSError:  # reset by the other end, or given up by the keep-alive
        return ""
    return word.decode(errors="replace").strip()
