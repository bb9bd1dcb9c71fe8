-- The roll-up: per quarter of an hour and combination of what charts and objectives tell apart, what they count.
-- It is a projection: a part of the table holds it beside its rows, writes and merges it with them and loses what they
-- lose, so it cannot say anything else than the rows. A part without it is read row by row, to the same numbers.
-- Statements find it by its expressions: rollup.py of the dashboard writes the same, a test holds them together.
-- Merges build it, not inserts: worked out for every small part it would triple the cost of a commit. A day that nothing
-- was added to for an hour is merged into one part: what a question costs grows with the parts that it has to look into.
ALTER TABLE events ADD PROJECTION IF NOT EXISTS rollup (
    SELECT
        intDiv(ts_ns + 899999999999, 900000000000) AS slot,
        event, service, environment, release, tenant, route, model, tool, severity, error, error_type,
        count(),
        count(duration_us),
        count(time_to_first_token_us),
        countIf(duration_us > 100000), countIf(duration_us > 200000), countIf(duration_us > 250000),
        countIf(duration_us > 300000), countIf(duration_us > 400000), countIf(duration_us > 500000),
        countIf(duration_us > 750000), countIf(duration_us > 1000000), countIf(duration_us > 1500000),
        countIf(duration_us > 2000000), countIf(duration_us > 2500000), countIf(duration_us > 3000000),
        countIf(duration_us > 4000000), countIf(duration_us > 5000000), countIf(duration_us > 8000000),
        countIf(duration_us > 10000000), countIf(duration_us > 15000000), countIf(duration_us > 20000000),
        countIf(duration_us > 30000000), countIf(duration_us > 60000000),
        countIf(time_to_first_token_us > 100000), countIf(time_to_first_token_us > 200000),
        countIf(time_to_first_token_us > 250000), countIf(time_to_first_token_us > 300000),
        countIf(time_to_first_token_us > 500000), countIf(time_to_first_token_us > 750000),
        countIf(time_to_first_token_us > 1000000), countIf(time_to_first_token_us > 1500000),
        countIf(time_to_first_token_us > 2000000), countIf(time_to_first_token_us > 3000000),
        countIf(time_to_first_token_us > 5000000)
    GROUP BY event, slot, service, environment, release, tenant, route, model, tool, severity, error, error_type
);
ALTER TABLE events MODIFY SETTING
    materialize_projections_on_insert = 0,
    materialize_projections_on_merge = 1,
    min_age_to_force_merge_seconds = 3600,
    min_age_to_force_merge_on_partition_only = 1,
    lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE events MATERIALIZE PROJECTION rollup SETTINGS mutations_sync = 0;
