"""How the models of the zoo are made: scenes, autoencoder, classifier, diffusion model, export."""

from __future__ import annotations
