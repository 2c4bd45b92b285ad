"""Can this map be trusted? Evidence from the features that are there already, a verdict by visible rules, and conformal limits from
labels.
"""
