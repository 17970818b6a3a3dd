import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { temporaryDirectory } from '../support/harness.ts';

const SYSTEMD = join(import.meta.dirname, '../support/systemd.sh');
const MAIN = join(import.meta.dirname, '../../src/main.ts');
const SOCKET = '/run/waitd/waitd.sock';

const unit = `
[Service]
Type=exec
ExecStartPre=/bin/sh -c 'while [ -e /run/hold ]; do sleep 0.05; done'
ExecStart=${process.execPath} ${MAIN} serve --listen unix:${SOCKET} --state-dir /var/lib/waitd
ExecReload=/bin/kill -HUP $MAINPID
Environment=NODE_NO_WARNINGS=1
NotifyAccess=main
FileDescriptorStoreMax=1000
KillMode=process
Restart=always
RestartSec=100ms
LimitNOFILE=4096
`;

/** The script that runs beside the daemon: it prints one line of JSON for each finding. */
const script = String.raw`
set -e
call() { curl -sS --max-time 20 --unix-socket ${SOCKET} -H 'content-type: application/json' "$@"; }
spawn() { call http://x/v1/handles -d "{\"spawn\":{\"argv\":$1}}"; }
id() { sed -E 's/.*"id":"(h_[^"]*)".*/\1/'; }
pid() { sed -E 's/.*"pid":([0-9]+).*/\1/'; }
show() { echo "$1 $(call http://x/v1/handles/$2)"; }
events() { echo "$1-events $(call "http://x/v1/events?handle=$2")"; }
main() { systemctl show -P MainPID waitd; }
up() {
  for try in $(seq 400); do call -f http://x/readyz >/dev/null 2>&1 && return; sleep 0.05; done
  systemctl status waitd; journalctl -u waitd -o cat; exit 1
}

systemctl start waitd; up
first=$(main)
code=$(spawn '["sh","-c","while [ -e /run/hold1 ] || [ ! -e /run/hold ]; do sleep 0.02; done; exit 7"]')
victim=$(spawn '["sleep","100"]')
living=$(spawn '["sleep","100"]')
early=$(spawn '["sh","-c","exit 2"]')
call http://x/v1/handles/$(echo $early | id)/waitid -X POST >/dev/null
echo "stored $(systemctl show -P NFileDescriptorStore waitd)"

# While it is down one ends by itself and one is killed.
systemctl daemon-reexec # the store is systemd's own to hand on
touch /run/hold1 /run/hold
systemctl kill --kill-whom=main -s KILL waitd
rm /run/hold1
kill -KILL $(echo $victim | pid)
while [ -e /proc/$(echo $code | pid) ] || [ -e /proc/$(echo $victim | pid) ]; do sleep 0.02; done
rm /run/hold; up
[ "$(main)" != "$first" ]
for name in code victim living early; do eval "h=\$(echo \$$name | id)"; show $name $h; events $name $h; done

# A reload keeps the process; a restart keeps the store.
second=$(main)
systemctl reload waitd
until [ "$(journalctl -u waitd -o cat | grep -c '"upgraded":true')" = 1 ]; do sleep 0.05; done; up
[ "$(main)" = "$second" ]
again=$(spawn '["sleep","100"]')
touch /run/hold; systemctl restart waitd &
until [ "$(main)" = 0 ]; do sleep 0.02; done
kill -TERM $(echo $again | pid)
while [ -e /proc/$(echo $again | pid) ]; do sleep 0.02; done
rm /run/hold; wait; up
show again $(echo $again | id)
show living-still $(echo $living | id)
kill -KILL $(echo $living | pid)
call http://x/v1/poll -d "{\"handles\":[\"$(echo $living | id)\"],\"for\":\"outcome\"}" >/dev/null
show living-ended $(echo $living | id)
until [ "$(systemctl show -P NFileDescriptorStore waitd)" = 0 ]; do sleep 0.05; done
echo "stored-at-last 0"
systemctl stop waitd
`;

t.test('under systemd the descriptor store restores pidfds, and exits in the meantime are known', async (t) => {
  const stage = temporaryDirectory(t);
  mkdirSync(join(stage, 'etc/systemd/system'), { recursive: true });
  writeFileSync(join(stage, 'etc/systemd/system/waitd.service'), unit);
  const { status, stdout, stderr } = spawnSync(SYSTEMD, [stage, script], { encoding: 'utf8', timeout: 500_000 });
  t.equal(status, 0, stdout + stderr);
  const found = new Map(
    stdout
      .split('\n')
      .filter((line) => / [{\d]/.test(line))
      .map((line) => [line.slice(0, line.indexOf(' ')), JSON.parse(line.slice(line.indexOf(' ') + 1))] as const),
  );
  t.equal(found.get('stored'), 3, 'the live processes');
  t.match(found.get('code'), { state: 'exited', outcome: { reason: 'exited', exitCode: 7 } });
  t.match(found.get('victim'), { state: 'exited', outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.match(found.get('living'), { state: 'running', relation: 'foreign' });
  t.match(found.get('early'), { state: 'exited', outcome: { reason: 'exited', exitCode: 2 } });
  const names = (name: string): string[] =>
    (found.get(`${name}-events`) as { events: { event: string }[] }).events.map(({ event }) => event);
  t.same(names('code'), ['opened', 'exited', 'reaped']);
  t.same(names('victim'), ['opened', 'exited', 'reaped']);
  t.same(names('living'), ['opened']);
  t.same(names('early'), ['opened', 'exited', 'settled']);
  t.match(found.get('again'), { outcome: { reason: 'killed', signal: 'SIGTERM' } }, 'after a restart');
  t.match(found.get('living-still'), { state: 'running' });
  t.match(found.get('living-ended'), { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.equal(found.get('stored-at-last'), 0, 'the store is empty again');
});
