/** Bytes that are not a valid request, each with its name. The daemon must not wait for their sender. */
export function rawRequests(): [name: string, bytes: Buffer][] {
  const text = (lines: string): Buffer => Buffer.from(lines, 'latin1');
  const request = (line: string, ...headers: string[]): string =>
    [line, 'Host: localhost', ...headers, '', ''].join('\r\n');
  const post = (headers: string[], body: string): string =>
    request('POST /v1/poll HTTP/1.1', 'Content-Type: application/json', ...headers) + body;
  return [
    ['nothing but a line end', text('\r\n')],
    ['bare line feeds', text('GET /livez HTTP/1.1\nHost: localhost\n\n')],
    ['no version', text('GET /livez\r\n\r\n')],
    ['another version', text(request('GET /livez HTTP/3.7'))],
    ['HTTP/1.0', text(request('GET /livez HTTP/1.0'))],
    ['HTTP/2 preface', text('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')],
    ['a TLS hello', Buffer.from('160301020001000001fc0303', 'hex')],
    ['zeros', Buffer.alloc(1000)],
    ['noise', Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 73 + 11) % 256))],
    ['an unknown method', text(request('BREW /livez HTTP/1.1'))],
    ['an endless method', text('G'.repeat(100_000))],
    ['a path that never ends', text(`GET /${'x'.repeat(100_000)}`)],
    ['headers that never end', text(`${request('GET /livez HTTP/1.1').slice(0, -2)}${'X-Y: z\r\n'.repeat(20_000)}`)],
    ['one header that is too long', text(request('GET /livez HTTP/1.1', `X-Long: ${'x'.repeat(70_000)}`))],
    ['a header without a colon', text(request('GET /livez HTTP/1.1', 'nonsense'))],
    ['a header with a space before its colon', text(request('GET /livez HTTP/1.1', 'X-Y : z'))],
    ['a folded header', text(request('GET /livez HTTP/1.1', 'X-Y: a\r\n b'))],
    ['a NUL in a header', text(request('GET /livez HTTP/1.1', 'X-Y: a\0b'))],
    ['high bytes in the path', text(request('GET /v1/handles/\xff\xfe HTTP/1.1'))],
    ['two hosts', text(request('GET /livez HTTP/1.1', 'Host: other'))],
    ['no host', text('GET /livez HTTP/1.1\r\n\r\n')],
    ['a proxy request', text(request('GET http://localhost/livez HTTP/1.1'))],
    ['CONNECT', text(request('CONNECT localhost:80 HTTP/1.1'))],
    ['OPTIONS *', text(request('OPTIONS * HTTP/1.1'))],
    ['two lengths', text(post(['Content-Length: 2', 'Content-Length: 3'], '{}'))],
    ['a length and chunks', text(post(['Content-Length: 2', 'Transfer-Encoding: chunked'], '0\r\n\r\n'))],
    ['a length that is not a number', text(post(['Content-Length: two'], '{}'))],
    ['a negative length', text(post(['Content-Length: -1'], '{}'))],
    ['a length beyond 64 bits', text(post(['Content-Length: 99999999999999999999'], '{}'))],
    ['a length over the limit', text(post([`Content-Length: ${2 ** 40}`], '{}'))],
    ['a body longer than its length', text(post(['Content-Length: 2'], '{}{}{}{}'))],
    ['a chunk with an invalid size', text(post(['Transfer-Encoding: chunked'], 'zz\r\n{}\r\n0\r\n\r\n'))],
    ['a chunk beyond 64 bits', text(post(['Transfer-Encoding: chunked'], 'ffffffffffffffffff\r\n{}'))],
    ['a chunk longer than its size', text(post(['Transfer-Encoding: chunked'], '1\r\n{}\r\n0\r\n\r\n'))],
    ['an endless chunk extension', text(post(['Transfer-Encoding: chunked'], `2;${'x'.repeat(100_000)}`))],
    ['an unknown encoding', text(post(['Transfer-Encoding: rot13'], '{}'))],
    ['chunked twice', text(post(['Transfer-Encoding: chunked, chunked'], '0\r\n\r\n'))],
    ['trailers', text(post(['Transfer-Encoding: chunked'], `2\r\n{}\r\n0\r\n${'X-T: y\r\n'.repeat(5000)}\r\n`))],
    ['an expectation', text(post(['Content-Length: 2', 'Expect: miracles'], '{}'))],
    ['a thousand requests in one', text(request('GET /livez HTTP/1.1').repeat(1000))],
    ['an upgrade to nothing', text(request('GET /livez HTTP/1.1', 'Connection: Upgrade', 'Upgrade: foo'))],
    [
      'an upgrade of a POST',
      text(request('POST /v1/events HTTP/1.1', 'Connection: Upgrade', 'Upgrade: websocket', 'Content-Length: 0')),
    ],
    [
      'an upgrade without a key',
      text(
        request('GET /v1/events HTTP/1.1', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'),
      ),
    ],
    [
      'an upgrade on another path',
      text(
        request(
          'GET /v1/node HTTP/1.1',
          'Connection: Upgrade',
          'Upgrade: websocket',
          'Sec-WebSocket-Version: 13',
          'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
        ),
      ),
    ],
  ];
}

/** A client's WebSocket handshake. */
export const HANDSHAKE = [
  'GET /v1/events HTTP/1.1',
  'Host: localhost',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
  '',
  '',
].join('\r\n');

interface Frame {
  /** FIN, RSV1-3 and the opcode. */
  first: number;
  payload?: Buffer | string;
  masked?: boolean;
  /** The length in the header, if it differs from the real one. */
  length?: number;
  /** Whether to encode the length in eight bytes, however small. */
  long?: boolean;
}

/** Encodes a frame (RFC 6455 5.2). */
export function frame({ first, payload = '', masked = true, length, long = false }: Frame): Buffer {
  const data = Buffer.from(payload);
  const said = length ?? data.length;
  const head = [first];
  const mask = masked ? 0x80 : 0;
  if (said < 126 && !long) head.push(mask | said);
  else if (said < 65536 && !long) head.push(mask | 126, said >> 8, said & 0xff);
  else {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(said));
    head.push(mask | 127, ...bytes);
  }
  // A zero mask leaves the payload unchanged.
  return Buffer.concat([Buffer.from(head), masked ? Buffer.alloc(4) : Buffer.alloc(0), data]);
}

const TEXT = 0x81;
const BINARY = 0x82;
const CLOSE = 0x88;
const PING = 0x89;

/**
 * Bytes after a valid handshake, with the acceptable close codes of RFC 6455 7.4.1; `null` if the socket stays open.
 */
export function wrongFrames(): [name: string, bytes: Buffer, codes: readonly number[] | null][] {
  const code = (value: number): Buffer => {
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16BE(value);
    return bytes;
  };
  return [
    ['unmasked', frame({ first: TEXT, payload: '{}', masked: false }), [1002]],
    ['a reserved bit', frame({ first: TEXT | 0x40, payload: '{}' }), [1002]],
    ['all reserved bits', frame({ first: TEXT | 0x70, payload: '{}' }), [1002]],
    ['a reserved opcode', frame({ first: 0x83, payload: '{}' }), [1002]],
    ['a reserved control opcode', frame({ first: 0x8b }), [1002]],
    ['a continuation without a message', frame({ first: 0x80, payload: '{}' }), [1002]],
    [
      'a new message within one',
      Buffer.concat([frame({ first: 0x01, payload: '{' }), frame({ first: TEXT, payload: '}' })]),
      [1002],
    ],
    ['a fragmented ping', frame({ first: 0x09, payload: 'x' }), [1002]],
    ['a ping that is too long', frame({ first: PING, payload: 'x'.repeat(126) }), [1002]],
    ['a close that is too long', frame({ first: CLOSE, payload: 'x'.repeat(126) }), [1002]],
    ['a close of one byte', frame({ first: CLOSE, payload: 'x' }), [1002]],
    ['a close with a code that must not be sent', frame({ first: CLOSE, payload: code(1006) }), [1002]],
    ['a close with an unassigned code', frame({ first: CLOSE, payload: code(42) }), [1002]],
    [
      'a close whose reason is not UTF-8',
      frame({ first: CLOSE, payload: Buffer.concat([code(1000), Buffer.from([0xff])]) }),
      [1007],
    ],
    ['text that is not UTF-8', frame({ first: TEXT, payload: Buffer.from([0xc3, 0x28]) }), [1007]],
    ['a lone surrogate', frame({ first: TEXT, payload: Buffer.from([0xed, 0xa0, 0x80]) }), [1007]],
    ['a frame that is too long', frame({ first: TEXT, payload: 'x'.repeat(200_000) }), [1009]],
    ['a length far over the limit', frame({ first: TEXT, length: 2 ** 52 }), [1009]],
    [
      'fragments that exceed the limit together',
      Buffer.concat([
        frame({ first: 0x01, payload: 'x'.repeat(100_000) }),
        frame({ first: 0x80, payload: 'x'.repeat(100_000) }),
      ]),
      [1009],
    ],
    ['a valid close', frame({ first: CLOSE, payload: code(1000) }), [1000]],
    ['an empty close', frame({ first: CLOSE }), [1005]],
    ['a short text with a long length', frame({ first: TEXT, payload: '{}', long: true }), null],
    ['binary', frame({ first: BINARY, payload: '{}' }), null],
    ['no JSON', frame({ first: TEXT, payload: 'nonsense' }), null],
    ['an empty text', frame({ first: TEXT }), null],
    ['JSON that is not a frame', frame({ first: TEXT, payload: '[1,2,{"type":null}]' }), null],
    ['a frame of the server', frame({ first: TEXT, payload: '{"type":"hello","node":"x","head":1,"oldest":1}' }), null],
    ['fields that are unknown', frame({ first: TEXT, payload: '{"type":"subscribe","handles":["h"],"more":1}' }), null],
    ['a prototype', frame({ first: TEXT, payload: '{"__proto__":{"type":"subscribe"},"handles":[]}' }), null],
    ['deep JSON', frame({ first: TEXT, payload: '['.repeat(50_000) }), null],
    [
      'many unknown handles',
      frame({
        first: TEXT,
        payload: JSON.stringify({ type: 'subscribe', handles: Array.from({ length: 1000 }, (_, n) => `h_${n}`) }),
      }),
      null,
    ],
    [
      'a since that is not a seq',
      frame({ first: TEXT, payload: '{"type":"subscribe","handles":["h"],"since":-1}' }),
      null,
    ],
    ['fifty pings', Buffer.concat(Array.from({ length: 50 }, () => frame({ first: PING, payload: 'x' }))), null],
    ['unsolicited pongs', frame({ first: 0x8a, payload: 'x' }), null],
  ];
}
