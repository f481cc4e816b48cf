"""`python -m tests`: the command line, which knows the tests' own network beside the others."""

from spade_faiss.cli import main
from tests.tiny import register

register()
main()
