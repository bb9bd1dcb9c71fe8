-- Two columns get the name of what they hold on disk, so that the next file can give their own to what is read. It is a
-- file of its own, since it must not be run again once there are columns of the old names anew.
ALTER TABLE events
    RENAME COLUMN IF EXISTS event_id TO stored_event_id,
    RENAME COLUMN IF EXISTS attributes TO stored_attributes;
