"""The Flower client app: local training of a participant, and its checks of the server."""
