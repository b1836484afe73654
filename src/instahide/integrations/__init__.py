"""Integrations: encryption in DataLoader, Lightning and Flower pipelines."""
