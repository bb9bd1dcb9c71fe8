-- Two columns get the name of what they hold on disk, so that the next file can give their own to what is read.
-- A file of its own: it runs again if it was interrupted, and must not meet the new columns of the old names then.
ALTER TABLE events DROP INDEX IF EXISTS by_event_id;
ALTER TABLE events
    RENAME COLUMN IF EXISTS event_id TO stored_event_id,
    RENAME COLUMN IF EXISTS attributes TO stored_attributes;
