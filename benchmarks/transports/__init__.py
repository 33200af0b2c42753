"""What a call of a plugin in another process costs, here and in the published release, over the same way."""
