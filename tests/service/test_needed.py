import pytest

from tests.service.conftest import NEEDED


@pytest.mark.parametrize("name", NEEDED)
def test_what_the_other_tests_need_is_there(name):
    pytest.importorskip(name, reason="needs the extra 'serve', and httpx")
