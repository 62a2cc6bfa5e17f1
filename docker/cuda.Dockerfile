# docker build -f docker/cuda.Dockerfile -t evensphere-cuda .
# docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" evensphere-cuda train folder --data /data/photos --out /data/run
FROM python:3.12-slim
COPY . /src
# the wheels of torch bring the CUDA libraries; the host has the driver
RUN pip install --no-cache-dir /src && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["evensphere"]
