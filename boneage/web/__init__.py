"""One hand, one answer in a browser and over HTTP: the page for doctors and the API behind `boneage serve`.

Nothing that is uploaded is written to disk or to a log, unless the operator asks for it with `--keep`.
"""
