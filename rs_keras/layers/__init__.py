"""Layers that know about resolutions."""
