"""Procedural worlds: pictures whose traits, part masks and counterfactual twins are known exactly.

Nothing is imported here: `concept_cam.demo.worlds.family` is plain data, the rooms need torch.
"""
