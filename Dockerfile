# The image that `gaplaw emit` names with --image: gaplaw, what trains and reads buckets, JAX for one accelerator, experiments.
#
#   docker build --build-arg JAX='jax[tpu]' --tag IMAGE .         # or 'jax[cuda12]' for NVIDIA GPUs, 'jax' for a CPU
#
# Your own experiment files go into experiments/ before the build. The manifest gives the command; there is no entry point.
FROM python:3.12-slim
ARG JAX=jax
WORKDIR /gaplaw
COPY LICENSE README.md pyproject.toml requirements.txt setup.cfg setup.py ./
COPY gaplaw gaplaw
COPY experiments experiments
# Versions are those of requirements.txt, which here only bound what the image needs. The clients of the object stores come
# second: botocore needs an older python-dateutil than the tests have.
RUN pip install --no-cache-dir --constraint requirements.txt ".[train]" "$JAX" \
    && pip install --no-cache-dir ".[train,cloud]"
CMD ["gaplaw", "--help"]
