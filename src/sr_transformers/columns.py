"""Names of the columns of an interaction log, said once."""

USER = "user_id"
ITEM = "item_id"
TIMESTAMP = "timestamp"
