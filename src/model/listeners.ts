/** The listeners of one event, in the order in which they subscribed. */
export class Listeners<Args extends unknown[] = []> {
  readonly #listeners = new Set<(...args: Args) => void>();

  /**
   * Subscribes a listener. The same function may subscribe more than once.
   * @returns a function that ends this subscription
   */
  on(listener: (...args: Args) => void): () => void {
    const subscription = (...args: Args): void => listener(...args);
    this.#listeners.add(subscription);
    return () => {
      this.#listeners.delete(subscription);
    };
  }

  get size(): number {
    return this.#listeners.size;
  }

  /** Calls every listener. An error of one is thrown to the caller, and those after it are not called. */
  emit(...args: Args): void {
    for (const listener of this.#listeners) listener(...args);
  }
}
