import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Pair } from './certificates.ts';
import { type Change, sectionOf } from './proxies-document.ts';

/** The ports, the socket and the certificate of a proxy under test. */
export interface Site {
  http: number;
  https: number;
  /** The daemon's. */
  socket: string;
  certificate: Pair;
}

/** A proxy of docs/how-to/proxies.md, as Debian's package runs it. */
export interface Kind {
  /** Its heading. */
  name: string;
  /** The language of its block. */
  language: string;
  program: string;
  /** The user of Debian's package; its group is the one of the daemon's socket. */
  user: string;
  /** Replaces ports and paths of its block by those of the test, and defaults by a second. */
  replacements(site: Site, directory: string): Change[];
  /**
   * Writes its files; the main one sets the program's default timeout to a second.
   * @returns the command
   */
  lay(block: string, directory: string): string[];
}

/** Writes a file. @returns its path */
function write(directory: string, name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

/** The modules that Debian's package enables and that take part in a request. */
const APACHE_MODULES = [
  'mpm_event',
  'access_compat',
  'alias',
  'auth_basic',
  'authn_core',
  'authz_core',
  'authz_host',
  'deflate',
  'env',
  'filter',
  'mime',
  'reqtimeout',
  'setenvif',
];

/** Lists the files that `a2enmod` links: modules after those they depend on, each with its settings. */
function apacheModules(names: readonly string[], found = new Set<string>()): Set<string> {
  const available = '/etc/apache2/mods-available';
  for (const name of names) {
    const load = join(available, `${name}.load`);
    if (found.has(load)) continue;
    const [, needed = ''] = /^# Depends:(.*)$/m.exec(readFileSync(load, 'utf8')) ?? [];
    apacheModules(needed.trim().split(' ').filter(Boolean), found);
    found.add(load);
    const settings = join(available, `${name}.conf`);
    if (existsSync(settings)) found.add(settings);
  }
  return found;
}

export const nginx: Kind = {
  name: 'nginx',
  language: 'nginx',
  program: '/usr/sbin/nginx',
  user: 'www-data',
  replacements: ({ http, https, socket, certificate }) => [
    ['listen 443 ', `listen 127.0.0.1:${https} `],
    ['127.0.0.1:8080', `127.0.0.1:${http}`],
    ['/run/waitd/proxy.sock', socket],
    ['/etc/ssl/waitd.pem', certificate.cert],
    ['/etc/ssl/private/waitd.key', certificate.key],
  ],
  lay(block, directory) {
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    const main = write(
      directory,
      'nginx.conf',
      `user www-data;
pid ${directory}/pid;
error_log stderr;
events { worker_connections 768; }
http {
  access_log off;
  proxy_read_timeout 1s;
  ${temporary.map((name) => `${name}_temp_path ${directory}/${name};`).join('\n  ')}
  include ${write(directory, 'waitd.conf', block)};
}
`,
    );
    return [this.program, '-e', 'stderr', '-g', 'daemon off;', '-c', main];
  },
};

export const haproxy: Kind = {
  name: 'HAProxy',
  language: 'haproxy',
  program: '/usr/sbin/haproxy',
  user: 'haproxy',
  replacements: ({ http, https, socket, certificate }, directory) => [
    ['bind :443 ', `bind 127.0.0.1:${https} `],
    ['127.0.0.1:8080', `127.0.0.1:${http}`],
    ['/run/waitd/proxy.sock', socket],
    ['/etc/haproxy/waitd.pem', write(directory, 'both.pem', [certificate.cert, certificate.key].map(read).join(''))],
    ['timeout client 50s', 'timeout client 1s'],
    ['timeout server 50s', 'timeout server 1s'],
  ],
  lay(block, directory) {
    return [this.program, '-db', '-f', write(directory, 'haproxy.cfg', block)];
  },
};

export const caddy: Kind = {
  name: 'Caddy',
  language: 'caddyfile',
  program: '/usr/bin/caddy',
  user: 'caddy',
  replacements: ({ http, https, socket, certificate }, directory) => {
    const [cert, key] = Object.entries(certificate).map(([name, path]) => write(directory, `${name}.pem`, read(path)));
    return [
      ['auto_https disable_redirects', 'auto_https disable_redirects\n\tadmin off\n\tdefault_bind 127.0.0.1'],
      ['https://waitd.example', `https://waitd.example:${https}`],
      [':8080', `:${http}`],
      ['/run/waitd/proxy.sock', socket],
      ['/etc/caddy/waitd.pem', cert!],
      ['/etc/caddy/waitd.key', key!],
    ];
  },
  lay(block, directory) {
    const file = write(directory, 'Caddyfile', block);
    const as = ['setpriv', '--reuid=caddy', '--regid=caddy', '--clear-groups', 'env', `HOME=${directory}`];
    return [...as, this.program, 'run', '--config', file, '--adapter', 'caddyfile'];
  },
};

export const apache: Kind = {
  name: 'Apache httpd',
  language: 'apache',
  program: '/usr/sbin/apache2',
  user: 'www-data',
  replacements: ({ http, https, socket, certificate }) => [
    ['*:443', `127.0.0.1:${https}`],
    ['127.0.0.1:8080', `127.0.0.1:${http}`],
    ['/run/waitd/proxy.sock', socket],
    ['/etc/ssl/waitd.pem', certificate.cert],
    ['/etc/ssl/private/waitd.key', certificate.key],
  ],
  lay(block, directory) {
    const [, enabled = ''] = /`a2enmod ([^`]*)`/.exec(sectionOf(this.name)) ?? [];
    const [https] = /127\.0\.0\.1:\d+(?=>\n[^<]*SSLEngine)/.exec(block) ?? [];
    const main = write(
      directory,
      'apache2.conf',
      `ServerRoot /etc/apache2
DefaultRuntimeDir ${directory}
PidFile ${directory}/pid
ErrorLog ${directory}/error.log
ServerName localhost
User www-data
Group www-data
Timeout 1
Listen ${https}
${[...apacheModules([...APACHE_MODULES, ...enabled.split(' ')])].map((path) => `Include ${path}`).join('\n')}
TypesConfig /etc/mime.types
Include ${write(directory, 'waitd.conf', block)}
`,
    );
    return ['env', `APACHE_RUN_DIR=${directory}`, this.program, '-DFOREGROUND', '-f', main];
  },
};

const read = (path: string): string => readFileSync(path, 'utf8');
