"""`python -m boneage` is the same as the `boneage` command."""

from boneage.cli import main

main()
