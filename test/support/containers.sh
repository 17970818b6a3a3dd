#!/usr/bin/env bash
# usage: containers.sh up DIR | build DIR TAG [ARG…] | down DIR
# Sets up containers without a registry: podman with its store in DIR, and replacements for the base images of the
# Dockerfile from Debian packages and the node packages of npm. The first `up` takes a minute, a later one no time.
# Podman with DIR's configuration (CONTAINERS_CONF, CONTAINERS_STORAGE_CONF) writes only to DIR, and `down` removes all
# of it.
set -euo pipefail
what=$1
mkdir -p "$2"
dir=$(realpath "$2")
tree=$(realpath "$(dirname "$0")/../..")
export CONTAINERS_CONF=$dir/containers.conf CONTAINERS_STORAGE_CONF=$dir/storage.conf DEBIAN_FRONTEND=noninteractive
node=24

up() {
  local missing=() package
  for package in podman runc catatonit mmdebstrap; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  cat >"$dir/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$dir/graph"
runroot = "$dir/run"
CONF
  # Podman would raise both limits, which root may not do in every environment.
  cat >"$dir/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
  podman image exists "docker.io/library/node:$node-bookworm-slim" && return
  local root=$dir/base
  rm -rf "$root"
  mkdir -p "$root"
  mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$dir/base.tar" 2>"$dir/base.log"
  podman import -q "$dir/base.tar" docker.io/library/debian:bookworm-slim >/dev/null
  tar xf "$dir/base.tar" -C "$root"
  rm "$dir/base.tar"
  (
    cd "$dir"
    npm pack --silent "node-linux-$(dpkg --print-architecture | sed 's/amd64/x64/')@$node" npm@11 >/dev/null 2>&1
    tar xzf node-linux-*.tgz --strip-components=1 -C "$root/usr/local" package/bin/node package/include
    mkdir -p "$root/usr/local/lib/node_modules/npm"
    tar xzf npm-*.tgz --strip-components=1 -C "$root/usr/local/lib/node_modules/npm"
    rm -f ./*.tgz
  )
  ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  chmod 755 "$root/usr/local/bin/node" "$root"/usr/local/lib/node_modules/npm/bin/*.js
  tar -C "$root" -c . | podman import -q -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - \
    "docker.io/library/node:$node-bookworm-slim" >/dev/null
  rm -rf "$root"
}

# The build mounts the machine's npm settings and certificate authorities, so that no layer contains them.
build() {
  local tag=$1 mounts=(-v "$dir/npmrc:/usr/local/etc/npmrc:ro")
  shift
  echo "registry=$(npm config get registry 2>/dev/null)" >"$dir/npmrc"
  if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then
    echo 'cafile=/etc/ssl/certs/ca-certificates.crt' >>"$dir/npmrc"
    mounts+=(-v "$NODE_EXTRA_CA_CERTS:/etc/ssl/certs/ca-certificates.crt:ro")
  fi
  podman build -q --pull=never --format docker --network=host "${mounts[@]}" -t "$tag" "$@" "$tree"
}

down() {
  podman pod rm -af -t 0 >/dev/null 2>&1 || true
  podman rm -af -t 0 >/dev/null 2>&1 || true
  local mounted
  while mounted=$(grep -o " $dir/[^ ]*" /proc/self/mounts | tail -n 1) && [ -n "$mounted" ]; do umount -l "${mounted# }" || break; done
  rm -rf --one-file-system "$dir"
}

shift 2
"$what" "$@"
