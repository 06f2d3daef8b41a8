"""The embedded talking world: people who speak, and things that sound, from (seed, split, index)."""

from ccl.data.world.world import World, WorldSource

__all__ = ["World", "WorldSource"]
