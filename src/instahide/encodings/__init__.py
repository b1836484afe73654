"""What leaves the house: encodings on disk, how they are published, how often images went out."""
