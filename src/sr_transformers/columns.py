"""Names of the columns of an interaction log, said once."""

USER = "user_id"
ITEM = "item_id"
TIMESTAMP = "timestamp"
DOMAIN = "domain"  # optional: the shop, department or catalogue of the item
RATING = "rating"  # optional: read only where a threshold is asked for
