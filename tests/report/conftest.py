from sketches import sketches

__all__ = ["sketches"]
