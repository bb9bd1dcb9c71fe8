-- Which rule on how long rows are kept was put in force when: the newest is the TTL of the table events.
CREATE TABLE IF NOT EXISTS retentions (
    applied_ns Int64,
    ttl        String
)
ENGINE = MergeTree
ORDER BY applied_ns;
