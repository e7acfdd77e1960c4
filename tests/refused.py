"""The form of every refusal: one sentence with the argument, the rule and the value."""

import pytest


def check_refusal(call, error, words):
    """Calls what must be refused, and looks for the words in the sentence."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "must" in message
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message
