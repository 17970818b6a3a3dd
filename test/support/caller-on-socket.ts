import { request } from 'node:http';

// biome-ignore lint/suspicious/noExplicitAny: tests know the type
export type Answer = { status: number; body: any; text: string };

/** Sends one request to a daemon on a Unix socket. */
export function call(socketPath: string, method: string, path: string, body?: unknown): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const asked = request(
      { socketPath, method, path, ...(payload !== undefined && { headers: { 'content-type': 'application/json' } }) },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          const isJson = String(answer.headers['content-type']).includes('json') && text !== '';
          resolve({ status: answer.statusCode!, text, body: isJson ? JSON.parse(text) : null });
        });
      },
    );
    asked.on('error', reject);
    asked.end(payload);
  });
}

/** Repeats a request until it is answered. */
export async function until(socketPath: string, path = '/readyz'): Promise<void> {
  for (;;) {
    try {
      if ((await call(socketPath, 'GET', path)).status === 200) return;
    } catch {
      // The daemon does not listen yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
