"""`python -m llm_mde_train` is `llm-mde-train`."""

from llm_mde_train.cli import main

main()
