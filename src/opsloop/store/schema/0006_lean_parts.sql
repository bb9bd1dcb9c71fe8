-- A text is written with its length before it, as ever until the engine began to keep lengths apart. Most of what is
-- stored are short texts that repeat, length and all: together they take a twelfth less, and less work to write and
-- merge. Parts of both kinds are read alike, and a merge writes the new one. Nor does a merge work out how many values
-- each column has: no question is answered faster for it.
ALTER TABLE events MODIFY SETTING string_serialization_version = 'single_stream', auto_statistics_types = '';
