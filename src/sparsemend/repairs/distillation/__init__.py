"""Training what is left of a network towards the dense one, on unlabelled inputs."""
