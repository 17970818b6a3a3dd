# Node's own image builds it. What runs it is Debian with Node's one program: no npm, no yarn, no headers.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund && cp -r node_modules /production
# The bill of materials, of what is installed; what changes with every run of npm is left out. What both the daemon and its development
# need, npm would leave out as well, so it is not told of the latter.
RUN mkdir /bill && cp -r package.json node_modules /bill && cd /bill && npm pkg delete devDependencies \
 && npm sbom --sbom-format=cyclonedx > sbom.json \
 && node -e 'const { serialNumber, metadata: { timestamp, ...metadata }, ...sbom } = JSON.parse(fs.readFileSync("sbom.json")); fs.writeFileSync("/sbom.cdx.json", JSON.stringify({ ...sbom, metadata }, null, 2))'
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
COPY routes routes
COPY schemas schemas
RUN npm run build
# Declarations and maps are for editors.
RUN find /production dist -type f \( -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.map' -o -name '*.md' ! -iname 'license*' \) -delete

FROM debian:bookworm-slim
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=https://github.com/waitd/waitd
LABEL org.opencontainers.image.title="waitd" \
      org.opencontainers.image.description="Waits for processes on behalf of others: waitid over HTTP and WebSockets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
RUN groupadd -g 1000 waitd && useradd -u 1000 -g waitd -M -d /var/lib/waitd -s /usr/sbin/nologin waitd \
 && mkdir -p /run/waitd /var/lib/waitd && chown waitd:waitd /run/waitd /var/lib/waitd && chmod 0700 /var/lib/waitd
COPY --from=build /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY --from=build /production node_modules
COPY --from=build /app/dist dist
COPY --from=build /sbom.cdx.json ./
COPY package.json LICENSE ./
# What /problems/ERRNO answers.
COPY docs/reference/errors.md docs/reference/
# By number, so that Kubernetes can tell that it is not root.
USER 1000:1000
ENV NODE_ENV=production \
    WAITD_LISTEN=unix:/run/waitd/waitd.sock,tcp:0.0.0.0:7411 \
    WAITD_STATE_DIR=/var/lib/waitd \
    WAITD_STOP_CHILDREN=8s
VOLUME ["/run/waitd", "/var/lib/waitd"]
EXPOSE 7411
# By the Unix socket, whatever TCP speaks.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["node", "/app/dist/src/health.js"]
# Without that option SIGUSR1 opens a debugger until the daemon listens for it.
ENTRYPOINT ["node", "--disable-sigusr1", "/app/dist/src/main.js"]
CMD ["serve"]
