"""Seeded grids for property tests: towns that touch, lakes, coasts, gaps, ties, missing cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

#: people of a cell on both sides of every threshold
PEOPLE = np.array([0, 0, 10, 49, 50, 130, 299, 300, 450, 900, 1499, 1500, 2600, 7000, 16000.0])
LAND = np.array([0.0, 0.25, 0.499, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0])
BUILT = np.array([0.0, 0.01, 0.1, 0.1994, 0.1996, 0.2, 0.4994, 0.5, 0.9])


@dataclass(frozen=True)
class Planet:
    """People, built-up and land of a small grid; built and land as shares of a cell."""

    people: np.ndarray
    built: np.ndarray | None
    land: np.ndarray | None

    def __repr__(self) -> str:
        """Return shape and parts, not the values."""
        parts = [n for n in ("built", "land") if getattr(self, n) is not None]
        return f"Planet({self.people.shape}, people, {', '.join(parts)})"


def planet(
    seed: int, height: int, width: int, *, with_built: bool, with_land: bool, gaps: float
) -> Planet:
    """Make a grid: values follow smooth noise, so that clusters, bays and gaps appear."""
    random = np.random.default_rng(seed)

    def field(size: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(random.normal(size=(height, width)), size, mode="nearest")
        noise += 0.35 * noise.std() * random.normal(size=noise.shape)
        return noise.ravel().argsort().argsort().reshape(noise.shape) / noise.size

    wealth = field(random.choice([0.6, 1.2, 2.5]))
    # some planets are crowded, some empty
    crowd = random.choice([0.6, 1.0, 1.6])
    people = PEOPLE[np.minimum((wealth ** (1 / crowd) * len(PEOPLE)).astype(int), len(PEOPLE) - 1)]
    holes = random.random(people.shape) < 0.08
    people[holes] = random.choice(PEOPLE[:6], int(holes.sum()))
    land = built = None
    if with_land:
        relief = field(1.5)
        land = LAND[np.minimum((relief * len(LAND)).astype(int), len(LAND) - 1)]
        # nobody lives on most of the sea
        sea = (land < 0.5) & (random.random(people.shape) < 0.8)
        people[sea] = 0
    if with_built:
        built = BUILT[np.minimum((wealth * len(BUILT)).astype(int), len(BUILT) - 1)]
        built = np.where(
            random.random(people.shape) < 0.7, built, random.choice(BUILT, built.shape)
        )
        if land is not None:
            built = np.minimum(built, land)
    if gaps:
        people[random.random(people.shape) < gaps] = np.nan
        if np.isnan(people).all():
            # a raster without any value is refused
            people[0, 0] = 0
    return Planet(people, built, land)


planets = st.builds(
    planet,
    st.integers(0, 2**32 - 1),
    st.integers(1, 26),
    st.integers(1, 26),
    with_built=st.booleans(),
    with_land=st.booleans(),
    gaps=st.sampled_from([0.0, 0.0, 0.05, 0.4]),
)


@st.composite
def chunkings(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    """Draw chunk sizes that add up to a length."""
    left, sizes = length, []
    while left:
        size = draw(st.integers(1, left))
        sizes.append(size)
        left -= size
    return tuple(sizes)
