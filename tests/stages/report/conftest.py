"""The search that most sections of the page are about."""

from __future__ import annotations

from typing import Any

import pytest
from report_documents import search_document


@pytest.fixture
def search() -> dict[str, Any]:
    return search_document()
