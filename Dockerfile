FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund && cp -r node_modules /production && npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
COPY routes routes
COPY schemas schemas
RUN npm run build

FROM node:24-bookworm-slim
LABEL org.opencontainers.image.title="waitd" \
      org.opencontainers.image.description="Waits for processes on behalf of others: waitid over HTTP and WebSockets" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN mkdir -p /run/waitd /var/lib/waitd && chown node:node /run/waitd /var/lib/waitd && chmod 0700 /run/waitd /var/lib/waitd
WORKDIR /app
COPY --from=build /production node_modules
COPY --from=build /app/dist dist
COPY package.json LICENSE ./
USER node
ENV NODE_ENV=production \
    WAITD_LISTEN=unix:/run/waitd/waitd.sock,tcp:0.0.0.0:7411 \
    WAITD_STATE_DIR=/var/lib/waitd \
    WAITD_STOP_CHILDREN=8s
VOLUME ["/run/waitd", "/var/lib/waitd"]
EXPOSE 7411
# By the Unix socket, whatever TCP speaks.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["node", "-e", "require('node:http').get({ socketPath: '/run/waitd/waitd.sock', path: '/livez' }, (answer) => process.exit(answer.statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
ENTRYPOINT ["node", "dist/src/main.js"]
CMD ["serve"]
