"""Speed and memory of Boneage, as ratios between two ways of doing the same thing in the same run.

Absolute times belong to one machine on one day; a ratio of neighbours in time carries over. `python -m benchmarks`.
"""

import boneage.models  # noqa: F401  (first: it silences the start-up of the backend)
