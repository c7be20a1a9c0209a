"""Bone age assessment from hand radiographs.

Importing the package is cheap: Keras and the backends behind it are imported by the modules that need them.
Research use only; not a medical device.
"""

__version__ = "0.1.0"
