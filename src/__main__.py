"""``python -m c1m`` is the same as ``c1m``."""

from c1m.cli import main

main(prog_name="python -m c1m")
