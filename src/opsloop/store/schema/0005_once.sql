-- Each fact is stored once. shape is the JSON text of the attributes with a hole, \x01, for every leaf, and leaves holds
-- what fills the holes, in order; a hole for a text is in quotes. Spans of one kind share one shape. Where leaves cannot
-- tell them, as of two paths that read the same, stored_attributes holds the whole text and shape is empty, and so it is
-- in rows from before this file. A lone \x01 as stored_event_id stands for the ids of trace and span.
-- Without a codec a column is stored with LZ4, which takes twice the space for the short ones.
ALTER TABLE events
    ADD COLUMN IF NOT EXISTS shape LowCardinality(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS attributes String ALIAS arrayStringConcat(arrayMap(
        (piece, leaf) -> concat(piece, if(endsWith(piece, '"'),
            replaceAll(substring(toJSONString(leaf), 2, length(toJSONString(leaf)) - 2), '\\/', '/'), leaf)),
        splitByChar('\x01', toString(shape)),
        if(shape = '', [stored_attributes], arrayPushBack(mapValues(leaves), '')))),
    ADD COLUMN IF NOT EXISTS event_id String ALIAS multiIf(
        stored_event_id = '\x01', concat(trace_id, ':', span_id),
        startsWith(stored_event_id, '\x01'), substring(stored_event_id, 2), stored_event_id),
    MODIFY COLUMN event CODEC(ZSTD(1)),
    MODIFY COLUMN service CODEC(ZSTD(1)),
    MODIFY COLUMN environment CODEC(ZSTD(1)),
    MODIFY COLUMN release CODEC(ZSTD(1)),
    MODIFY COLUMN tenant CODEC(ZSTD(1)),
    MODIFY COLUMN route CODEC(ZSTD(1)),
    MODIFY COLUMN severity CODEC(ZSTD(1)),
    MODIFY COLUMN status_code CODEC(ZSTD(1)),
    MODIFY COLUMN error CODEC(ZSTD(1)),
    MODIFY COLUMN error_type CODEC(ZSTD(1)),
    MODIFY COLUMN model CODEC(ZSTD(1)),
    MODIFY COLUMN provider CODEC(ZSTD(1)),
    MODIFY COLUMN tool CODEC(ZSTD(1));
