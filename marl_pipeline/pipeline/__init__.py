"""The DAG of dvc.yaml, what is around every stage, its parameters, its record and its lineage."""
