#!/bin/sh
# Puts waitd's units, its user and its state directory in place, for a waitd that was installed by `npm install -g` or lies in a checkout
# that was built. What it does it says; done twice it is as done once.
set -eu

usage() {
  cat <<TEXT
usage: install.sh [--no-start]          put units and user in place, and start to listen
       install.sh --uninstall [--purge] take them away again; with --purge the state as well

DESTDIR=DIR   only lays the files out below DIR: no user, no systemctl
NODE=PATH     the Node.js (24 or newer) to run it with; otherwise the first such one in PATH
TEXT
}

units=/etc/systemd/system
documents=/usr/share/doc/waitd
state=/var/lib/waitd
root=${DESTDIR:-}
here=$(dirname "$(readlink -f "$0")")
main=$(readlink -f "$here/../dist/src/main.js" || true)

say() { printf 'waitd: %s\n' "$*"; }
fail() {
  say "$*" >&2
  exit 1
}

find_node() {
  for node in ${NODE:-} $(command -v node || true) /usr/local/bin/node /usr/bin/node; do
    [ -x "$node" ] && "$node" -e 'process.exit(parseInt(process.versions.node, 10) >= 24 ? 0 : 1)' && readlink -f "$node" && return
  done
  fail 'there is no Node.js 24 or newer: install it, or name it with NODE=/path/to/node'
}

place() { # FILE DIRECTORY
  mkdir -p "$root$2"
  sed "s|/usr/local/bin/waitd|$node $main|" "$here/$1" >"$root$2/$(basename "$1").new"
  chmod 644 "$root$2/$(basename "$1").new"
  mv "$root$2/$(basename "$1").new" "$root$2/$(basename "$1")"
  say "put $2/$(basename "$1") in place"
}

install() {
  [ -f "$main" ] || fail "there is no $here/../dist/src/main.js: build it first (npm run build)"
  node=$(find_node)
  for unit in waitd.socket waitd.service; do place "systemd/$unit" "$units"; done
  for example in dynamic-user.conf privileged.conf; do place "systemd/$example" "$documents/examples"; done
  [ ! -f "$here/../docs/how-to/systemd.md" ] || place ../docs/how-to/systemd.md "$documents"
  [ -z "$root" ] || return 0
  if ! getent passwd waitd >/dev/null; then
    printf 'u waitd - "waits for processes" %s\n' "$state" | systemd-sysusers -
    say 'made the user waitd'
  fi
  mkdir -p "$state"
  chown waitd:waitd "$state"
  chmod 700 "$state"
  systemctl daemon-reload
  if [ "$start" = yes ]; then
    systemctl enable --quiet --now waitd.socket
    systemctl enable --quiet waitd.service
    # A service that runs already goes on as what is installed now.
    if systemctl --quiet is-active waitd.service; then systemctl reload waitd.service; fi
    say 'listens at /run/waitd/waitd.sock; the daemon starts with the first who asks'
  fi
}

uninstall() {
  if [ -z "$root" ]; then
    systemctl disable --quiet --now waitd.socket waitd.service 2>/dev/null || true
  fi
  rm -f "$root$units/waitd.socket" "$root$units/waitd.service"
  rm -rf "$root$documents"
  say 'took the units away'
  [ -z "$root" ] || return 0
  systemctl daemon-reload
  systemctl reset-failed waitd.service waitd.socket 2>/dev/null || true
  if [ "$purge" = yes ]; then
    rm -rf "$state"
    say "took $state away"
  elif [ -d "$state" ]; then
    say "left $state where it is; --purge takes it away"
  fi
  if getent passwd waitd >/dev/null; then
    if [ "$purge" = yes ]; then
      userdel waitd
      say 'took the user waitd away'
    else
      say 'left the user waitd, whose the state is'
    fi
  fi
}

what=install start=yes purge=no
for argument; do
  case $argument in
    --no-start) start=no ;;
    --uninstall) what=uninstall ;;
    --purge) purge=yes ;;
    --help | -h)
      usage
      exit
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done
[ "$purge" = no ] || [ "$what" = uninstall ] || fail '--purge goes with --uninstall'
if [ -z "$root" ]; then
  [ "$(id -u)" = 0 ] || fail 'only root can do that; DESTDIR=DIR lays the files out elsewhere'
  [ -d /run/systemd/system ] || fail 'systemd does not run here'
fi
"$what"
