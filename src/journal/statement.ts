/** An SQL statement and its values. */
export type Statement = [sql: string, values: (string | number | null)[]];

/** When and in which boot a change was made. */
export interface Moment {
  /** The boot to which pids and inodes belong. */
  boot: string;
  /** Milliseconds on the journal's clock. */
  at: number;
}
