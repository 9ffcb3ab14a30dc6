"""Fakes for tests of policies, plugins and samplers; they need no weights and no network."""

from tgate_sampling.testing.tiny import tiny_denoiser, tiny_unet, unet_inputs

__all__ = ["tiny_denoiser", "tiny_unet", "unet_inputs"]
