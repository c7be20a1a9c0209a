"""X-ray files to arrays: sources, decoding, the prepared cache, splits, augmentation and the phantom. No Keras here."""
