import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Attached } from '../support/attached.ts';
import { Daemon, eventually, temporaryDirectory } from '../support/harness.ts';

const ESCAPE = '\x1b';
const CTRL_D = '\x04';
const size = { rows: 24, cols: 80 };

const daemon = await Daemon.start(t);

/** Returns the options of a test that needs a program. */
function needs(program: string): { skip: string | false } {
  const isThere = spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
  return { skip: !isThere && `${program} is not installed` };
}

/** A program on a terminal, with an attached socket that comes back where it was. */
class Console {
  readonly id: string;
  readonly #daemon: Daemon;
  #socket: Attached;
  /** What it has shown. */
  #before = '';

  private constructor(daemon: Daemon, id: string) {
    this.#daemon = daemon;
    this.id = id;
    this.#socket = new Attached(daemon, id);
  }

  static async open(daemon: Daemon, argv: string[], more: object = {}): Promise<Console> {
    const { id } = await daemon.spawn(argv, {}, { tty: size, ...more });
    return new Console(daemon, id);
  }

  get text(): string {
    return this.#before + this.#socket.text();
  }

  get socket(): Attached {
    return this.#socket;
  }

  shows(pattern: RegExp): Promise<void> {
    return this.#socket.until(() => pattern.test(this.text), `${pattern} in ${JSON.stringify(this.text.slice(-2000))}`);
  }

  type(keys: string | Buffer): Promise<void> {
    return this.#socket.write(keys);
  }

  /** Attaches again behind what was received. */
  async again(): Promise<void> {
    const { at } = this.#socket;
    this.#before = this.text;
    this.#socket = new Attached(this.#daemon, this.id, { query: `?stdout=${at.stdout}` });
    await this.#socket.first('attached');
  }
}

const fileIn = (t: Test, content: string): string => {
  const path = join(temporaryDirectory(t), 'text');
  writeFileSync(path, content);
  return path;
};

t.test('vim edits, and its window follows the size', needs('vi'), async (t) => {
  const path = fileIn(t, '');
  const vim = await Console.open(daemon, ['vi', '-u', 'NONE', '-i', 'NONE', '-n', path]);
  await vim.shows(/"[^"]*text"/);
  await vim.type('iHällo → 世界');
  await vim.shows(/世界/);
  await vim.type(ESCAPE);
  const seesSize = async (seen: string): Promise<boolean> => {
    await vim.type(`:silent !stty size >${path}.size\r`);
    return existsSync(`${path}.size`) && readFileSync(`${path}.size`, 'utf8') === `${seen}\n`;
  };
  await eventually(() => seesSize('24 80'));
  vim.socket.send({ type: 'resize', rows: 33, cols: 101 });
  await eventually(() => seesSize('33 101'));
  await vim.type(':x\r');
  await vim.socket.end();
  t.match(await vim.socket.first('exited'), { outcome: { reason: 'exited', exitCode: 0 } });
  t.equal(readFileSync(path, 'utf8'), 'Hällo → 世界\n');
});

t.test('vim does not notice an upgrade in the middle of a line', needs('vi'), async (t) => {
  const upgraded = await Daemon.start(t);
  const path = fileIn(t, '');
  const vim = await Console.open(upgraded, ['vi', '-u', 'NONE', '-i', 'NONE', '-n', path]);
  await vim.shows(/"[^"]*text"/);
  await vim.type('ibefore, ');
  await vim.shows(/before, /);
  await upgraded.upgrade();
  t.match(await vim.socket.closed, { code: 1012 });
  await vim.again();
  await vim.type('during');
  await upgraded.upgrade();
  await vim.socket.closed;
  await vim.again();
  await vim.type(` and after${ESCAPE}:x\r`);
  await vim.socket.end();
  t.equal(readFileSync(path, 'utf8'), 'before, during and after\n');
  t.equal(await upgraded.stop(), 0);
});

t.test('nano writes a file', needs('nano'), async (t) => {
  const path = fileIn(t, '');
  const nano = await Console.open(daemon, ['nano', '--ignorercfiles', path]);
  await nano.shows(/\^X/);
  await nano.type('ein Wörtchen\x0f\r');
  await nano.shows(/Wrote 1 line/);
  await nano.type('\x18');
  await nano.socket.end();
  t.equal(readFileSync(path, 'utf8'), 'ein Wörtchen\n');
});

t.test('less pages and finds', needs('less'), async (t) => {
  const lines = Array.from({ length: 500 }, (_, at) => `line ${at + 1}`).join('\n');
  const less = await Console.open(daemon, ['less', fileIn(t, lines)], { env: { LESSHISTFILE: '-' } });
  await less.shows(/line 23\b/);
  t.notMatch(less.text, /line 24\b/, 'a page has 23 lines');
  await less.type(' ');
  await less.shows(/line 46\b/);
  await less.type('/line 400\r');
  await less.shows(/line 400\b/);
  await less.type('q');
  await less.socket.end();
});

t.test('top shows processes, and Ctrl-C ends it', needs('top'), async (t) => {
  const top = await Console.open(daemon, ['top', '-d', '1']);
  await top.shows(/PID.*USER[\s\S]*%CPU/);
  await top.type('\x03');
  await top.socket.end();
  t.match(await top.socket.first('exited'), { outcome: { reason: 'exited', exitCode: 0 } });
});

t.test('python3 edits its lines and reads the end of its input', needs('python3'), async (t) => {
  const python = await Console.open(daemon, ['python3', '-q'], { env: { PYTHON_HISTORY: '/dev/null', HOME: '/' } });
  await python.shows(/>>> /);
  await python.type('6 * 72');
  await python.shows(/7.*2/);
  await python.type('\x7f\r');
  // An EOF character that comes before the prompt meets other settings of the terminal.
  await python.shows(/42[\s\S]*>>> /);
  python.socket.send({ type: 'eof' });
  await python.socket.end();
  t.match(await python.socket.first('exited'), { outcome: { reason: 'exited', exitCode: 0 } });
});

t.test('two consoles of one shell see the same, and the last size counts', async (t) => {
  const shell = await Console.open(daemon, ['bash', '--norc', '-i'], { env: { PS1: 'P> ', TERM: 'dumb' } });
  await shell.shows(/P> $/);
  const other = new Attached(daemon, shell.id);
  await other.first('attached');
  await shell.type('echo from the first\n');
  await shell.shows(/\r\nfrom the first\r\n/);
  await other.write('echo from the second\n');
  await shell.shows(/\r\nfrom the second\r\n/);
  shell.socket.send({ type: 'resize', rows: 10, cols: 20 });
  await shell.type('stty size\n');
  await shell.shows(/\r\n10 20\r\n/);
  other.send({ type: 'resize', rows: 30, cols: 40 });
  await other.write('stty size\n');
  await other.until(() => other.text().endsWith('\r\n30 40\r\nP> '));
  await other.write(CTRL_D);
  await Promise.all([shell.socket.end(), other.end()]);
  t.equal(other.text(), shell.text);
});

t.test('100 MB go through a terminal both ways, and the daemon does not grow', async (t) => {
  const { id } = await daemon.spawn(['sh', '-c', 'stty raw -echo; echo ready; exec cat'], {}, { tty: size });
  const socket = new Attached(daemon, id, { keeps: false });
  await socket.until(() => socket.at.stdout === 6);
  const rss = (): number =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))![1]) * 1024;
  const before = rss();
  const block = Buffer.alloc(2 ** 16, 'abcdefghijklmno\n');
  const BLOCKS = 1600;
  for (let sent = 0; sent < BLOCKS; sent += 1) {
    await socket.write(block);
    if (socket.ws.bufferedAmount > 2 ** 20) await socket.until(() => socket.ws.bufferedAmount < 2 ** 20);
  }
  const total = 6 + BLOCKS * block.length;
  await socket.until(() => socket.at.stdout === total, 'all of it has come back');
  t.ok(rss() < before + 64e6, 'the daemon does not grow');
  await daemon.signal(id, 'SIGKILL');
  await socket.end();
});

t.teardown(() => daemon.stop());
