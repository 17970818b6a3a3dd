#!/usr/bin/env bash
# usage: debian.sh unpack DIR PACKAGE… | install PACKAGE…
# Unpacks Debian's packages below DIR, which changes nothing else on the machine, or installs them. The package lists
# are updated only if the present ones do not suffice.
set -euo pipefail
what=$1
shift
export DEBIAN_FRONTEND=noninteractive

# The caller runs this before a `&&`, where `set -e` has no effect: hence each `|| return`.
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
