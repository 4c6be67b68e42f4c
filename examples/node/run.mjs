#!/usr/bin/env node
// Runs a command on one host, prints its output while it runs, and ends with its exit code.
//
//     run.mjs HOST COMMAND [ARGUMENT]...
//
// DATACENTERED_HUB is the hub's URL, DATACENTERED_TOKEN a token, DATACENTERED_CA the file of the hub's CA certificate.

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// By `require`, which looks into NODE_PATH too: Debian's node-ws is in /usr/share/nodejs.
const WebSocket = createRequire(import.meta.url)("ws");

const PROTOCOL = 1;
const STREAM = 1; // Streams of the side that dialled have odd numbers.
const WINDOW = 256 * 1024; // Bytes that the hub may send ahead of what has been printed.
const HEADER = 16; // version, kind, zero (2), stream (4), offset (8): big-endian
const STDERR = 2;

// A UUIDv7: the time in milliseconds, then random bits.
function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// One connection: calls, and whatever else comes meanwhile.
class Hub {
  static async connect(url, token, caFile) {
    const hub = new Hub();
    const address = (url.includes("://") ? url : `wss://${url}`).replace(/^https:/, "wss:").replace(/\/$/, "");
    hub.socket = new WebSocket(`${address}/api/v1/link`, caFile ? { ca: readFileSync(caFile) } : {});
    hub.calls = new Map();
    hub.lastCall = 0;
    hub.onStream = () => {};
    await new Promise((resolve, reject) => hub.socket.once("open", resolve).once("error", reject));
    hub.socket.on("message", (data, isBinary) => hub.received(data, isBinary));
    hub.socket.on("error", () => {}); // "close" follows.
    hub.socket.on("close", () => {
      const lost = new Error("the hub closed the connection");
      for (const call of hub.calls.values()) call.reject(lost);
      hub.onStream({ lost });
    });
    await hub.call("session.hello", { protocol: PROTOCOL, client: "run.mjs", token });
    return hub;
  }

  send(message) {
    this.socket.send(JSON.stringify({ jsonrpc: "2.0", ...message }));
  }

  // Calls an operation; the promise is its answer.
  call(method, params) {
    const id = ++this.lastCall;
    this.send({ id, method, params });
    return new Promise((resolve, reject) => this.calls.set(id, { method, resolve, reject }));
  }

  received(data, isBinary) {
    if (isBinary) {
      const [kind, offset] = [data.readUInt8(1), Number(data.readBigUInt64BE(8))];
      return this.onStream({ bytes: data.subarray(HEADER), kind, offset });
    }
    const message = JSON.parse(data.toString());
    const call = message.method === undefined ? this.calls.get(message.id) : undefined;
    if (call) {
      this.calls.delete(message.id);
      const error = message.error;
      if (error) call.reject(new Error(`${call.method}: ${error.data.code}: ${error.message}`));
      else call.resolve(message.result);
    } else if (message.method === "link.ping") {
      this.send({ id: message.id, result: {} }); // The hub asks whether we are still there.
    } else {
      this.onStream(message);
    }
  }
}

// Prints a run's output until its end.
function printOutput(hub, run) {
  let granted = WINDOW;
  const grant = (upto) => {
    granted = Math.max(granted, upto);
    hub.send({ method: "stream.credit", params: { stream: STREAM, upto: granted } });
  };
  return new Promise((resolve, reject) => {
    hub.onStream = ({ lost, bytes, kind, offset, method, params }) => {
      if (lost) reject(lost);
      else if (bytes) {
        const position = offset + bytes.length;
        // More credit once it is written, so that a slow terminal holds up the sender and fills no memory.
        (kind === STDERR ? process.stderr : process.stdout).write(bytes, () => {
          if (granted - position < WINDOW / 2) grant(position + WINDOW);
        });
      } else if (method === "stream.gap") {
        console.error(`${params.to - params.from} bytes are missing: ${params.reason}`);
        grant(params.to + WINDOW);
      } else if (method === "stream.end") {
        if (params.reason === "done") resolve();
        else reject(new Error(`the output ended early: ${JSON.stringify(params)}`));
      }
    };
    hub.call("run.output", { run, stream: { id: STREAM, credit: granted } }).catch(reject);
  });
}

// As ssh does it.
function exitCode(outcome) {
  if (outcome.kind === "exited") return outcome.code & 0xff;
  if (outcome.kind === "signaled") return 128 + outcome.signal;
  console.error(`it did not run to its end: ${JSON.stringify(outcome)}`);
  return outcome.kind === "timed_out" ? 124 : 255;
}

async function main() {
  const [host, ...argv] = process.argv.slice(2);
  if (argv.length === 0) throw new Error("usage: run.mjs HOST COMMAND [ARGUMENT]...");
  const { DATACENTERED_HUB = "localhost:7272", DATACENTERED_TOKEN, DATACENTERED_CA } = process.env;
  const hub = await Hub.connect(DATACENTERED_HUB, DATACENTERED_TOKEN, DATACENTERED_CA);
  const run = uuid7();
  await hub.call("run.create", { key: run, on: [host], exec: { argv } });
  await printOutput(hub, run);
  const { targets } = await hub.call("run.show", { run });
  hub.socket.close();
  return exitCode(targets[0].outcome);
}

// The exit code is set rather than called for, so that everything is written before.
main()
  .then((code) => (process.exitCode = code))
  .catch((error) => {
    console.error(`error: ${error.message}`);
    process.exitCode = 255;
    setTimeout(() => process.exit(255), 100).unref();
  });
