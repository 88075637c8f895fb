# The pipeline and the servers it talks to, from the project's own lock file.
FROM python:3.11.11-slim-bookworm

RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/marl-pipeline
COPY requirements.lock pyproject.toml README.md ./
RUN pip install --no-cache-dir uv && uv pip install --system --no-cache --compile-bytecode -r requirements.lock psycopg2-binary==2.9.10 prefect-redis==0.3.0
COPY . .
RUN uv pip install --system --no-cache --no-deps --editable .
ENV DO_NOT_TRACK=1 GX_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true
