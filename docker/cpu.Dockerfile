# docker build -f docker/cpu.Dockerfile -t evensphere .
# docker run --rm -v "$PWD:/data" evensphere train folder --data /data/photos --out /data/run
#
# TORCH_INDEX: the address of torch's own index of builds without CUDA (see its installation page) makes the image a
# fifth of the size.
FROM python:3.12-slim
ARG TORCH_INDEX
COPY . /src
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"; fi \
    && pip install --no-cache-dir /src && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["evensphere"]
