import fastify from 'fastify';

// A bare route that answers the bytes of an EAGAIN: usage: bare.ts SOCKET HEADERS BODY
const [path = '', headers = '{}', body = ''] = process.argv.slice(2);
const app = fastify({ logger: false });
app.post('/', (_request, reply) => {
  reply.code(409).headers(JSON.parse(headers)).type('application/problem+json').send(body);
});
await app.listen({ path });
process.stdout.write('ready\n');
process.on('SIGTERM', () => process.exit(0));
