"""A fake of what hosts of a fleet have chosen as their default images, for tests."""

from collections.abc import Set


class FakeDefaultImages:
    """`lifecycle.saved_images.DefaultImages`, as one host sees it. Hosts of one fleet share `chosen` and `recipes`."""

    def __init__(self, host: str = "hst_one", other: "FakeDefaultImages | None" = None) -> None:
        """`other`: a host of the same fleet."""
        self._host = host
        self.chosen: dict[str, str] = other.chosen if other else {}  # recipe → image
        self.recipes: dict[str, str] = other.recipes if other else {}  # host → its recipe

    async def default_image(self, recipe: str) -> str | None:
        self.recipes[self._host] = recipe
        for unused in self.chosen.keys() - set(self.recipes.values()):
            del self.chosen[unused]
        return self.chosen.get(recipe)

    async def choose_default_image(self, recipe: str, image: str, instead_of: str = "") -> str:
        if self.chosen.get(recipe, instead_of) == instead_of:
            self.chosen[recipe] = image
        return self.chosen[recipe]

    async def default_images(self) -> Set[str]:
        return set(self.chosen.values())
