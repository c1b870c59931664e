"""Small OpenStreetMap extracts for tests, written as XML."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

LON, LAT = 68.25, 43.29
STEP = 1.0 / 8_000  # about 10 m


class Extract:
    """Writes ways as OpenStreetMap XML; places are in steps of about 10 m."""

    def __init__(self, lon: float = LON, lat: float = LAT) -> None:
        self.lon, self.lat = lon, lat
        self.nodes: list[str] = []
        self.ways: list[str] = []
        self.relations: list[str] = []

    def way(self, number: int, corners: list[tuple[float, float]], close: bool = True,
            **tags: str) -> None:  # fmt: skip
        refs = []
        for x, y in corners:
            refs.append(len(self.nodes) + 1)
            self.nodes.append(
                f'<node id="{refs[-1]}" version="1" lat="{self.lat + y * STEP:.7f}"'
                f' lon="{self._wrapped(self.lon + x * STEP * 1.37):.7f}"/>'
            )
        refs += refs[:1] if close else []
        self.refs(number, refs, **tags)

    def refs(self, number: int, refs: list[int], **tags: str) -> None:
        """Write a way of nodes that may not be there."""
        inner = "".join(f'<nd ref="{r}"/>' for r in refs)
        self.ways.append(f'<way id="{number}" version="1">{inner}{self._tags(tags)}</way>')

    def relation(self, number: int, members: list[tuple[str, int, str]], **tags: str) -> None:
        inner = "".join(f'<member type="{t}" ref="{r}" role="{role}"/>' for t, r, role in members)
        self.relations.append(
            f'<relation id="{number}" version="1">{inner}{self._tags(tags)}</relation>'
        )

    @staticmethod
    def _wrapped(lon: float) -> float:
        return (lon + 180.0) % 360.0 - 180.0

    @staticmethod
    def _tags(tags: dict[str, str]) -> str:
        return "".join(
            f"<tag k={quoteattr(k.replace('__', ':'))} v={quoteattr(v)}/>" for k, v in tags.items()
        )

    def box(self, number: int, x: float, y: float, **tags: str) -> None:
        corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        self.way(number, corners, **{"building": "yes", **tags})

    def write(self, path: Path) -> Path:
        body = "".join(self.nodes + self.ways + self.relations)
        path.write_text(f'<osm version="0.6" generator="test">{body}</osm>')
        return path
