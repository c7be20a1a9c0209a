"""Every sentence that the page shows, from one catalogue a language: `texts/en.toml`."""

import tomllib
from functools import cache
from importlib.resources import files

LANGUAGE = "en"


@cache
def catalogue(language: str = LANGUAGE) -> dict:
    """The texts, by section and name."""
    return tomllib.loads(files("boneage.web").joinpath("texts", f"{language}.toml").read_text(encoding="utf-8"))
