"""The world of leaves."""
