#!/usr/bin/env python3
"""Runs a command on one host, prints its output while it runs, and ends with its exit code.

    run.py HOST COMMAND [ARGUMENT]...

DATACENTERED_HUB is the hub's URL, DATACENTERED_TOKEN a token, DATACENTERED_CA the file of the hub's CA certificate.
"""

import json
import os
import struct
import sys
import time
import uuid

import websocket  # websocket-client; on Debian: python3-websocket

PROTOCOL = 1
STREAM = 1  # Streams of the side that dialled have odd numbers.
WINDOW = 256 * 1024  # Bytes that the hub may send ahead of what has been printed.
HEADER = struct.Struct(">BBHIQ")  # version, kind, zero, stream, offset
STDERR = 2


def uuid7():
    """A UUIDv7: the time in milliseconds, then random bits. Python has its own from version 3.14 on."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | (0x7 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=number))


class Hub:
    """One connection: calls, and whatever else comes meanwhile."""

    def __init__(self, url, token, ca_file):
        url = url if "://" in url else "wss://" + url
        url = url.replace("https://", "wss://", 1).rstrip("/")
        options = {"ca_certs": ca_file} if ca_file else {}
        self.socket = websocket.create_connection(
            url + "/api/v1/link", sslopt=options, timeout=60, suppress_origin=True
        )
        self.calls = 0
        self.waiting = []  # What came while a call waited for its answer.
        self.call("session.hello", protocol=PROTOCOL, client="run.py", token=token)

    def send(self, message):
        self.socket.send(json.dumps({"jsonrpc": "2.0", **message}))

    def call(self, method, **params):
        """Calls an operation and waits for its answer."""
        self.calls += 1
        self.send({"id": self.calls, "method": method, "params": params})
        while True:
            message = self.receive()
            if isinstance(message, dict) and message.get("id") == self.calls:
                if "error" in message:
                    error = message["error"]
                    raise RuntimeError(f"{method}: {error['data']['code']}: {error['message']}")
                return message["result"]
            self.waiting.append(message)

    def receive(self):
        """The next message: a dict, or bytes. Answers the hub's question whether we are still there."""
        while True:
            opcode, data = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                raise RuntimeError("the hub closed the connection")
            if opcode == websocket.ABNF.OPCODE_BINARY:
                return data
            message = json.loads(data)
            if message.get("method") == "link.ping":
                self.send({"id": message["id"], "result": {}})
            else:
                return message

    def next(self):
        """The next message that is not the answer to a call."""
        return self.waiting.pop(0) if self.waiting else self.receive()


def print_output(hub, run):
    """Prints a run's output until its end."""
    granted = WINDOW
    hub.call("run.output", run=run, stream={"id": STREAM, "credit": granted})
    while True:
        message = hub.next()
        if isinstance(message, bytes):
            _version, kind, _zero, _stream, offset = HEADER.unpack_from(message)
            payload = message[HEADER.size :]
            out = sys.stderr.buffer if kind == STDERR else sys.stdout.buffer
            out.write(payload)
            out.flush()
            position = offset + len(payload)
            # More credit before the hub runs out of it: half a window is left then.
            if granted - position < WINDOW // 2:
                granted = position + WINDOW
                hub.send({"method": "stream.credit", "params": {"stream": STREAM, "upto": granted}})
        elif message.get("method") == "stream.gap":
            gap = message["params"]
            print(f"{gap['to'] - gap['from']} bytes are missing: {gap['reason']}", file=sys.stderr)
            granted = max(granted, gap["to"] + WINDOW)
            hub.send({"method": "stream.credit", "params": {"stream": STREAM, "upto": granted}})
        elif message.get("method") == "stream.end":
            end = message["params"]
            if end["reason"] != "done":
                raise RuntimeError(f"the output ended early: {end}")
            return


def exit_code(outcome):
    """As ssh does it."""
    kind = outcome["kind"]
    if kind == "exited":
        return outcome["code"] & 0xFF
    if kind == "signaled":
        return 128 + outcome["signal"]
    print(f"it did not run to its end: {outcome}", file=sys.stderr)
    return 124 if kind == "timed_out" else 255


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: run.py HOST COMMAND [ARGUMENT]...")
    host, argv = sys.argv[1], sys.argv[2:]
    environment = os.environ
    hub = Hub(
        environment.get("DATACENTERED_HUB", "localhost:7272"),
        environment.get("DATACENTERED_TOKEN"),
        environment.get("DATACENTERED_CA"),
    )
    run = uuid7()
    hub.call("run.create", key=run, on=[host], exec={"argv": argv})
    print_output(hub, run)
    target = hub.call("run.show", run=run)["targets"][0]
    sys.exit(exit_code(target["outcome"]))


if __name__ == "__main__":
    try:
        main()
    except (OSError, RuntimeError, websocket.WebSocketException) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(255)
