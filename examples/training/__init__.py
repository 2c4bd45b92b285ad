"""Train the small CLIP that ships with the package, from rendered fish and their captions.

No mask and no part position is a target of the loss. What teaches *where* are close-ups and windows (a caption about a part outside the
frame is false) and a second reading of every caption: beside the pooled image embedding, the tower's value path gives each patch its own
embedding, and a caption is also judged by its best-matching patches (multiple-instance learning). That reading is the very map the
package makes later.
"""
