"""Recipes: YAML in, typed objects out; a constructor's signature is the schema.

A node `{class_path: package.module.Class, init_args: {...}}` becomes that class; a plain mapping becomes the
dataclass that is expected there. Arguments are converted by the constructor's annotations, and whatever doesn't
fit fails with the dotted key before anything is built. A variant is a small file with `base: name_or_path`, merged
over its base: mappings deeply, lists whole; a changed `class_path` drops the base's `init_args`.
"""

from gansound.recipe.build import ALLOWED, build, check_classes, parameters
from gansound.recipe.describe import KeyHelp, describe
from gansound.recipe.load import load_recipe, recipe_names, recipe_summaries
from gansound.recipe.text import RecipeError, parse_yaml, to_yaml

__all__ = [
    "ALLOWED",
    "KeyHelp",
    "RecipeError",
    "build",
    "check_classes",
    "describe",
    "load_recipe",
    "parameters",
    "parse_yaml",
    "recipe_names",
    "recipe_summaries",
    "to_yaml",
]
