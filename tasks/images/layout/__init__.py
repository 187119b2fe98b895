"""Where a folder of images keeps its parts, its classes and its labels."""
