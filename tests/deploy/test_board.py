"""The Grafana board is what board.py makes, and complete. test_prometheus.py runs its queries."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy/grafana"
_spec = importlib.util.spec_from_file_location("board", FOLDER / "board.py")
assert _spec
assert _spec.loader
board = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(board)

BOARD = json.loads((FOLDER / "capistream.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
#: "title, letter of the query" -> query
QUERIES = {f"{panel['title']}, {one['refId']}": one["expr"] for panel in PANELS for one in panel["targets"]}


def test_the_board_is_up_to_date():
    assert (FOLDER / "capistream.json").read_text() == board.text(), "run: make docs"


def test_every_query_has_a_name_of_its_own():
    assert len(QUERIES) == sum(len(panel["targets"]) for panel in PANELS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"


def test_no_panel_covers_another():
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_panels_have_numbers_of_their_own():
    numbers = [panel["id"] for panel in BOARD["panels"]]

    assert len(set(numbers)) == len(numbers)
