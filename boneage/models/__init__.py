"""Backbones, heads and the one function that builds a model."""
