const FIN_AND_TEXT = 0x81;
const TWO_BYTES = 126;
const EIGHT_BYTES = 127;

let last: { text: string; bytes: Buffer } = { text: '', bytes: Buffer.alloc(0) };

/**
 * Encodes a text as one unmasked WebSocket frame (RFC 6455 5.2). Caches the last frame, so that an event for many sockets is encoded
 * once.
 */
export function textFrame(text: string): Buffer {
  if (last.text !== text) last = { text, bytes: encode(text) };
  return last.bytes;
}

function encode(text: string): Buffer {
  const length = Buffer.byteLength(text);
  const header = headerOf(length);
  const bytes = Buffer.allocUnsafe(header.length + length);
  header.copy(bytes);
  bytes.write(text, header.length);
  return bytes;
}

function headerOf(length: number): Buffer {
  if (length < TWO_BYTES) return Buffer.from([FIN_AND_TEXT, length]);
  if (length < 2 ** 16) return Buffer.from([FIN_AND_TEXT, TWO_BYTES, length >> 8, length & 0xff]);
  const header = Buffer.from([FIN_AND_TEXT, EIGHT_BYTES, 0, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt32BE(length, 6);
  return header;
}
