"""`python -m instahide`."""

from instahide.cli import main

main()
