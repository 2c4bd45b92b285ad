"""The procedural fish world: pictures whose traits, part masks and counterfactual twins are known exactly.

Nothing is imported here: `concept_cam.demo.traits` is plain data, `concept_cam.demo.world` needs torch.
"""
