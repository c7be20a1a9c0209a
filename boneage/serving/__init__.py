"""One hand, one answer: an exported model, a predictor around it, and what makes its answers honest.

Only `boneage.serving.export` needs Keras; importing anything else here leaves it alone.
"""

from boneage.serving.answer import Answer, ImageFacts, Refused, Warning
from boneage.serving.predictor import Predictor
from boneage.serving.shelf import shipped

__all__ = ["Answer", "ImageFacts", "Predictor", "Refused", "Warning", "shipped"]
