"""What a finished cell's row says: each domain's loss under its own column, and which label that is."""

import json

from gaplaw import columns
from gaplaw.train.outcome import measured_columns


def test_a_row_says_which_label_a_column_has():
    score = {"ce_nats": 1.0, "calibration_error": 0.0, "tokens": 3, "domain_ce_nats": [1.0, 2.0, 3.0]}
    row = measured_columns(score, None, ("C++", "c", "漢"), 0.5)
    assert (row["domain_c__f1deb75f_loss_nats"], row["domain_c_loss_nats"]) == (1.0, 2.0)
    told = json.loads(row["domain_labels"])
    assert told == {columns.domain_column(label): label for label in ("C++", "漢")}
    assert measured_columns(score | {"domain_ce_nats": [1.0]}, None, ("code",), 0.5)["domain_labels"] is None
