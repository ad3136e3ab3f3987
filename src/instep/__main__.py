"""`python -m instep` is the command line."""

from instep.cli.main import main

main()
