"""Passwords and keys in texts are masked."""

import pytest

from unidpo_mm.secrets import mask_text, mask_url


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("https://me:hunter2@host/v1", "https://***@host/v1"),
        ("https://hunter2@host/v1", "https://***@host/v1"),
        ("https://me:hunt@er2@host/v1", "https://***@host/v1"),
        ("https://me:hunt/er2@host/v1", "https://***@host/v1"),
        ("https://host/v1?api_key=hunter2&model=x", "https://host/v1?api_key=***&model=x"),
        (
            "https://host/v1?model=x&access_token=hunter2",
            "https://host/v1?model=x&access_token=***",
        ),
        ("https://host/v1?X-Amz-Signature=hunter2", "https://host/v1?X-Amz-Signature=***"),
        ("http://host:8000/users/@me", "http://host:8000/users/@me"),
    ],
)
def test_secrets_in_urls_are_masked(url, masked):
    assert mask_url(url) == masked
    assert mask_text(f"cannot reach '{url}'") == f"cannot reach '{masked}'"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2hunter2",
        "{'Authorization': 'Bearer hunter2hunter2'}",
        "Authorization: hunter2hunter2",
        "token hf_hunter2hunter2hunter2 is wrong",
        "Incorrect API key provided: sk-hunter2hunter2hunter2",
    ],
)
def test_secrets_in_headers_and_keys_are_masked(text):
    assert "hunter2" not in mask_text(text)
    assert "***" in mask_text(text)


def test_other_texts_do_not_change():
    text = "the key 'task-list' is unknown; see https://host/keys?page=2 and basic facts"
    assert mask_text(text) == text
