"""What a model looked at: Grad-CAM for months and age groups, its figure, and the job that makes both for runs.

The package above imports Keras through `boneage.models`, which silences the start-up of the backend.
"""

import boneage.models  # noqa: F401
