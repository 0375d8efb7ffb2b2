"""`python -m pipeline.cli`: the command `rlp`, where its script is not on the path."""

from pipeline.cli import main

main()
