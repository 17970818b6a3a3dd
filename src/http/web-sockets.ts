import { attach } from '../../schemas/operations/attach.ts';
import { listEvents } from '../../schemas/operations/events.ts';

/** A path that is served as a WebSocket. */
export interface WebSocketPath {
  /** The path as the contract writes it. */
  path: string;
  /** The same as the router writes it. */
  url: string;
  subprotocol: string;
  pattern: RegExp;
}

export const webSocketPaths: readonly WebSocketPath[] = [listEvents, attach].map(({ path, webSocket }) => ({
  path,
  url: path.replaceAll(/\{(\w+)\}/g, ':$1'),
  subprotocol: webSocket.subprotocol,
  pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`),
}));

/** Finds the WebSocket of a request's path. */
export function webSocketAt(path: string): WebSocketPath | undefined {
  return webSocketPaths.find(({ pattern }) => pattern.test(path));
}
