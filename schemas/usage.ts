import { z } from 'zod';

const count = (description: string) => z.int().min(0).nullable().meta({ description });

export const Usage = z
  .object({
    cpu: z
      .object({
        userUs: z.int().min(0).meta({ description: 'CPU time in user mode, in microseconds.' }),
        systemUs: z.int().min(0).meta({ description: 'CPU time in the kernel, in microseconds.' }),
      })
      .meta({ title: 'CpuTime' })
      .nullable()
      .meta({
        description:
          'CPU time so far, of ended threads too. The sum is exact; the kernel estimates how it divides where it counts by ticks.',
      }),
    rssKiB: count('Resident memory in KiB: of a cgroup the anonymous and the mapped pages.'),
    threads: count('How many threads there are.'),
    descriptors: count('How many open descriptors there are. Null before Linux 6.2.'),
    readBytes: count('Bytes that storage has read for it so far, page cache not counted.'),
    writeBytes: count('Bytes that it has caused to be written to storage so far.'),
    processes: count('How many processes these numbers are of: 1, or all of the cgroup.'),
  })
  .meta({
    id: 'Usage',
    description: 'What a running process, or its cgroup, uses now. A field is null if the kernel does not tell it.',
    examples: [
      {
        cpu: { userUs: 1_204_310, systemUs: 80_022 },
        rssKiB: 51_200,
        threads: 11,
        descriptors: 23,
        readBytes: 4096,
        writeBytes: 0,
        processes: 1,
      },
    ],
  });
export type Usage = z.infer<typeof Usage>;
