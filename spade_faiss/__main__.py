"""Run the command line: python -m spade_faiss."""

from .cli.app import main

main()
