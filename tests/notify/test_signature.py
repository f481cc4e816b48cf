import base64

import pytest

from spade_faiss import SpadeError
from spade_faiss.notify import read_secret, signature


@pytest.mark.parametrize(
    "secret, identity, seconds, body, expected",
    [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1731705121,
            b'{"event_type":"ping","data":{"success":true}}',
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ],
)
def test_a_signature_is_that_of_standard_webhooks(
    tmp_path, secret, identity, seconds, body, expected
):
    """The examples are those that its authors publish."""
    file = tmp_path / "secret"
    file.write_text(f"{secret}\n")
    assert signature(read_secret(file), identity, seconds, body) == expected


def test_a_secret_is_text_or_base64(tmp_path):
    file = tmp_path / "secret"
    file.write_text("a word of some length\n")
    assert read_secret(file) == b"a word of some length"
    file.write_text("\ufeffa word of some length\r\n")  # as editors on Windows write it
    assert read_secret(file) == b"a word of some length"
    file.write_text("whsec_" + base64.b64encode(bytes(range(32))).decode())
    assert read_secret(file) == bytes(range(32))


@pytest.mark.parametrize(
    "content, why",
    [(b"short", "can be guessed"), (b"whsec_?", "not base64"), (b"\xff" * 20, "no text")],
)
def test_a_secret_that_is_none_is_refused(tmp_path, content, why):
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(SpadeError, match=why):
        read_secret(file)
    with pytest.raises(SpadeError, match="cannot be read"):
        read_secret(tmp_path / "none")
