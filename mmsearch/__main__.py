"""``python -m mmsearch``: the same as the command, also under torchrun."""

from mmsearch.cli.main import main

main()
