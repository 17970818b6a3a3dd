import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { temporaryDirectory } from '../support/harness.ts';
import { blocks } from '../support/proxies-document.ts';

const ROOT = join(import.meta.dirname, '../..');
const SYSTEMD = join(ROOT, 'test/support/systemd.sh');
const skip = process.getuid!() === 0 ? false : 'only root can boot a systemd';

/** Runs the document's commands on a machine with the packaged units, and prints its findings. */
const inSystemd = (commands: string): string => `
set -eu
exec 2>&1
trap 'code=$?; [ $code = 0 ] || { echo "failed at $BASH_COMMAND"; journalctl -o cat | tail -40; }' EXIT
useradd --system waitd
chmod 755 /
code() { curl -s -o /answer -w '%{http_code}\\n' --max-time 60 "$@" || true; }
as() { setpriv --reuid="$1" --regid="$1" --clear-groups curl -s -o /dev/null -w '%{http_code}\\n' "\${@:2}" || true; }
handles="--unix-socket /run/waitd/proxy.sock http://x/v1/handles"
systemctl daemon-reload
systemctl start waitd.socket
echo "found first: $(code --unix-socket /run/waitd/waitd.sock http://x/v1/node)"
code --unix-socket /run/waitd/waitd.sock http://x/v1/handles -H 'content-type: application/json' -d '{"spawn":{"argv":["sleep","1000"]}}'
handle=$(sed -E 's/.*"id":"(h_[^"]*)".*/\\1/' /answer)
mv /proxy.conf /etc/systemd/system/waitd.service.d/
${commands}
echo "found socket: $(stat -c '%U %G %a' /run/waitd/proxy.sock)"
echo "found proxy without a token: $(as www-data $handles)"
echo "found proxy with a token: $(as www-data $handles -H "authorization: Bearer $(cat /var/lib/waitd/token)")"
echo "found proxy by another user: $(as daemon $handles)"
echo "found root by the first socket: $(code --unix-socket /run/waitd/waitd.sock http://x/v1/handles/$handle)"
echo "found the process: $(sed -E 's/.*"state":"([a-z]*)".*/\\1/' /answer)"
`;

t.test('the socket unit and the drop-in of the document give the proxy its socket', { skip }, (t) => {
  const stage = temporaryDirectory(t);
  const units = 'etc/systemd/system';
  for (const path of [`${units}/waitd.service.d`, 'usr/local/bin']) mkdirSync(join(stage, path), { recursive: true });
  for (const unit of ['waitd.service', 'waitd.socket'])
    copyFileSync(join(ROOT, 'deploy/systemd', unit), join(stage, units, unit));
  const [socket = '', dropIn = ''] = blocks('The daemon', 'ini');
  const [, commands = ''] = blocks('The daemon', 'sh');
  writeFileSync(join(stage, units, 'waitd-proxy.socket'), socket);
  writeFileSync(join(stage, 'proxy.conf'), dropIn);
  // The unit may hide the directory of the checkout.
  writeFileSync(join(stage, units, 'waitd.service.d/checkout.conf'), '[Service]\nProtectHome=no\nPrivateTmp=no\n');
  const command = `exec ${process.execPath} ${join(ROOT, 'src/main.ts')} "$@"`;
  writeFileSync(join(stage, 'usr/local/bin/waitd'), `#!/bin/sh\n${command}\n`, { mode: 0o755 });
  const { status, stdout, stderr } = spawnSync(SYSTEMD, [stage, inSystemd(commands)], {
    encoding: 'utf8',
    timeout: 500_000,
  });
  t.equal(status, 0, stdout + stderr);
  t.same(
    stdout.split('\n').filter((line) => line.startsWith('found ')),
    [
      'found first: 200',
      'found socket: waitd www-data 660',
      'found proxy without a token: 401',
      'found proxy with a token: 200',
      'found proxy by another user: 000',
      'found root by the first socket: 200',
      'found the process: running',
    ],
  );
  t.end();
});
