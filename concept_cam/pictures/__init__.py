"""Pictures: from a file to upright pixels, and from those to the size that a model reads."""
