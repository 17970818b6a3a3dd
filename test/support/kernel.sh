#!/usr/bin/env bash
# usage: kernel.sh get VERSION | run VERSION COMMANDS
# `get` downloads Debian's newest kernel of a VERSION (6.1.0, 6.12), or prints why it cannot. `run` boots it in QEMU
# without KVM on a temporary overlay of /, runs COMMANDS as root, and exits with their status. It changes nothing
# outside except the cache of kernels. The boot takes about 10 s, and programs run 10 times slower than outside.
set -euo pipefail
what=$1 version=$2 commands=${3:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/waitd-kernels

missing() {
  command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
  # busybox-static, because an initial file system has no libraries.
  { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; } || echo busybox-static
  command -v cpio >/dev/null || echo cpio
  command -v xz >/dev/null || echo xz-utils
}

newest() {
  apt-cache search --names-only "^linux-image-${version//./\\.}[.0-9]*[-+][a-z0-9]*-?(amd64|[0-9]+-amd64)\$" |
    awk '{print $1}' | grep -vE 'unsigned|cloud|rt|dbg' | sort -V | tail -n 1
}

fetched() { find "$cache" -maxdepth 1 -name "linux-image-$version*" ! -name "*.new" 2>/dev/null | sort -V | tail -n 1; }

get() {
  if [ "$(uname -m)" != x86_64 ]; then echo 'only x86_64 kernels are supported' && return 1; fi
  local packages package
  packages=$(missing)
  if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "it needs" $packages && return 1; fi
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>&1 ||
      { echo "these cannot be installed:" $packages && return 1; }
  fi
  [ -z "$(fetched)" ] || return 0
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo 'kernels are installed from Debian packages, and this system is not Debian' && return 1; }
  package=$(newest)
  if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then apt-get update -qq >/dev/null 2>&1 && package=$(newest); fi
  [ -n "$package" ] || { echo "Debian has no package of Linux $version" && return 1; }
  mkdir -p "$cache"
  local new=$cache/$package.new
  rm -rf "$new"
  mkdir "$new"
  (cd "$new" && apt-get download -qq "$package" && dpkg -x ./*.deb . && rm ./*.deb && mv "$new" "$cache/$package") >/dev/null 2>&1 ||
    { rm -rf "$new" && echo "$package cannot be downloaded" && return 1; }
}

run() {
  local package kernel root number=10 module file
  package=$(fetched)
  [ -n "$package" ]
  kernel=$(echo "$package"/boot/vmlinuz-*)
  work=$(mktemp -d "${TMPDIR:-/tmp}/waitd-kernel.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  root=$work/root
  mkdir -p "$root"/{bin,proc,sys,dev,lower,upper,new,modules}
  cp /bin/busybox "$root/bin/busybox"
  for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci netfs fscache 9pnet 9pnet_virtio 9p overlay; do
    file=$(find "$package/lib/modules" -name "$module.ko" -o -name "$module.ko.xz" | head -n 1)
    [ -n "$file" ] || continue
    number=$((number + 1))
    case $file in *.xz) xz -dc "$file" ;; *) cat "$file" ;; esac >"$root/modules/$number-$module.ko"
  done
  printf '%s\n' "$commands" >"$root/commands"
  cat >"$root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,ro,cache=loose host /lower
$b mount -t tmpfs -o size=70% tmpfs /upper; $b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new
$b mount -t proc proc /new/proc; $b mount -t sysfs sys /new/sys; $b mount -t devtmpfs dev /new/dev
$b mkdir -p /new/dev/pts /new/dev/shm; $b ln -sf /proc/self/fd /new/dev/fd
$b mount -t devpts devpts /new/dev/pts; $b mount -t tmpfs tmpfs /new/dev/shm
$b mount -t tmpfs tmpfs /new/run; $b mount -t tmpfs -o mode=1777 tmpfs /new/tmp; $b mount -t cgroup2 cgroup /new/sys/fs/cgroup
$b ifconfig lo 127.0.0.1 up
$b cp /commands /new/run/commands
HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin $b chroot /new /bin/bash /run/commands
echo "exit of the commands: $?"
$b poweroff -f
INIT
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
  # One processor for each kernel.
  qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 2560 -display none -monitor none -serial stdio -no-reboot -net none \
    -kernel "$kernel" -initrd "$work/initrd" -append 'console=ttyS0 panic=-1 loglevel=1 no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1' \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null 2>"$work/errors" |
    tr -d '\r' | tee "$work/log" | grep -av '^exit of the commands: ' || true
  local code
  code=$(grep -aoE '^exit of the commands: [0-9]+' "$work/log" | grep -oE '[0-9]+$' | tail -n 1) || true
  if [ -z "$code" ]; then
    echo 'the kernel stopped before the end of the commands:'
    cat "$work/errors"
    tail -n 20 "$work/log"
    exit 99
  fi
  exit "$code"
}

"$what"
