"""The world of beetles."""
