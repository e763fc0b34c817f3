"""Checks of requests before they reach the application, and headers of all answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from dfd_edge.serve.settings import ServiceSettings


def install_guard(app: FastAPI, settings: ServiceSettings) -> None:
    """Adds the checks to an application."""
