import { z } from 'zod';
import { resources } from '../../schemas/vocabulary.ts';
import type { Quotas } from './quotas.ts';
import { openScopes, type Rights } from './rights.ts';
import { CLIENT_NAME, TOKEN_HASH } from './tokens.ts';

/** A client's entry in a policy. */
export interface Entry {
  rights: Rights;
  quotas: Quotas;
  /** The SHA-256 hashes of the client's tokens, in hexadecimal. */
  tokens: string[];
}

/** The rights of each client. A client without an entry has those of the default; without a default it is refused. */
export interface Policy {
  clients: ReadonlyMap<string, Entry>;
  default: Entry | null;
}

const absolute = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path');
const user = z.union([z.int().min(0).max(4294967294), z.string().regex(/^[^\0:]{1,256}$/)], {
  error: 'must be a user name or a uid',
});

const bound = z.union([z.int().min(0), z.literal('unlimited')], { error: 'must be a whole number or "unlimited"' });
const CgroupSchema = z.strictObject({
  memoryMax: z.int().min(4096).optional(),
  pidsMax: z.int().min(1).optional(),
  cpuPercent: z.number().min(1).optional(),
});

const SpawnSchema = z.strictObject({
  programs: z.array(absolute),
  users: z.array(user).default([]),
  directories: z.array(absolute).default([]),
  environment: z.array(z.string().regex(/^[^=*\0]*\*?$/, 'must be a name, or a prefix followed by *')).default([]),
  nice: z.strictObject({ min: z.int().min(-20).max(19) }).optional(),
  limits: z.partialRecord(z.enum(resources), bound).default({}),
  umask: z
    .string()
    .regex(/^[0-7]{3,4}$/, 'must be three or four octal digits, in quotes')
    .optional(),
  maxLifetimeMs: z.int().min(1).max(2147483647).optional(),
  cgroup: z
    .union([z.boolean(), CgroupSchema], { error: 'must be true, false, or an object with limits' })
    .default(false),
});

const SPAWN = 'must be true, false, or an object with programs';

/** Not a zod union, whose error would not give the place inside the object. */
const SpawnRight = z.unknown().transform((value, context): z.infer<typeof SpawnSchema> | boolean => {
  if (typeof value === 'boolean') return value;
  const isRule = typeof value === 'object' && value !== null && 'programs' in value;
  const { data, error } = SpawnSchema.safeParse(value);
  if (data !== undefined) return data;
  if (!isRule) context.addIssue({ code: 'custom', message: SPAWN });
  else for (const issue of error.issues) context.issues.push({ ...issue, input: value } as z.core.$ZodRawIssue);
  return z.NEVER;
});

const count = z.int().min(0);
const rate = z.number().positive();
const QuotasSchema = z.strictObject({
  handles: count.optional(),
  parkedWaits: count.optional(),
  sockets: count.optional(),
  subscriptions: count.optional(),
  connections: count.min(1).optional(),
  spawnsPerSecond: rate.optional(),
  requestsPerSecond: rate.optional(),
  outputBytes: count.optional(),
  terminals: count.optional(),
});

const rights = {
  open: z.enum(openScopes).default('none'),
  spawn: SpawnRight.default(false),
  signal: z.boolean().default(false),
  input: z.boolean().optional(),
  observe: z.boolean().default(false),
  admin: z.boolean().default(false),
  metrics: z.boolean().default(false),
  quotas: QuotasSchema.default({}),
};
const DefaultSchema = z.strictObject(rights);
const ClientSchema = z.strictObject({
  ...rights,
  tokens: z
    .array(z.string().regex(TOKEN_HASH, 'must be sha256: followed by 64 hexadecimal digits; see waitd token'))
    .default([]),
});

/** The schema of the policy file. A right that is not given is refused. */
export const PolicySchema = z
  .strictObject({
    clients: z
      .record(z.string().regex(CLIENT_NAME, 'must be a client name of letters, digits and . _ : @ / -'), ClientSchema)
      .default({}),
    default: DefaultSchema.optional(),
  })
  .superRefine(({ clients, default: others }, context) => {
    const fail = (path: (string | number)[], message: string): void =>
      context.addIssue({ code: 'custom', path, message });
    const owners = new Map<string, string>();
    for (const [name, { open, tokens }] of Object.entries(clients)) {
      if (open === 'uid' && uidOf(name) === null)
        fail(['clients', name, 'open'], 'uid is only for clients that are users, such as uid:1000');
      for (const [index, token] of tokens.entries()) {
        const owner = owners.get(token);
        if (owner !== undefined) fail(['clients', name, 'tokens', index], `is already a token of ${owner}`);
        owners.set(token, name);
      }
    }
    if (others?.open === 'uid') fail(['default', 'open'], 'uid is only for clients that are users, such as uid:1000');
  });

/** Converts a parsed policy file to a policy. */
export function policyOf({ clients, default: others }: z.infer<typeof PolicySchema>): Policy {
  return {
    clients: new Map(Object.entries(clients).map(([name, entry]) => [name, entryOf(entry, entry.tokens)])),
    default: others === undefined ? null : entryOf(others, []),
  };
}

/** Builds an entry. `admin` implies every other right. */
function entryOf({ quotas, ...given }: Omit<z.infer<typeof ClientSchema>, 'tokens'>, tokens: string[]): Entry {
  const { open, spawn, signal, input = signal, observe, admin, metrics } = given;
  const rights: Rights = admin
    ? {
        open: 'any',
        spawn: spawn === false ? true : spawn,
        signal: true,
        input: true,
        observe: true,
        admin,
        metrics: true,
      }
    : { open, spawn, signal, input, observe, admin, metrics: metrics || observe };
  return { rights, quotas, tokens: tokens.map((token) => token.slice('sha256:'.length).toLowerCase()) };
}

/** Returns the uid of a client named `uid:<n>`, or `null` for any other name. */
export function uidOf(client: string): number | null {
  const match = /^uid:(\d{1,10})$/.exec(client);
  return match === null ? null : Number(match[1]);
}
