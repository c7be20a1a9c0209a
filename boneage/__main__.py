"""`python -m boneage` is the same as the `boneage` command."""

from boneage.cli import main

if __name__ == "__main__":  # a campaign's child processes import this module again
    main()
