"""The explanation of configuration keys."""

from __future__ import annotations

from detectron2.config import get_cfg

from querypose.config import default_config
from querypose.config.reading import leaves
from querypose.tools.config_keys import added_keys, main


def test_every_added_key_is_there_once_with_its_default_and_a_meaning():
    theirs = leaves(get_cfg())
    added = {name: value for name, value in leaves(default_config()).items() if name not in theirs}
    listed = [item for group in added_keys() for item in group.defaults.items()]
    assert len(listed) == len(added)
    assert dict(listed) == added
    assert [group.defaults for group in added_keys() if not group.comment] == []


def test_a_comment_explains_the_keys_down_to_the_next_one():
    comments = {name: group.comment for group in added_keys() for name in group.defaults}
    rotation = "Rotate by up to DEGREES to either side."
    assert comments["INPUT.ROTATION.PROBABILITY"] == comments["INPUT.ROTATION.DEGREES"] == rotation
    # Of two lines, behind the heading of a section.
    cells = comments["MODEL.PINET.NEAREST_CELLS"]
    assert cells.startswith("Cells around a part's center that learn its pose: the 3 x 3 around")
    assert cells.endswith("instead of the published code's 4 x 4.")


def test_the_page_has_a_table_a_section(capsys):
    main([])
    page = capsys.readouterr().out
    assert page.startswith("# Configuration keys\n")
    assert "\n## MODEL.QUERYPOSE\n\n| key | default | meaning |\n|---|---|---|\n" in page
    assert (
        "| `SOLVER.EMA.ENABLED`<br>`SOLVER.EMA.DECAY` | `False`<br>`0.9998` | Exponential moving "
    ) in page
