"""Butterflies and moths: spread, raised, closed and tented, from above, from below and from the side."""
