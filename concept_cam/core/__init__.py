"""The core: plain data and pure mathematics that every layer above shares; it imports none of them.

The method itself is in :mod:`~concept_cam.core.directions` and :mod:`~concept_cam.core.scoring`. The plain data (errors, names, concept,
geometry, regions, results, settings) import no torch: the command line, the trait packs and the exporters use them without loading a model.

Axis letters, used in every docstring of the package: ``B`` images, ``h w`` rows and columns of the patch grid, ``D`` joint embedding,
``C`` concepts, ``R`` contrasts of one concept, ``H W`` pixel rows and columns, ``L`` tokens, ``N`` points.

Frames: *grid* (patches, cell i covers [i, i+1)), *model* (pixels after preprocessing), *original* (pixels of the file after its EXIF
orientation is applied; pixel i covers [i, i+1)). Points are ``(x, y)``, sizes and array indices are ``(rows, columns)``.
"""
