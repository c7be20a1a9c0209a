"""Every sentence that a user of an answer reads, from one catalogue a language: `en.toml`.

Web page, HTTP API, `boneage predict` and DICOM node take theirs from it, refusals and warnings included. Not in it is
what only those read who train, evaluate, export or run a server (errors of the command line, figures, reports, logs);
what a standard words itself (meanings of DICOM codes, titles of HTTP statuses); and a library's reason, quoted in
parentheses behind ours.
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
