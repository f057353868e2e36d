"""``python -m nsdbench``."""

from nsdbench.cli import main

main()
