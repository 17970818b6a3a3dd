import type { CreateWatch, WatchView } from '../../schemas/watches.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import type { Watches } from '../watches/watches.ts';
import type { Operation } from './operation.ts';

function permit({ rights }: Client): void {
  if (rights.open === 'none') throw notAllowed('open processes');
}

/** Operations on watches. */
export class WatchOperations {
  readonly #watches: Watches;

  constructor({ watches }: { watches: Watches }) {
    this.#watches = watches;
  }

  readonly create: Operation<CreateWatch, Promise<WatchView>> = {
    audit: 'watch',
    acts: true,
    permit,
    run: async (call, request) => {
      using _acting = call.claim?.hold();
      const watch = await this.#watches.create(call.client, request, call.claim);
      call.note({ watch: watch.facts.id });
      return this.#watches.view(watch);
    },
  };

  readonly list: Operation<undefined, WatchView[]> = {
    run: ({ client }) => this.#watches.list(client).map((watch) => this.#watches.view(watch)),
  };

  readonly get: Operation<string, WatchView> = {
    run: ({ client }, id) => this.#watches.view(this.#watches.get(client, id)),
  };

  readonly delete: Operation<string, void> = {
    audit: 'unwatch',
    run: ({ client }, id) => this.#watches.delete(this.#watches.get(client, id, 'change')),
  };
}
