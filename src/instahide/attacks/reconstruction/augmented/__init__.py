"""Reconstruction from encodings whose images were randomly cropped and mirrored before mixing.

`moves` applies and undoes such moves, and `mixing` is the mix of moved images. `neighbours` finds
encodings that share an image by all relative moves, `clusters` groups them with the moves, and
`assignment` finds the images of each encoding and their moves. `run` has the steps of the attack.
"""
