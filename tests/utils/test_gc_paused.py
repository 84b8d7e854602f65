import gc

import pytest

from bottleneck.utils.gc_paused import no_collection


def test_nothing_is_collected_within_and_again_afterwards():
    with no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_does_not_leave_it_so():
    with pytest.raises(LookupError), no_collection():
        raise LookupError
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off():
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
