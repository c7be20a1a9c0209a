"""Maps of what a network looked at, and measurements of whether they mean anything."""

# Drawn unless another is asked for. Of the methods that cost one pass it is the one that meets most goals of the audit:
# see README's table, which `boneage explain-audit` and `boneage report` keep true.
DEFAULT_METHOD = "gradcam++"
