import { isUtf8 } from 'node:buffer';
import fc from 'fast-check';
import t from 'tap';
import { decodeTail, LONGEST_REST, type Utf8Tail } from '../src/output/utf8-tail.ts';

/** Decodes the last bytes of a stream as a reader of its file does, which has few of the bytes before them. */
function tailOf(stream: Buffer, wanted: number, { isOpen = false, first = 0 } = {}): Utf8Tail | null {
  const base = Math.max(first, wanted - LONGEST_REST);
  const tail = decodeTail(stream.subarray(base), wanted - base, base > 0, isOpen);
  return tail && { text: tail.text, from: tail.from + base };
}

/** Returns where each character of a text begins, and where the last one ends. */
function boundariesOf(text: string): number[] {
  const boundaries = [0];
  for (const character of text) boundaries.push(boundaries.at(-1)! + Buffer.byteLength(character));
  return boundaries;
}

const texts = fc.string({ unit: 'binary', maxLength: 12 });

t.test('text begins with the first whole character, wherever it is cut', (t) => {
  fc.assert(
    fc.property(texts, (text) => {
      const stream = Buffer.from(text);
      const boundaries = boundariesOf(text);
      for (let wanted = 0; wanted <= stream.length; wanted += 1) {
        const from = boundaries.find((boundary) => boundary >= wanted)!;
        const expected = { text: stream.toString('utf8', from), from };
        // The bytes before may be kept or not.
        for (const isOpen of [false, true])
          for (const first of [0, wanted]) {
            const found = tailOf(stream, wanted, { isOpen, first });
            if (found?.text !== expected.text || found.from !== from) return false;
          }
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.pass('500 texts');
  t.end();
});

t.test('an incomplete character at the end is left out of an open stream, and is no UTF-8 in an ended one', (t) => {
  fc.assert(
    fc.property(texts, (text) => {
      const whole = Buffer.from(text);
      const boundaries = boundariesOf(text);
      for (let size = 0; size <= whole.length; size += 1) {
        const stream = whole.subarray(0, size);
        const end = boundaries.findLast((boundary) => boundary <= size)!;
        for (let wanted = 0; wanted <= size; wanted += 1) {
          const from = Math.min(boundaries.find((boundary) => boundary >= wanted)!, end);
          const open = tailOf(stream, wanted, { isOpen: true });
          if (wanted < size || wanted === end) {
            if (open?.text !== stream.toString('utf8', from, end) || open.from !== from) return false;
          }
          const ended = tailOf(stream, wanted);
          if (end < size && wanted < size && ended !== null) return false;
        }
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.pass('500 texts');
  t.end();
});

t.test('text is what the stream has, of any bytes', (t) => {
  const bytes = fc.uint8Array({ maxLength: 12 });
  // Mostly the bytes of which wrong sequences are made.
  const edges = fc.array(fc.constantFrom(0, 0x41, 0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xed, 0xf0, 0x9f, 0xf4, 0xff), {
    maxLength: 10,
  });
  fc.assert(
    fc.property(fc.oneof(bytes, edges), fc.boolean(), (given, isOpen) => {
      const stream = Buffer.from(given);
      for (let wanted = 0; wanted <= stream.length; wanted += 1) {
        const found = tailOf(stream, wanted, { isOpen });
        const window = stream.subarray(wanted);
        if (found === null) {
          if (isUtf8(window)) return false;
          continue;
        }
        const text = Buffer.from(found.text);
        const end = found.from + text.length;
        if (!stream.subarray(found.from, end).equals(text)) return false;
        if (end < stream.length && (!isOpen || stream.length - end > LONGEST_REST)) return false;
        // What is left out at the front is the rest of a character.
        if (found.from > wanted) {
          const cut = [1, 2, 3].filter((back) => isUtf8(stream.subarray(Math.max(0, wanted - back), found.from)));
          if (found.from - wanted > LONGEST_REST || cut.length === 0) return false;
        }
      }
      return true;
    }),
    { numRuns: 3000 },
  );
  t.pass('3000 streams');
  t.end();
});

t.test('a byte order mark and a NUL are text', (t) => {
  t.match(decodeTail(Buffer.from('\ufeffa\0'), 0, false, false), { text: '\ufeffa\0', from: 0 });
  t.match(decodeTail(Buffer.alloc(0), 0, false, true), { text: '', from: 0 });
  t.equal(decodeTail(Buffer.from([0x80]), 0, false, true), null, 'the rest of no character');
  t.match(decodeTail(Buffer.from([0x80]), 0, true, true), { text: '', from: 1 }, 'whose first byte is not kept');
  t.end();
});
