#!/usr/bin/env bash
# usage: systemd.sh STAGE_DIR COMMANDS
# Boots the machine's systemd as PID 1 in new namespaces, on a temporary overlay of / with the tree of STAGE_DIR on top.
# Runs COMMANDS there after basic.target, prints their output, and exits with their status. It changes nothing outside.
set -euo pipefail
stage=$(realpath "$1")
shift
if ! command -v systemd-nspawn >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd-container >/dev/null
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/waitd-systemd.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir "$work/out" "$work/overlay"
# Mounted separately: the overlay lacks this tree if it is on another mount, and systemd hides /tmp.
tree=$(realpath "$(dirname "$0")/../..")
printf '%s\n' '#!/usr/bin/env bash' 'set -u' "$*" >"$work/commands"

cat >"$work/inside" <<'INSIDE'
set -eu
work=$1 stage=$2 tree=$3
mount --make-rprivate /
# A pure cgroup v2 hierarchy, even if the machine uses v1.
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/$(basename "$work")
mkdir "$group"
echo $$ >"$group/cgroup.procs"
mount -t tmpfs -o size=2g tmpfs "$work/overlay"
mkdir "$work/overlay/upper" "$work/overlay/work" "$work/overlay/root"
root=$work/overlay/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/overlay/upper,workdir=$work/overlay/work" "$root"
rm -rf "$root"/etc/systemd/system/*.wants
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
cp -a "$stage/." "$root/"
cp "$work/commands" "$root/commands"
cat >"$root/etc/systemd/system/commands.service" <<UNIT
[Unit]
After=basic.target
[Service]
Type=oneshot
StandardOutput=append:/out/log
StandardError=append:/out/log
Environment=HOME=/root PATH=$PATH
ExecStart=/bin/bash /commands
ExecStopPost=/bin/sh -c 'echo \$EXIT_STATUS > /out/status; systemctl --no-block exit'
TimeoutStartSec=300
UNIT
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --boot -D "$root" --register=no --keep-unit --private-network --console=pipe --link-journal=no \
  --machine=waitd --bind="$work/out:/out" \
  --bind-ro="$tree" --bind-ro="$(realpath "$tree/node_modules")" -- systemd.unit=basic.target systemd.wants=commands.service
INSIDE

timeout -k 5 400 unshare -m bash "$work/inside" "$work" "$stage" "$tree" </dev/null >"$work/console" 2>&1 || true
for mounted in /sys/fs/cgroup /sys/fs/cgroup/unified; do
  [ -d "$mounted/$(basename "$work")" ] && find "$mounted/$(basename "$work")" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
cat "$work/out/log" 2>/dev/null || true
if ! [ -s "$work/out/status" ]; then
  echo 'systemd did not come that far:'
  tail -20 "$work/console"
  exit 99
fi
status=$(cat "$work/out/status")
[[ $status =~ ^[0-9]+$ ]] || status=98
exit "$status"
