"""Measurements: ratios in one interleaved run, never a number by itself."""
