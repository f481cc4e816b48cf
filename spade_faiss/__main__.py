"""Run the command line: python -m spade_faiss."""

from .cli import main

main()
