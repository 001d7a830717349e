# From the repository's root: docker build -f deploy/gpu.Dockerfile -t lsms-rt:gpu .   Not built here, never run on a GPU.
# ONNX Runtime on CUDA 12; for TensorRT engines install the extra tensorrt, which needs nvcc for pycuda, too.
FROM nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04 AS build
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN sh deploy/install.sh /opt/lsms-rt serve,codecs \
 && python3 -m venv --upgrade-deps /tmp/pip \
 && /tmp/pip/bin/pip --python /opt/lsms-rt/bin/python uninstall --quiet --yes onnxruntime \
 && /tmp/pip/bin/pip --python /opt/lsms-rt/bin/python install --quiet --no-cache-dir onnxruntime-gpu

FROM nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home lsms
COPY --from=build /opt/lsms-rt /opt/lsms-rt
COPY deploy/folder.sh /opt/lsms-rt/deploy/
USER lsms
ENV PATH=/opt/lsms-rt/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8765
ENTRYPOINT ["lsms-rt"]
CMD ["serve", "demo", "--host", "0.0.0.0"]
