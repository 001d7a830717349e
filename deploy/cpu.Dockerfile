# From the repository's root: docker build -f deploy/cpu.Dockerfile -t lsms-rt:cpu .   Not built by docker, see README.md.
# Debian's Python: 30 MB less than a Python image.
FROM debian:bookworm-slim AS build
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3 python3-venv
WORKDIR /source
COPY . .
RUN sh deploy/install.sh /opt/lsms-rt serve,codecs

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -qq --no-install-recommends python3-minimal libpython3-stdlib libstdc++6 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && useradd --system --uid 10001 --create-home lsms
COPY --from=build /opt/lsms-rt /opt/lsms-rt
COPY deploy/folder.sh /opt/lsms-rt/deploy/
USER lsms
ENV PATH=/opt/lsms-rt/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8765
# A key is needed, since other machines can reach it: -e LSMS_RT_API_KEY=..., or a secret and --api-key-file.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
ENTRYPOINT ["lsms-rt"]
CMD ["serve", "demo", "--host", "0.0.0.0"]
