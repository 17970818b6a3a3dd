import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createServer, type Server, type TLSSocket, type TlsOptions } from 'node:tls';
import type { FastifyBaseLogger } from 'fastify';
import { certificateName } from '../clients/certificate.ts';
import type { Peer } from '../clients/clients.ts';
import type { TlsFiles } from '../config/config.ts';
import { readRegular } from '../files/read-regular.ts';
import { requirePrivate } from '../files/require-private.ts';
import { HANDSHAKE_TIMEOUT_MS } from './limits.ts';

/** The maximum length of a refused certificate's subject in the log. */
const LONGEST_SUBJECT = 200;

/**
 * Makes the TLS server for accepted connections. It does not listen itself.
 * @throws {Error} with one sentence, if a file cannot be read or is not valid, or if other users can read the key
 */
export function tlsServer({ cert, key, clientCa }: TlsFiles, logger: FastifyBaseLogger): Server {
  const files = { cert: readPem(cert), key: readPem(key) };
  requirePrivate(key, 'key');
  const [leaf] = certificatesIn(cert, files.cert);
  requireKeyOf(leaf!, cert, key, files.key);
  const authorities = clientCa === undefined ? null : certificatesIn(clientCa, readPem(clientCa));
  const server = serverOf(cert, {
    ...files,
    minVersion: 'TLSv1.2',
    ALPNProtocols: ['http/1.1'],
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    // A client without a certificate may use a token. So Node.js accepts every client, and `peerByTls` refuses invalid certificates.
    ...(authorities !== null && { ca: authorities.map(String), requestCert: true, rejectUnauthorized: false }),
  });
  server.on('tlsClientError', (err, socket) => {
    logger.debug({ err }, 'TLS handshake failed');
    socket.destroy();
  });
  return server;
}

/**
 * Identifies the peer after a TLS handshake.
 * @returns `refused` if its certificate does not verify
 */
export function peerByTls(socket: TLSSocket, logger: FastifyBaseLogger): Peer | 'refused' {
  const shown = socket.getPeerX509Certificate();
  if (shown === undefined) return 'tcp';
  if (socket.authorized) return { certificate: certificateName(shown.subjectAltName) };
  const { serialNumber } = shown;
  const subject = shown.subject?.slice(0, LONGEST_SUBJECT);
  const reason = String(socket.authorizationError);
  logger.warn({ from: socket.remoteAddress, subject, serialNumber, reason }, 'client certificate refused');
  return 'refused';
}

/** Creates the server. @throws {Error} if OpenSSL refuses the certificate, as for a short key or an unsupported curve */
function serverOf(cert: string, options: TlsOptions): Server {
  try {
    return createServer(options);
  } catch (error) {
    throw new Error(`OpenSSL refuses ${cert}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function readPem(path: string): string {
  try {
    return readRegular(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Error(code === undefined ? message : `${path} cannot be read: ${code}`);
  }
}

/** Parses the certificates of a file, because OpenSSL would accept a file without any as an empty list. */
function certificatesIn(path: string, text: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new Error(`${path} has no certificate: it must be PEM`);
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw new Error(`${path}: its certificate ${index + 1} is not well-formed`);
    }
  });
}

function requireKeyOf(leaf: X509Certificate, cert: string, path: string, text: string): void {
  let key: ReturnType<typeof createPrivateKey>;
  try {
    key = createPrivateKey(text);
  } catch {
    throw new Error(`${path} has no usable key: it must be PEM without a passphrase`);
  }
  if (!leaf.checkPrivateKey(key))
    throw new Error(`${path} is not the key of ${cert}: the daemon's certificate must be the first in the file`);
}
