#!/usr/bin/env bash
# Installs the Debian packages that a step needs, and only those that are missing.
#   scripts/setup.sh build   what building needs
#   scripts/setup.sh test    what the tests need besides
#   scripts/setup.sh bench   what the benchmarks compare with, and what profiles are made with
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || missing+=("$2")
}

need cc gcc
need make make
if [ "${1:-build}" = test ]; then
  need ip iproute2
  need tc iproute2
  need iptables iptables
  need strace strace
  need unshare util-linux
  # A library rather than a command: wrong clocks for one program at a time.
  need faketime faketime
  need tmux tmux
  need vi vim-tiny
  need top procps
  need tinyproxy tinyproxy
  # The examples in other languages.
  need node nodejs
  [ -d /usr/share/nodejs/ws ] || missing+=(node-ws)
  [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import websocket' 2>/dev/null || missing+=(python3-websocket)
fi
if [ "${1:-build}" = bench ]; then
  need sshd openssh-server
  need ssh openssh-client
  need valgrind valgrind
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then try again" >&2
  exit 1
fi

if [ "${#missing[@]}" -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  echo "installing: ${missing[*]}"
  $sudo apt-get update -q
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends "${missing[@]}"
fi
