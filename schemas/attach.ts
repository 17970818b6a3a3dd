import { z } from 'zod';
import { Outcome, Rusage, signal } from './common.ts';
import { ErrorFrame } from './events.ts';
import { HandleView } from './handles.ts';
import { WindowSize } from './terminal.ts';

const offset = z.int().min(0);

const from = (stream: string) =>
  z
    .int()
    .min(-1)
    .optional()
    .meta({
      description: `The offset from which ${stream} is sent: 0, the default, for all that is kept, and -1 for only what comes.`,
    });

export const AttachQuery = z.strictObject({
  stdout: from('stdout'),
  stderr: from('stderr'),
  input: z
    .enum(['true', 'false'])
    .default('true')
    .meta({ description: 'With `false` the socket only observes: it needs no right to write, and may not.' }),
});
export type AttachQuery = z.output<typeof AttachQuery>;

const StreamStart = z
  .object({ offset: offset.meta({ description: 'The offset from which the stream is sent.' }) })
  .meta({ id: 'StreamStart', description: 'Where a captured stream begins on a socket.', examples: [{ offset: 0 }] });

const start = (stream: string) =>
  StreamStart.nullable().meta({ description: `Where ${stream} begins. Null if it was not captured.` });

export const AttachedFrame = z
  .object({
    type: z.literal('attached').meta({ description: 'Always `attached`.' }),
    handle: HandleView,
    stdin: z.enum(['open', 'closed', 'none']).meta({
      description:
        'Whether the process can be written to. `none` if its standard input is neither a pipe nor a terminal.',
    }),
    stdout: start('stdout'),
    stderr: start('stderr'),
  })
  .meta({ id: 'AttachedFrame', description: 'The first frame of an attached socket.' });
export type AttachedFrame = z.infer<typeof AttachedFrame>;

export const OutputGapFrame = z
  .object({
    type: z.literal('gap').meta({ description: 'Always `gap`.' }),
    stream: z.enum(['stdout', 'stderr']).meta({ description: 'The stream that has the gap.' }),
    from: offset.meta({ description: 'The offset of the first byte that is missing.' }),
    to: offset.meta({ description: 'The offset after the last byte that is missing.' }),
  })
  .meta({ id: 'OutputGapFrame', description: 'Output that was dropped because of its limit.' });

export const ExitedFrame = z
  .object({
    type: z.literal('exited').meta({ description: 'Always `exited`.' }),
    outcome: Outcome.nullable().meta({ description: 'How the process ended. Null if the kernel does not say.' }),
    rusage: Rusage.nullable().meta({ description: 'What the process used. Null if it is not known.' }),
  })
  .meta({ id: 'ExitedFrame', description: 'The process has ended. Output may follow.' });

export const EndFrame = z
  .object({ type: z.literal('end').meta({ description: 'Always `end`.' }) })
  .meta({ id: 'EndFrame', description: 'The process has ended, and all of its output was sent. The socket closes.' });

/** What the daemon sends over an attached socket, beside bytes. */
export const AttachServerFrame = z
  .discriminatedUnion('type', [AttachedFrame, OutputGapFrame, ExitedFrame, EndFrame, ErrorFrame])
  .meta({
    id: 'AttachServerFrame',
    description:
      'What the daemon sends as text over an attached socket. A binary frame is output: one byte for the stream (1 stdout, 2 stderr), eight for the offset of the first byte, big-endian, then the bytes.',
    examples: [{ type: 'gap', stream: 'stdout', from: 0, to: 4096 }],
  });
export type AttachServerFrame = z.infer<typeof AttachServerFrame>;

/** What a client sends over an attached socket, beside bytes. */
export const AttachClientFrame = z
  .discriminatedUnion('type', [
    WindowSize.extend({ type: z.literal('resize').meta({ description: 'Always `resize`.' }) }).meta({
      id: undefined,
      title: 'ResizeFrame',
      description: 'Sets the size of the terminal.',
      examples: undefined,
    }),
    z.strictObject({ type: z.literal('eof').meta({ description: 'Always `eof`.' }) }).meta({
      title: 'EofFrame',
      description: 'Closes the input after what was sent before. A terminal gets its EOF character.',
    }),
    z
      .strictObject({ type: z.literal('signal').meta({ description: 'Always `signal`.' }), signal })
      .meta({ title: 'SignalFrame', description: 'Sends a signal to the process.' }),
  ])
  .meta({
    id: 'AttachClientFrame',
    description:
      'What a client sends as text over an attached socket. A binary frame is input: one byte 0, then the bytes. It is written as a whole.',
    examples: [{ type: 'signal', signal: 'SIGINT' }],
  });
export type AttachClientFrame = z.output<typeof AttachClientFrame>;
