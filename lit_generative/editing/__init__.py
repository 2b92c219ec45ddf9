"""Edits of picture files by a model: holes filled, pictures remade and enlarged."""

from lit_generative.editing.edit import edit_file, filled, remade
from lit_generative.editing.files import PictureFile
from lit_generative.editing.upscaling import upscaled
