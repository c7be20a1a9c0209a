"""Every sentence that a user of an answer reads, from one catalogue a language: `en.toml`.

Web page, HTTP API, `boneage predict` and DICOM node take theirs from it, refusals and warnings included. What only
those read who train, evaluate or export (the command line's errors, figures, reports) is not in it.
"""

import tomllib
from functools import cache
from importlib.resources import files

LANGUAGE = "en"


@cache
def catalogue(language: str = LANGUAGE) -> dict:
    """The texts, by section and name."""
    return tomllib.loads(files(__name__).joinpath(f"{language}.toml").read_text(encoding="utf-8"))


def say(key: str, **values) -> str:
    """The text `section.name` with its `{...}` filled in.

    Raises
    ------
    KeyError
        The catalogue has no such text, or it asks for a value that is not given.
    """
    section, name = key.split(".")
    return catalogue()[section][name].format(**values)
