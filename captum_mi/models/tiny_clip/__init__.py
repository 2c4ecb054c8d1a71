"""The embedded CLIP: a Hugging Face folder inside the package, and the command that makes it."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""The folder that ``from_pretrained`` takes."""

__all__ = ["FOLDER"]
