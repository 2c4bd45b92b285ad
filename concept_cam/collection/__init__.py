"""Annotates collections: pictures in, a table of trait calls, regions and measures out, through any interruption."""
