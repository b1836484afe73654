"""The attack that broke the authors' challenge, in stages that can be used separately.

`pair_encoder` computes which encodings share a private image; `clustering` and `assignment` which
images each encoding contains; `recovery` their coefficients and the images. `attack` iterates these
stages.
"""
