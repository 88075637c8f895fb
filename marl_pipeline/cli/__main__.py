"""`python -m marl_pipeline.cli`: the `marl` command without its console script."""

from marl_pipeline.cli.main import main

if __name__ == "__main__":
    main()
