import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** The paths of a certificate and its key, PEM. */
export interface Pair {
  cert: string;
  key: string;
}

export interface Wishes {
  /** Lines `KIND.n=value` of an OpenSSL alt_names section. An empty list omits the extension. */
  names?: readonly string[];
  usage?: 'serverAuth' | 'clientAuth';
  /** Whether it expired yesterday. */
  expired?: true;
}

/** A certificate authority in a directory, created with the openssl command. */
export class Authority {
  readonly #directory: string;
  readonly #pair: Pair;
  #made = 0;

  constructor(directory: string, name: string) {
    this.#directory = directory;
    this.#pair = this.#paths(name);
    const config = this.#config(name, ['basicConstraints=critical,CA:TRUE', 'keyUsage=keyCertSign']);
    run('req', '-x509', '-new', ...this.#newKey(this.#pair), '-config', config, '-days', '2', '-out', this.#pair.cert);
  }

  get cert(): string {
    return this.#pair.cert;
  }

  issue(name: string, { names = [], usage = 'clientAuth', expired }: Wishes = {}): Pair {
    const pair = this.#paths(name);
    const config = this.#config(name, [
      `extendedKeyUsage=${usage}`,
      ...(names.length > 0 ? ['subjectAltName=@names', '[names]', ...names] : []),
    ]);
    const request = join(this.#directory, `${name}.csr`);
    run('req', '-new', ...this.#newKey(pair), '-config', config, '-out', request);
    const until = new Date(Date.now() + (expired ? -1 : 1) * 86_400_000);
    const from = new Date(Date.now() - 2 * 86_400_000);
    const time = (date: Date): string => `${date.toISOString().replace(/\D/g, '').slice(0, 14)}Z`;
    // Only `openssl ca` can create a certificate that has already expired.
    const database = join(this.#directory, 'index.txt');
    writeFileSync(database, '');
    this.#made += 1;
    const serial = join(this.#directory, 'serial');
    writeFileSync(serial, String(1000 + this.#made));
    const ca = join(this.#directory, 'ca.cnf');
    writeFileSync(
      ca,
      `[ca]\ndefault_ca=d\n[d]\ndatabase=${database}\nserial=${serial}\nnew_certs_dir=${this.#directory}\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n`,
    );
    const { cert, key } = this.#pair;
    const dates = ['-startdate', time(from), '-enddate', time(until)];
    run(
      'ca',
      '-batch',
      '-notext',
      '-config',
      ca,
      '-cert',
      cert,
      '-keyfile',
      key,
      '-extfile',
      config,
      '-extensions',
      'v',
      ...dates,
      '-in',
      request,
      '-out',
      pair.cert,
    );
    return pair;
  }

  #newKey({ key }: Pair): string[] {
    return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key];
  }

  #paths(name: string): Pair {
    return { cert: join(this.#directory, `${name}.pem`), key: join(this.#directory, `${name}-key.pem`) };
  }

  #config(name: string, extensions: readonly string[]): string {
    const path = join(this.#directory, `${name}.cnf`);
    const lines = ['[req]', 'distinguished_name=d', 'x509_extensions=v', 'prompt=no', '[d]', `CN=${name}`, '[v]'];
    writeFileSync(path, [...lines, ...extensions, ''].join('\n'));
    return path;
  }
}

function run(...args: string[]): void {
  execFileSync('openssl', args, { stdio: 'pipe' });
}
