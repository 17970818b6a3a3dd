/** Waits for a promise, but no longer than a time in milliseconds. */
export async function inTime(promise: Promise<unknown>, ms: number): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms).unref();
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
