"""From a config and a cache to a finished run folder."""

import boneage.models  # noqa: F401  (first: it silences the start-up of the backend)
