import { readdirSync } from 'node:fs';
import { Counter, Gauge, Registry } from 'prom-client';
import type { Daemon } from './daemon.ts';
import { droppedLines } from './files/line-writer.ts';

/** The metrics in the Prometheus text format. All values are read at the scrape; nothing is measured in between. */
export class Metrics {
  readonly #registry = new Registry();

  constructor({
    handles,
    lifetimes,
    settlements,
    outputs,
    table,
    parking,
    idempotencyKeys,
    feed,
    reaper,
    journal,
    policy,
    watches,
  }: Daemon) {
    const gauge = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.set(read());
        },
      });
    };
    const counter = <L extends string>(
      name: string,
      help: string,
      label: L | null,
      read: () => Record<string, number>,
    ): void => {
      new Counter({
        name,
        help,
        labelNames: label === null ? [] : [label],
        registers: [this.#registry],
        collect() {
          this.reset();
          for (const [value, count] of Object.entries(read()))
            if (label === null) this.inc(count);
            else this.inc({ [label]: value } as Record<L, string>, count);
        },
      });
    };
    gauge('waitd_live_handles', 'Handles on processes that have not ended.', () => handles.size);
    gauge('waitd_live_processes', 'Processes that handles are held on and that have not ended.', () => table.size);
    gauge('waitd_unsettled_processes', 'Ended children of which something is left.', () => settlements.size);
    gauge('waitd_parked_calls', 'Calls that wait: waitid, poll, terminate.', () => parking.size);
    gauge(
      'waitd_repeated_calls',
      'Calls that wait for the answer to an earlier call with the same idempotency key.',
      () => idempotencyKeys.waiting,
    );
    gauge('waitd_subscribers', 'Open WebSockets, attached ones too, and event streams.', () => feed.size);
    gauge('waitd_kept_groups', 'Descriptors kept for groups that outlive their leader.', () => table.groups.size);
    gauge('waitd_watches', 'Watches for processes that appear.', () => watches.size);
    counter('waitd_watch_scan_seconds_total', 'Time spent scanning /proc for watches.', null, () => ({
      scan: watches.spentMs / 1000,
    }));
    gauge('waitd_journal_head', 'The seq of the newest event.', () => journal.head);
    gauge('waitd_journal_failing', '1 while the journal cannot be written.', () => Number(journal.fault !== null));
    gauge('waitd_output_failing', '1 while captured output cannot be written.', () => Number(outputs.fault !== null));
    gauge('waitd_policy_stale', '1 while the policy file is refused and an older version is in force.', () =>
      Number(policy?.stale ?? false),
    );
    counter('waitd_ended_total', 'Processes that ended while a handle was held on them.', 'reason', () => {
      const { orphans: _, ...reasons } = reaper.counts;
      return reasons;
    });
    counter('waitd_overdue_total', 'Processes that were ended at a deadline.', 'deadline', () => ({
      timeout: lifetimes.counts.timedOut,
      lease: lifetimes.counts.leaseExpired,
    }));
    counter('waitd_subscribers_cut_total', 'Subscribers cut off because they read too slowly.', null, () => ({
      cuts: feed.cuts,
    }));
    counter('waitd_output_dropped_bytes_total', 'Captured output dropped because of its limit.', null, () => ({
      bytes: outputs.dropped,
    }));
    counter('waitd_orphans_reaped_total', 'Orphans without a handle that were reaped.', null, () => ({
      orphans: reaper.counts.orphans,
    }));
    counter('waitd_log_lines_dropped_total', 'Log and audit lines that could not be written.', null, () => ({
      lines: droppedLines(),
    }));
    // The standard names of the Prometheus client libraries.
    gauge('process_open_fds', 'Open descriptors.', () => readdirSync('/proc/self/fd').length);
    gauge('process_resident_memory_bytes', 'Resident memory in bytes.', () => process.memoryUsage.rss());
    gauge(
      'process_start_time_seconds',
      'Start time of the daemon in Unix seconds.',
      () => Date.now() / 1000 - process.uptime(),
    );
    counter('process_cpu_seconds_total', 'CPU time in seconds.', null, () => {
      const { user, system } = process.cpuUsage();
      return { cpu: (user + system) / 1e6 };
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
