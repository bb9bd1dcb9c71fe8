-- A text is written with its length before it, as ever until the engine began to keep lengths apart. Most of what is
-- stored are short texts that repeat, length and all: together they take a twelfth less, and less work to write, merge
-- and read. Parts of both kinds are read alike, and a merge writes the new one.
ALTER TABLE events MODIFY SETTING string_serialization_version = 'single_stream';
