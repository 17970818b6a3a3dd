import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { temporaryDirectory } from '../support/harness.ts';
import { installGlobally, pack } from '../support/package.ts';

const SYSTEMD = join(import.meta.dirname, '../support/systemd.sh');

/** The limit of `systemd-analyze security`, where 10 means unprotected. */
const MOST_EXPOSED = 2.5;

/** The script for a machine where npm has installed waitd in /usr/local: it prints a line of JSON for each finding. */
const script = String.raw`
set -eu
exec 2>&1
export PATH=/usr/local/bin:$PATH
SOCKET=/run/waitd/waitd.sock
DEPLOY=/usr/local/lib/node_modules/waitd/deploy
call() { curl -sS --max-time 30 --unix-socket $SOCKET -H 'content-type: application/json' "$@"; }
spawn() { call http://x/v1/handles -d "{\"spawn\":{\"argv\":$1}}"; }
id() { sed -E 's/.*"id":"(h_[^"]*)".*/\1/'; }
pid() { sed -E 's/.*"pid":([0-9]+).*/\1/'; }
show() { echo "$1 $(call http://x/v1/handles/$2)"; }
property() { systemctl show -P "$1" waitd.service; }
text() { echo "$1 \"$(echo "$2" | tr -d '"\\' | tr '\n' ' ')\""; }
until_so() { for try in $(seq 600); do "$@" && return; sleep 0.05; done; systemctl status waitd.service; journalctl -u waitd -o cat; exit 1; }
told() { property StatusText | grep -q "$1"; }
logged() { journalctl -u waitd.service -o cat | grep -q "$1"; }
stored() { [ "$(property NFileDescriptorStore)" = "$1" ]; }
replaced() { active && [ "$(property MainPID)" != "$1" ]; }
active() { [ "$(property SubState)" = running ]; }
trap 'code=$?; [ $code = 0 ] || { echo "failed at $BASH_COMMAND"; journalctl -u waitd.service -u waitd.socket -o cat | tail -40; }' EXIT

$DEPLOY/install.sh --no-start
text verify "$(systemd-analyze verify /etc/systemd/system/waitd.socket /etc/systemd/system/waitd.service 2>&1)"
echo "exposure $(systemd-analyze security --no-pager waitd.service 2>/dev/null | sed -nE 's/.*exposure level for waitd.service: ([0-9.]+) .*/\1/p')"
$DEPLOY/install.sh >/dev/null # twice is as once
text started "$(property SubState)"

# Cold: fifty clients are there before the daemon is.
for client in $(seq 50); do (call -o /dev/null -w '%{http_code}\n' http://x/v1/node >>/answers) & done; wait
echo "cold $(grep -c '^200$' /answers)"
active
text status "$(property StatusText)"
text user "$(ps -o user= -p $(property MainPID))"

# What is held over a reload, a kill, the watchdog and a restart.
first=$(property MainPID)
kept=$(spawn '["sleep","1000"]'); show spawned $(echo $kept | id)
until_so told '^1 live handles on 1 processes'
systemctl reload waitd.service
until_so logged '"upgraded":true'
until_so active
[ "$(property MainPID)" = "$first" ]; show reloaded $(echo $kept | id)

over() { # NAME COMMAND…: what ends while the daemon is away is known when it is back
  name=$1; shift
  victim=$(spawn '["sleep","1000"]')
  before=$(property MainPID)
  until_so stored 2
  "$@" & away=$!
  until_so gone $before
  kill -USR1 $(echo $victim | pid)
  wait $away || true
  until_so replaced $before
  call http://x/v1/poll -d "{\"handles\":[\"$(echo $victim | id)\"],\"for\":\"outcome\"}" >/dev/null
  show $name $(echo $victim | id); show $name-kept $(echo $kept | id)
}
gone() { [ ! -e /proc/$1/exe ] || ! readlink /proc/$1/exe >/dev/null; }
over killed systemctl kill --kill-whom=main -s KILL waitd.service
over restarted systemctl restart waitd.service
mkdir -p /etc/systemd/system/waitd.service.d
printf '[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n' >/etc/systemd/system/waitd.service.d/watchdog.conf
systemctl daemon-reload; systemctl restart waitd.service; until_so active
hang() { kill -STOP $(property MainPID); until_so logged 'Watchdog timeout'; }
over watchdog hang
rm -r /etc/systemd/system/waitd.service.d

# Who asks while it is stopped starts it again, and what it had is found.
systemctl stop waitd.service
text stopped "$(property SubState)"
show again $(echo $kept | id)
kill -KILL $(echo $kept | pid)
call http://x/v1/poll -d "{\"handles\":[\"$(echo $kept | id)\"],\"for\":\"outcome\"}" >/dev/null
show ended $(echo $kept | id)

# With a borrowed user.
systemctl stop waitd.socket waitd.service
mkdir -p /etc/systemd/system/waitd.service.d /etc/systemd/system/waitd.socket.d
cp /usr/share/doc/waitd/examples/dynamic-user.conf /etc/systemd/system/waitd.service.d/
printf '[Socket]\nSocketUser=root\nSocketGroup=root\n' >/etc/systemd/system/waitd.socket.d/root.conf
userdel waitd; rm -rf /var/lib/waitd
systemctl daemon-reload; systemctl start waitd.socket
echo "dynamic $(spawn '["true"]')"
text dynamic-user "$(property DynamicUser)"
systemctl stop waitd.socket waitd.service
rm -r /etc/systemd/system/waitd.service.d /etc/systemd/system/waitd.socket.d

# Privileged, with a policy.
$DEPLOY/install.sh --no-start >/dev/null
mkdir -p /etc/systemd/system/waitd.service.d /etc/waitd
printf 'clients:\n  uid:0:\n    spawn: true\n    signal: true\n' >/etc/waitd/policy.yaml
cp /usr/share/doc/waitd/examples/privileged.conf /etc/systemd/system/waitd.service.d/
systemctl daemon-reload; systemctl start waitd.socket
as=$(call http://x/v1/handles -d '{"spawn":{"argv":["id","-un"],"user":"nobody","stdout":"capture"}}')
call -X POST http://x/v1/handles/$(echo $as | id)/waitid >/dev/null
text privileged "$(call http://x/v1/handles/$(echo $as | id)/stdout)"
systemctl stop waitd.socket waitd.service
rm -r /etc/systemd/system/waitd.service.d

$DEPLOY/install.sh --uninstall >/dev/null
text left "$(ls -d /etc/systemd/system/waitd.s* /usr/share/doc/waitd /var/lib/waitd 2>/dev/null)"
$DEPLOY/install.sh --uninstall --purge >/dev/null
text purged "$(ls -d /etc/systemd/system/waitd.socket /var/lib/waitd 2>/dev/null; getent passwd waitd)"
`;

t.test('the installed units work on a machine of their own', (t) => {
  const stage = temporaryDirectory(t);
  const prefix = join(stage, 'usr/local');
  mkdirSync(join(prefix, 'bin'), { recursive: true });
  const packed = pack(temporaryDirectory(t));
  installGlobally(packed, prefix);
  copyFileSync(process.execPath, join(prefix, 'bin/node'));
  execFileSync('chmod', ['755', stage, join(prefix, 'bin/node')]);
  const { status, stdout, stderr } = spawnSync(SYSTEMD, [stage, script], { encoding: 'utf8', timeout: 500_000 });
  t.equal(status, 0, stdout + stderr);
  const found = new Map(
    stdout
      .split('\n')
      .filter((line) => /^[a-z-]+ [{\d"]/.test(line))
      .map((line) => [line.slice(0, line.indexOf(' ')), JSON.parse(line.slice(line.indexOf(' ') + 1))] as const),
  );
  t.equal(found.get('verify'), ' ', 'systemd reports nothing');
  t.ok(Number(found.get('exposure')) <= MOST_EXPOSED, `exposure ${found.get('exposure')}`);
  t.equal(found.get('started'), 'dead ', 'no client has connected yet');
  t.equal(found.get('cold'), 50);
  t.match(found.get('status'), /^\d+ live handles on \d+ processes, \d+ subscribers/);
  t.equal(found.get('user'), 'waitd ');
  for (const name of ['spawned', 'reloaded']) t.match(found.get(name), { state: 'running', relation: 'child' }, name);
  for (const name of ['killed', 'restarted', 'watchdog']) {
    t.match(found.get(name), { state: 'exited', outcome: { reason: 'killed', signal: 'SIGUSR1' } }, name);
    t.match(found.get(`${name}-kept`), { state: 'running' }, name);
  }
  t.equal(found.get('stopped'), 'dead ');
  t.match(found.get('again'), { state: 'running' }, 'a client starts it again');
  t.match(found.get('ended'), { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.match(found.get('dynamic'), { relation: 'child' }, 'it may have ended by then');
  t.equal(found.get('dynamic-user'), 'yes ');
  t.equal(found.get('privileged'), 'nobody ');
  t.equal(found.get('left'), '/var/lib/waitd ');
  t.equal(found.get('purged'), ' ');
  t.end();
});
