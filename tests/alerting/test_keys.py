"""Keys: the hashed join is the join by its definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting.keys import index_readings, keys_of, readings_of
from opsloop.alerting.route import key_of
from tests.alerting.readings import fine

labels = st.dictionaries(st.sampled_from(["tenant", "route"]), st.sampled_from("ab"), max_size=2)
signals = st.lists(st.tuples(st.sampled_from(["latency", "errors", "quality"]), labels), max_size=9)
IDS = ("latency", "errors", "quality")


def agree(one, other):
    """Two label sets do not contradict each other."""
    return all(other.get(name, value) == value for name, value in one.items())


def joined(ids, readings):
    """Join by comparing everything with everything."""
    keys = [{}]
    for name in ids:
        sets = [one.labels for one in readings if one.id == name]
        rows = [{**key, **found} for key in keys for found in sets if agree(key, found)]
        rows += [key for key in keys if not any(agree(key, found) for found in sets)]
        rows += [found for found in sets if not any(agree(key, found) for key in keys)]
        keys = list({key_of(row): row for row in rows}.values())
    return sorted((k for k in keys if not any(k.items() < other.items() for other in keys)), key=key_of)


@settings(deadline=None)
@given(signals)
def test_the_keys_are_the_natural_outer_join(found):
    """Whatever labels signals carry, the keys are those of the plain definition."""
    readings = [fine(name, labels=given_) for name, given_ in found]
    assert keys_of(IDS, index_readings(readings)) == joined(IDS, readings)


@settings(deadline=None)
@given(signals, labels)
def test_a_key_takes_the_most_specific_reading_and_none_of_a_stranger(found, key):
    """Each signal gives one reading, all of whose labels are the key's, and no other such has more labels."""
    readings = [fine(name, labels=given_) for name, given_ in found]
    for one in readings_of(IDS, key, index_readings(readings)):
        rivals = [r for r in readings if r.id == one.id and r.labels.items() <= key.items()]
        assert one in rivals
        assert len(one.labels) == max(len(rival.labels) for rival in rivals)
