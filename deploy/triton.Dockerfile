# From the repository's root: docker build -f deploy/triton.Dockerfile --build-arg TRITON=IMAGE -t lsms-rt:triton .
# IMAGE: NVIDIA's tritonserver with the python backend, tag 26.04-py3 or newer.   Not built here, see README.md.
ARG TRITON
FROM ${TRITON}
# onnxruntime: engines on the CPU.  For graphs on a GPU: --build-arg ONNXRUNTIME=onnxruntime-gpu
ARG ONNXRUNTIME=onnxruntime
WORKDIR /source
COPY . .
# Into a folder of its own, by the Python of the image, whose version its stub has.
RUN sh deploy/install.sh /opt/lsms-rt codecs \
 && if [ "$ONNXRUNTIME" != onnxruntime ]; then \
      python3 -m venv --upgrade-deps /tmp/pip \
      && /tmp/pip/bin/pip --python /opt/lsms-rt/bin/python uninstall --quiet --yes onnxruntime \
      && /tmp/pip/bin/pip --python /opt/lsms-rt/bin/python install --quiet --no-cache-dir "$ONNXRUNTIME" \
      && rm -rf /tmp/pip; \
    fi
# The stub takes the packages of the first python3.
ENV PATH=/opt/lsms-rt/bin:$PATH
WORKDIR /
USER triton-server
# A request of 512 slices of 512 x 512, and a sentence; Triton's own limit is 64 MiB.
CMD ["tritonserver", "--model-repository=/models", "--model-control-mode=none", "--http-max-input-size=269484032"]
