"""The survey's tile."""

from ..host.chips import Tile

SURVEY_ROWS = Tile(64, 0, 64, 0, 4, 1)
