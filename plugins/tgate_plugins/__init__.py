"""Our own policies, drivers and layers. They come in through the same door as anybody's."""
