"""What is to be done: the recipe of a compression, its defaults and its options."""

from sparsemend.recipe.budget import Budget, parse_budget
from sparsemend.recipe.defaults import AUTO, BRANCHES, SEARCHES
from sparsemend.recipe.recipe import Recipe, says_itself

__all__ = [
    "AUTO",
    "BRANCHES",
    "SEARCHES",
    "Budget",
    "Recipe",
    "parse_budget",
    "says_itself",
]
