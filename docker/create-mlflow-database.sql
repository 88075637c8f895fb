-- Prefect and MLflow migrate their own schemas: each has its own database.
CREATE DATABASE mlflow OWNER marl;
