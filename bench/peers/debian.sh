#!/usr/bin/env bash
# usage: debian.sh unpack DIR PACKAGE… | install PACKAGE…
# Debian's packages, unpacked below DIR, where they change nothing on the machine, or installed. The lists are read anew only if it
# does not work with those that are there.
set -euo pipefail
what=$1
shift
export DEBIAN_FRONTEND=noninteractive

# Tried before a `&&`, where `set -e` does not hold: hence each `|| return`.
unpack() {
  cd "$1" || return
  shift
  apt-get download -qq -o APT::Sandbox::User=root "$@" || return
  local package
  for package in ./*.deb; do dpkg-deb -x "$package" . || return; done
}

install() {
  apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=60 "$@"
}

("$what" "$@") >/dev/null 2>&1 && exit
apt-get update -qq >/dev/null
"$what" "$@" >/dev/null
