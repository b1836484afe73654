"""The Flower client app: what a participant does, and what it refuses."""
